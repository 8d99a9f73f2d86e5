"""Recipes of generations: what is refused, and what `llmkit recipe` says of them."""

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from data_prep.errors import DataError
from llmkit.cli import app
from llmkit.errors import UsageError
from llmkit.generation.checking import check_generation
from llmkit.generation.recipe import (
    Method,
    generation_schema,
    read_for,
    read_generation,
)
from llmkit.recipe import dump_recipe, load_recipe
from llmkit.recipe_reading import GENERATES, looks_like

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
RECIPES = [path for path in SHIPPED if looks_like(path, *GENERATES)]
GOOD = """\
name: demo
seeds: [{path: seeds.jsonl}]
teacher: {model: m, base_url: "http://127.0.0.1:9/v1"}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "seeds.jsonl").write_text('{"instruction": "Name a colour."}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


def refusal(path: Path, *overrides: str, method: Method | None = None) -> str:
    with pytest.raises((UsageError, DataError)) as caught:
        read_for(method, path, overrides) if method else read_generation(path, overrides)
    return str(caught.value)


def test_both_methods_ship_a_recipe() -> None:
    assert [path.stem for path in RECIPES] == ["evol-instruct", "self-instruct"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_shipped_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    loaded = read_generation(path)
    copy = tmp_path / "recipe.yaml"
    copy.write_text(dump_recipe(loaded))
    assert read_generation(copy) == loaded
    document = json.loads(json.dumps(YAML(typ="safe").load(path.read_text())))
    jsonschema.validate(document, generation_schema())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("teacher.modl=x", "'teacher.modl' (did you mean 'model'?)"),
        ("teacher.base_url=127.0.0.1:8000/v1", "an address such as https://host/v1"),
        ("teacher.sampling.temperature=3", "teacher.sampling.temperature"),
        ("teacher.limits.concurrency=0", "teacher.limits.concurrency"),
        ("teacher.budget.cost=1", "budget.cost needs prices"),
        ("teacher.budget.tokens=0", "teacher.budget.tokens"),
        ("evolve={rounds: 0}", "evolve.rounds"),
        ("evolve={operations: {deepn: 1}}", "did you mean 'deepen'?"),
        (
            "evolve={operations: {constraints: 0, deepen: 0, concretise: 0, reasoning: 0, "
            "complicate: 0, breadth: 0}}",
            "evolve.operations",
        ),
        ("answers={best_of: 4}", "answers.best_of (4) needs a judge"),
        ("self_instruct={filters: {novelty: 1.5}}", "self_instruct.filters.novelty"),
        ("checks.near_duplicates=0", "checks.near_duplicates"),
        ("serve={max_model_len: 512}", "leave one of them out"),
        ("name=../x", "name"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_keys_name(recipe: Path, word: str, said: str) -> None:
    assert said in refusal(recipe, word)


def test_a_section_of_another_method_is_refused(recipe: Path) -> None:
    text = refusal(recipe, "evolve={rounds: 1}", method="answers")
    assert "llmkit generate evol-instruct" in text
    assert read_for("evol-instruct", recipe, ["evolve={rounds: 1}", "answers={best_of: 1}"])


def test_a_recipe_check_reads_the_seeds_and_says_what_it_did_not_ask(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = CliRunner().invoke(app, ["recipe", "check", str(recipe)])
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"{recipe}: teacher.base_url http://127.0.0.1:9/v1: not asked",
        f"{recipe}: teacher.api_key_env: OPENAI_API_KEY is not set",
        f"{recipe}: ok",
    ]
    (recipe.parent / "seeds.jsonl").write_text("{broken\n")
    refused = CliRunner().invoke(app, ["recipe", "check", str(recipe)]).exception
    assert isinstance(refused, DataError)
    assert "seeds.jsonl:1" in str(refused)


def test_a_recipe_check_looks_for_seeds_and_evaluation_sets(recipe: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        check_generation(recipe, ["seeds=[{path: ./nowhere.jsonl}]"])
    with pytest.raises(DataError, match="nowhere"):
        check_generation(recipe, ["checks={contamination: [{path: ./nowhere.jsonl}]}"])


def test_the_schema_of_each_kind_is_printed() -> None:
    printed = CliRunner().invoke(app, ["recipe", "schema", "--generation"])
    assert json.loads(printed.output) == generation_schema()


def test_a_recipe_of_the_other_kind_is_refused_with_its_command() -> None:
    assert "llmkit run" in refusal(SHIPPED[0].with_name("quickstart.yaml"))
    with pytest.raises(UsageError, match="llmkit generate evol-instruct"):
        load_recipe(RECIPES[0])


def test_a_training_recipe_is_no_generation(tmp_path: Path) -> None:
    assert not looks_like(tmp_path / "missing.yaml", *GENERATES)
    assert not any(looks_like(path, *GENERATES) for path in SHIPPED if path not in RECIPES)
