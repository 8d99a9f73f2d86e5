"""Whether what a recipe of a generation names is there: `llmkit recipe check`."""

import os
from collections.abc import Sequence
from pathlib import Path

from data_prep.generate.tasks import read_tasks
from data_prep.sources.files import find_files
from llmkit.generation.recipe import GenerationRecipe, read_generation


def check_generation(path: Path, overrides: Sequence[str] = ()) -> list[str]:
    """Validate a recipe, read its seeds, and look for the evaluation sets that it names.

    Returns:
        What could not be looked at, a line each.

    Raises:
        UsageError: what is wrong with the recipe.
        DataError: seeds that cannot be read, an evaluation set that is not there.
    """
    recipe = read_generation(path, overrides)
    local = [each for each in recipe.seeds if find_files(each.path, each.split) is not None]
    if local:
        read_tasks(local)
    for each in recipe.checks.contamination:
        find_files(each.path)
    unseen = [
        f"{each.path}: on the hub; not looked at" for each in recipe.seeds if each not in local
    ]
    return [*unseen, *_of_teacher(recipe)]


def _of_teacher(recipe: GenerationRecipe) -> list[str]:
    teacher = recipe.teacher
    if teacher.base_url is None:
        return [f"teacher.model {teacher.model}: loaded when it is needed; not looked at"]
    told = [f"teacher.base_url {teacher.base_url}: not asked"]
    if teacher.api_key_env not in os.environ:
        told.append(f"teacher.api_key_env: {teacher.api_key_env} is not set")
    return told
