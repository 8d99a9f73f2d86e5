"""What a command works on: a view, a recipe with its run, the processes that train.

Nothing heavy is imported here; see `cli`.
"""

# ruff: noqa: FBT001 (options as the command line gives them)

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmkit.console import View
    from llmkit.project import Project
    from llmkit.recipe import Recipe
    from llmkit.servers import Servers
    from llmkit.training.process_settings import Processes


def view_of(quiet: bool, as_json: bool) -> "View":
    """Where a command says what it does."""
    from llmkit.console import choose_view

    return choose_view(quiet, as_json)


def project(recipe: Path, overrides: list[str] | None, runs: Path, view: "View") -> "Project":
    """A recipe and its run, whether what it names is there or not."""
    from llmkit.recipe import load_recipe

    return _project_of(load_recipe(recipe, overrides or []), runs, view)


def checked_project(
    recipe: Path, overrides: list[str] | None, runs: Path, view: "View"
) -> "Project":
    """As `project`, once what the recipe names was found: before torch is imported."""
    from llmkit.recipe_check import load_checked

    return _project_of(load_checked(recipe, overrides or []), runs, view)


def _project_of(recipe: "Recipe", runs: Path, view: "View") -> "Project":
    from llmkit.project import Project
    from llmkit.run import Run

    return Project(recipe, Run(runs / recipe.name), view)


def processes(project: "Project", count: int | None, accelerate: str | None) -> "Processes | None":
    """The processes that the options ask for, if they can run; None where this one trains."""
    if accelerate is None and count in (None, 1):
        return None
    from llmkit.models.loading import choose_device
    from llmkit.training.process_settings import read_processes, refuse_what_cannot_run_together

    recipe = project.recipe
    device = choose_device(recipe.model.device).type
    found = read_processes(count, accelerate, device)
    if found:
        refuse_what_cannot_run_together(found, recipe.training, recipe.model, device)
    return found


def helped_train(project: "Project", processes: "Processes | None") -> bool:
    """Whether this is not the first of several machines, and has done its part: the training."""
    if processes is None or processes.machine_rank == 0:
        return False
    from llmkit.models.loading import choose_device
    from llmkit.training.launching import FOLDER, help_train

    device = choose_device(project.recipe.model.device).type
    help_train(processes, project.folder / FOLDER, device, project.view)
    return True


def opened(folder: Path, quiet: bool, as_json: bool) -> "Project":
    """The run that a directory holds."""
    from llmkit.project import open_run

    return open_run(folder, view_of(quiet, as_json))


def servers(project: "Project") -> "Servers":
    """The servers of a run's models, of which none is started yet."""
    from llmkit.servers import Servers

    return Servers(project)
