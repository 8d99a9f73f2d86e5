"""The documents tell the truth: their recipes load, and they name what there is."""

import re
from pathlib import Path
from typing import get_args

import pytest

from data_prep.filters.settings import FilterConfig
from data_prep.formats.registry import FormatName
from llmkit.recipe import load_recipe
from llmkit.training.settings import Method

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
        load_recipe(path)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_every_recipe_that_ships_loads(path: Path):
    load_recipe(path)


def named_in_tables(document: Path) -> set[str]:
    """What stands between backticks in the first column of the document's tables."""
    rows = re.findall(r"^\| (`.*?) \|", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_data_document_names_every_format_every_filter_and_every_method():
    named = named_in_tables(ROOT / "docs" / "data.md")
    formats = set(get_args(FormatName)) - {"auto"}
    union = get_args(FilterConfig)[0]
    filters = {get_args(each.model_fields["kind"].annotation)[0] for each in get_args(union)}
    assert named == formats | filters | set(get_args(Method))
