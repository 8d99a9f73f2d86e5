"""The documents tell the truth: their recipes load, and they name what there is."""

import re
from pathlib import Path
from typing import get_args

import pytest

from data_prep.filters.settings import FilterConfig
from data_prep.formats.registry import FormatName
from llmkit.generation.recipe import read_generation
from llmkit.models.settings import NewModel
from llmkit.recipe import load_recipe
from llmkit.recipe_reading import GENERATES, looks_like
from llmkit.training.settings import (
    DistillationConfig,
    EarlyStopping,
    Freeze,
    Kernels,
    LoraAdapter,
    Method,
    Optimizer,
    PreferenceConfig,
    Tracker,
    TrainingConfig,
)
from llmkit.training.units import UNITS_OF

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def recipes_in(document: Path) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_recipe_in_a_document_loads(document: Path, tmp_path: Path):
    recipes = recipes_in(document)
    assert recipes
    for number, text in enumerate(recipes):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        load(path)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_every_recipe_that_ships_loads(path: Path):
    load(path)


def load(path: Path) -> None:
    if looks_like(path, *GENERATES):
        read_generation(path)
    else:
        load_recipe(path)


def named_in_tables(document: Path, *sections: str) -> set[str]:
    """What stands between backticks in the first column of the tables of some sections."""
    parts = re.split(r"^## (.+)\n", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    rows = [r for name in sections for r in re.findall(r"^\| (`.*?) \|", texts[name], re.MULTILINE)]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_data_document_names_every_format_every_filter_and_every_method():
    named = named_in_tables(ROOT / "docs" / "data.md", "Formats", "Filters")
    formats = set(get_args(FormatName)) - {"auto"}
    union = get_args(FilterConfig)[0]
    filters = {get_args(each.model_fields["kind"].annotation)[0] for each in get_args(union)}
    assert named == formats | filters
    assert named_in_tables(ROOT / "docs" / "data.md", "Preferences") == set(get_args(Method))


def test_the_training_document_names_every_method_and_every_setting():
    document = ROOT / "docs" / "training.md"
    assert named_in_tables(document, "Methods") == set(get_args(Method))
    whole = document.read_text(encoding="utf-8")
    lora, freeze = LoraAdapter.model_fields, Freeze.model_fields
    said = {*TrainingConfig.model_fields, *lora, *freeze, *EarlyStopping.model_fields}
    said |= {*DistillationConfig.model_fields, *NewModel.model_fields, *get_args(Optimizer)}
    said |= {*get_args(Kernels), *get_args(Tracker)}
    said -= {"preference", "architecture"}  # a page of its own; one choice alone
    words = set(re.findall(r"\w+", " ".join(re.findall(r"```.*?```|`[^`]+`", whole, re.DOTALL))))
    assert said - words == set()


def test_the_document_of_preferences_names_every_method_and_every_setting():
    whole = (ROOT / "docs" / "preferences.md").read_text(encoding="utf-8")
    settings = set(PreferenceConfig.model_fields)
    methods = {method for method, units in UNITS_OF.items() if units != "rows"}
    assert {name for name in settings | methods if f"`{name}`" not in whole} == set()


def test_every_recipe_that_a_document_names_is_there():
    for document in DOCUMENTS:
        for name in re.findall(r"recipes/[\w-]+\.yaml", document.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{document.name}: {name}"
