"""`llmkit plan`: what is there of a run already, its plan, and the probe."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data_prep.prepared import PreparedDataset
from llmkit.beginnings import find_tokenizer
from llmkit.models.initializing import initialize, outline
from llmkit.models.loading import choose_device, compute_dtype
from llmkit.models.settings import NewModel
from llmkit.planning.plan import MemoryPlan, make_plan, workload_for
from llmkit.planning.probe import Probed, probe
from llmkit.preparing import HOW_NOT_WHAT, RENDERING, rendering_inputs
from llmkit.project import Project
from llmkit.run import flatten
from llmkit.training.checkpoints import inputs_of
from llmkit.training.kernels.choice import Key, read_choices, used


def plan_project(project: Project, *, with_probe: bool) -> MemoryPlan:
    """Plan a recipe, with its prepared data where that is there and is the recipe's.

    Args:
        project: the recipe and its run directory, which is only read.
        with_probe: run the longest step too, in a process of its own.
    """
    recipe = project.recipe
    teacher = project.teacher.folder if project.teacher else None
    prepared = _prepared(project)
    with _base(project, outline) as folder:
        rate, chosen = _earlier_rate(project), _chosen_forms(project)
        plan = make_plan(recipe, folder, prepared, rate, teacher, chosen)
    if not with_probe:
        return plan
    with (
        _base(project, initialize) as folder,
        project.view.working("running the longest step in a process of its own"),
    ):
        found = probe(recipe, folder, workload_for(recipe, prepared), teacher)
    return _corrected(plan, found)


@contextmanager
def _base(project: Project, make: Callable[[NewModel, Path, Path], Any]) -> Iterator[Path]:
    """The folder of the base; of one that begins at random a folder for now.

    The run's own is left alone: a process that trains holds the run, and may be reading it.
    """
    model = project.recipe.model
    if model.initialize is None:
        yield project.model.folder
        return
    with TemporaryDirectory() as name:
        make(model.initialize, find_tokenizer(model, project.view.say), Path(name))
        yield Path(name)


def _corrected(plan: MemoryPlan, found: Probed) -> MemoryPlan:
    """The plan with what was measured in place of what was counted."""
    return dataclasses.replace(
        plan,
        measured=found.peak,
        tokens_per_second=found.tokens_per_second,
        rate_source="(the probe's step)",
    )


def _prepared(project: Project) -> PreparedDataset | None:
    """The run's prepared data, if the recipe would prepare the same rows to the same tokens."""
    record = project.run.record("prep")
    if record is None or project.run.damage("prep"):
        return None
    config = project.recipe.data.model_dump(mode="json", exclude=HOW_NOT_WHAT)
    now = flatten(config, "data.") | rendering_inputs(project)
    before = {
        name: value
        for name, value in record["inputs"].items()
        if name.startswith("data.") or name in RENDERING
    }
    return PreparedDataset.open(project.folder / "data") if now == before else None


def _chosen_forms(project: Project) -> frozenset[Key] | None:
    """The faster forms of layers that this run's training chose, if it was of this recipe, here."""
    recipe, folder = project.recipe, project.folder / "checkpoints"
    device = choose_device(recipe.model.device)
    now = flatten(recipe.training.model_dump(mode="json"), "training.")
    now |= {
        "quantization": recipe.model.quantization,
        "compute": f"{device} {compute_dtype(device)}",
    }
    if not now.items() <= inputs_of(folder).items():
        return None
    choices = read_choices(folder)
    return used(choices) if choices else None


def _earlier_rate(project: Project) -> tuple[float | None, str]:
    """The speed of this run's last training, which may have had other settings."""
    record = project.run.record("train")
    if record is None:
        return None, ""
    return float(record["figures"]["tokens_per_second"]), "(this run's last training)"
