"""Every stage of a recipe, in order."""

from pathlib import Path
from typing import TYPE_CHECKING

from llmkit import preparing, stages
from llmkit.project import Project
from llmkit.servers import Servers
from llmkit.serving import NOT_SERVED

if TYPE_CHECKING:
    from llmkit.training.process_settings import Processes


def run_recipe(project: Project, processes: "Processes | None" = None) -> Path:
    """Prep -> train -> merge -> verify -> evaluate -> report.

    Stages whose inputs have not changed are skipped; an interrupted stage is resumed or redone.
    A reward model is done when it is merged: it answers nothing that could be verified or asked.
    The report is written also when a later stage fails, with what there is.

    Returns:
        The report's path.
    """
    with project:
        stages.check_ahead(project)
        preparing.prep(project)
        stages.train(project, processes)
        stages.merge(project)
        if project.recipe.training.method != "reward":
            with Servers(project) as servers:
                stages.verify(project, servers)
                stages.evaluate(project, servers)
    return project.report_path


def what_next(project: Project) -> str:
    """What to do with a run of which every stage is done."""
    if project.recipe.training.method == "reward":
        return NOT_SERVED.format(folder=project.folder / "merged")
    return f"serve it: llmkit serve {project.folder}"
