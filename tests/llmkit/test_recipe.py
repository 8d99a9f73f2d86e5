"""Recipes: what is refused, where it says so, and what overrides do."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from data_prep.sources.files import find_files
from llmkit.errors import UsageError
from llmkit.recipe import dump_recipe, load_recipe, recipe_schema
from llmkit.recipe_reading import GENERATES, looks_like

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
RECIPES = [path for path in SHIPPED if not looks_like(path, *GENERATES)]
GOOD = """\
name: demo
model:
  base: smollm2-135m-instruct
data:
  sources:
    - path: rows.jsonl
      format: alpaca
  max_tokens: 512
training:
  learning_rate: 1.0e-3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


def refusal(path: Path, text: str | None = None, *overrides: str) -> str:
    """What loading says, without the file's name."""
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).replace(str(path), "FILE")


def test_a_minimal_recipe_loads_with_defaults(recipe: Path) -> None:
    loaded = load_recipe(recipe)
    assert loaded.training.learning_rate == 1e-3
    assert loaded.training.epochs == 1
    assert loaded.data.sources[0].format == "alpaca"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("training: {learning_rat: 1}", "'training.learning_rat' (did you mean 'learning_rate'?)"),
        ("trainin: {}", "'trainin' (did you mean 'training'?)"),
        (
            "training: {adapter: {rnk: 8}}",
            "'training.adapter.rnk' (did you mean 'rank'?)",
        ),
        (
            "learning_rate: 1",
            "'learning_rate' (did you mean 'training.learning_rate'?)",
        ),
        ("training: {lora_alpha: 16}", "(did you mean 'training.adapter.alpha'?)"),
        ("training: {lr: 1}", "(did you mean 'training.learning_rate'?)"),
        ("training: {zzz: 1}", "(allowed here: method, adapter, preference,"),
        ("serve: {prot: 1}", "'serve.prot' (did you mean 'port'?)"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(recipe: Path, line: str, said: str) -> None:
    text = GOOD.partition("training:")[0] + line + "\n"
    assert f"unknown key {said}" in refusal(recipe, text) or said in refusal(recipe, text)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.sources=[]", "'data.sources' is empty; give at least 1"),
        ("name=a b", "'name': must begin with a letter or digit and have only letters, digits, "),
        (
            "data.filters=[{kind: refusals, phrases: [' ']}]",
            "'data.filters.0.phrases.0': must have more than white space (found \" \")",
        ),
        (
            "data.select={kind: random, count: 100, compare_random: true}",
            "unknown key 'data.select.compare_random' (not for kind random, but for top_tokens, "
            "mmr, k_centre; allowed here: kind, count, seed)",
        ),
    ],
)
def test_problems_are_said_in_plain_words(recipe: Path, word: str, said: str) -> None:
    assert said in refusal(recipe, None, word)


def test_every_problem_is_reported_at_once_with_its_line(recipe: Path) -> None:
    text = """\
name: demo
model:
  base: smollm2-135m-instruct
  quantisation: nf4
data:
  sources:
    - {path: a.json, formt: alpaca}
    - path: b.json
      format: alpaka
  validation:
    pth: x
    split: train
training:
  epochs: many
  adapter:
    targets:
      - q_proj
      - 5
  batch: 4
serve:
"""
    lines = refusal(recipe, text).splitlines()
    assert lines == [
        "FILE: 9 problems",
        "  FILE:4: unknown key 'model.quantisation' (did you mean 'quantization'?)",
        "  FILE:7: unknown key 'data.sources.0.formt' (did you mean 'format'?)",
        "  FILE:9: 'data.sources.1.format': must be 'auto', 'alpaca', 'sharegpt', 'openai', "
        "'completion', 'guanaco', 'dolly', 'qa', 'self_instruct', 'text', 'preference' or 'kto' "
        "(found \"alpaka\"; did you mean 'alpaca'?)",
        "  FILE:10: 'data.validation.path' is missing",
        "  FILE:11: unknown key 'data.validation.pth' (did you mean 'path'?)",
        "  FILE:14: 'training.epochs': must be a number (found \"many\")",
        "  FILE:18: 'training.adapter.targets.1': must be a text (found 5)",
        "  FILE:19: 'training.batch': must be a mapping of keys to values (found 4)",
        "  FILE:20: 'serve': must be a mapping of keys to values (found null)",
    ]


def test_a_value_that_fits_no_choice_of_a_union_is_said_once(recipe: Path) -> None:
    text = GOOD.replace("  max_tokens: 512", "  validation: lots")
    text += "  adapter:\n    targets: 5\n"
    said = refusal(recipe, text).splitlines()
    assert len(said) == 3
    assert said[1].startswith("  FILE:8: 'data.validation': must be a whole number, or a ")
    assert said[1].endswith('(found "lots")')
    assert said[2] == (
        "  FILE:12: 'training.adapter.targets': must be 'all-linear', or a list (found 5)"
    )


def test_missing_keys_are_named(recipe: Path) -> None:
    said = refusal(recipe, "name: demo\ndata: {}\n")
    assert "FILE:1: 'model' is missing" in said
    assert "FILE:2: 'data.sources' is missing" in said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("max_steps: true", "must be a whole number (found true)"),
        ("max_steps: '30'", 'must be a whole number (found "30")'),
        ("max_steps: 30.5", "must be a whole number (found 30.5)"),
        ("max_steps: 0", "must be greater than or equal to 1 (found 0)"),
        ("learning_rate: .nan", "must be a finite number (found nan)"),
        ("epochs: .inf", "must be a finite number (found inf)"),
        ("learning_rate: -1", "must be greater than 0 (found -1)"),
        ("gradient_checkpointing: 1", "must be true or false, or 'offload' (found 1)"),
        (
            "schedule: cosin",
            "must be 'cosine', 'linear' or 'constant' (found \"cosin\"; did you mean 'cosine'?)",
        ),
        ("schedule: 7", "must be 'cosine', 'linear' or 'constant' (found 7)"),
        ("schedule: xyz", "must be 'cosine', 'linear' or 'constant' (found \"xyz\")"),
    ],
)
def test_a_value_of_another_type_is_refused(recipe: Path, value: str, said: str) -> None:
    text = GOOD.partition("training:")[0] + f"training:\n  {value}\n"
    assert f"FILE:10: 'training.{value.partition(':')[0]}': {said}" in refusal(recipe, text)


@pytest.mark.parametrize("name", ["../x", "a b", "", ".hidden", "a/b"])
def test_a_name_that_is_no_folder_name_is_refused(recipe: Path, name: str) -> None:
    assert "FILE:1: 'name'" in refusal(recipe, GOOD.replace("demo", json.dumps(name)))


def test_a_key_that_stands_twice_is_refused_with_its_line(recipe: Path) -> None:
    said = refusal(recipe, GOOD + "  learning_rate: 2\n")
    assert said == "FILE:11: 'learning_rate' stands twice."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "FILE:1: not YAML"),
        ("a: b\n\tc: d\n", "FILE:2: not YAML"),
        ("", "FILE: the file is empty"),
        ("# only this\n", "FILE: the file is empty"),
        ("- a\n- b\n", "FILE: a recipe is a mapping of keys to values, not a list"),
        ("text", "FILE: a recipe is a mapping of keys to values, not a single value"),
    ],
)
def test_what_is_not_a_recipe_is_refused(recipe: Path, text: str, said: str) -> None:
    assert refusal(recipe, text).startswith(said)


def test_a_missing_file_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    said = refusal(tmp_path / "none.yaml")
    assert said.startswith("FILE: no such recipe")
    assert str(Path.cwd()) in said


def test_a_binary_file_and_a_folder_are_refused(recipe: Path, tmp_path: Path) -> None:
    recipe.write_bytes(b"\xff\xfe\x00\x01")
    assert "not a text file" in refusal(recipe)
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("word", "read", "expected"),
    [
        ("training.learning_rate=2e-4", lambda r: r.training.learning_rate, 2e-4),
        ("data.packing=false", lambda r: r.data.packing, False),
        ("training.max_steps=30", lambda r: r.training.max_steps, 30),
        ("training.adapter.targets=[a, b]", lambda r: r.training.adapter.targets, ["a", "b"]),
        ("training.adapter.rank=4", lambda r: r.training.adapter.rank, 4),
        ("data.sources.0.path=other.json", lambda r: r.data.sources[0].path, "other.json"),
        ("data.sources=[{path: x}]", lambda r: r.data.sources[0].path, "x"),
        ("data.validation=0.1", lambda r: r.data.validation, 0.1),
        ("data.validation=100", lambda r: r.data.validation, 100),
        ("data.validation.path=v.json", lambda r: r.data.validation.path, "v.json"),
        ("training.max_steps=", lambda r: r.training.max_steps, None),
        ("serve.max_model_len=1024", lambda r: r.serve.max_model_len, 1024),
    ],
)
def test_an_override_is_typed_by_the_schema(
    recipe: Path, word: str, read: Any, expected: Any
) -> None:
    found = read(load_recipe(recipe, [word]))
    assert found == expected
    assert isinstance(found, bool) == isinstance(expected, bool)


def test_a_later_override_may_go_below_an_earlier_one(recipe: Path) -> None:
    loaded = load_recipe(recipe, ["training={epochs: 2}", "training.adapter.rank=4"])
    assert (loaded.training.epochs, loaded.training.adapter.rank) == (2, 4)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("training.epochs", "overrides are written key=value"),
        ("=3", "overrides are written key=value"),
        ("data.sources.7.path=x", "'7' is not an index into a list of 1"),
        ("data.sources.-1.path=x", "'-1' is not an index into a list of 1"),
        ("data.max_tokens.x.y=1", "'x' is below a plain value"),
        ("data.max_tokens.x=1", "'data.max_tokens' holds a value, not a mapping"),
        ("training.epochs=[", "the value is not YAML"),
    ],
)
def test_an_override_that_goes_nowhere_is_refused(recipe: Path, word: str, said: str) -> None:
    assert said in refusal(recipe, None, word)


def test_a_problem_in_an_override_is_placed_on_the_command_line(recipe: Path) -> None:
    said = refusal(recipe, None, "training.lerning_rate=1", "data.max_tokens=x")
    assert "command line: unknown key 'training.lerning_rate' (did you mean" in said
    assert "command line: 'data.max_tokens': must be a whole number" in said


@pytest.mark.parametrize(
    ("words", "line", "said"),
    [
        (["training.max_steps=5", "training.warmup_steps=5"], "training.warmup_steps (5)", ""),
        (["training.evaluate_every=5"], "training.evaluate_every needs rows held out", ""),
        (["evaluation.generate=5"], "evaluation.generate asks the prompts of rows held out", ""),
        (["merge.target=base"], "merge.target (base) chooses between two bases", ""),
        (
            ["training.method=dpo", "data.overlong=split"],
            "data.overlong=split cuts rows into pieces",
            "(training.method=dpo)",
        ),
        (["training.method=kto", "data.supervise=all"], "data.supervise=all is for sft", ""),
        (["serve.max_model_len=256"], "serve.max_model_len (256) is below data.max_tokens", ""),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    recipe: Path, words: list[str], line: str, said: str
) -> None:
    found = refusal(recipe, None, *words)
    assert f"command line: {line}" in found
    assert said in found


def test_conflicts_are_all_reported_on_their_own_lines(recipe: Path) -> None:
    text = GOOD + "  evaluate_every: 5\n  max_steps: 3\n  warmup_steps: 9\nmerge: {target: base}\n"
    said = refusal(recipe, text)
    assert "FILE: 3 problems" in said
    assert "FILE:11: training.evaluate_every" in said
    assert "FILE:13: training.warmup_steps" in said
    assert "FILE:14: merge.target" in said


def test_settings_that_only_look_like_a_conflict_are_accepted(recipe: Path) -> None:
    load_recipe(recipe, ["model.quantization=nf4", "merge.target=base"])
    load_recipe(recipe, ["training.evaluate_every=5", "data.validation=0.1"])
    load_recipe(recipe, ["serve.max_model_len=512"])
    load_recipe(recipe, ["training.method=dpo", "data.overlong=truncate"])
    load_recipe(recipe, ["data.overlong=split", "data.supervise=all"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_shipped_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    loaded = load_recipe(path)
    copy = tmp_path / "recipe.yaml"
    copy.write_text(dump_recipe(loaded))
    assert load_recipe(copy) == loaded


@pytest.mark.parametrize(
    "words",
    [
        ["data.validation=0.1"],
        ["data.validation=100"],
        ["data.validation={path: v.json, format: openai}"],
        ["training.adapter.targets=[q_proj]", "training.learning_rate=1e-30"],
        ["name='1e3'", "data.sources=[{path: 'no'}, {path: '# x: y'}]"],
        ["serve.chat_template=t.jinja", "serve.compile=true"],
    ],
)
def test_a_written_recipe_reads_back_equal(recipe: Path, words: list[str], tmp_path: Path) -> None:
    loaded = load_recipe(recipe, words)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(loaded))
    assert load_recipe(copy) == loaded


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_schema_accepts_every_shipped_recipe(path: Path) -> None:
    schema = json.loads(json.dumps(recipe_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(json.dumps(YAML(typ="safe").load(path.read_text())))
    jsonschema.validate(document, schema)


def test_the_schema_refuses_an_unknown_key() -> None:
    document = {"name": "a", "model": {"base": "b"}, "data": {"sources": [{"path": "c"}]}}
    jsonschema.validate(document, recipe_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "trainin": {}}, recipe_schema())


def test_files_are_found_beside_the_recipe_and_become_absolute(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("elsewhere", "served"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("rows.jsonl", "chat.jinja", "q.jsonl", "v.jsonl"):
        (tmp_path / name).write_text("x")
    loaded = load_recipe(
        Path("..", "recipe.yaml"),
        [
            "model.chat_template=chat.jinja",
            "serve.chat_template=chat.jinja",
            "serve.adapters_folder=served",
            "evaluation.questions=q.jsonl",
            "data.validation={path: v.jsonl}",
        ],
    )
    assert loaded.data.sources[0].path == str(tmp_path / "rows.jsonl")
    assert loaded.model.chat_template == str(tmp_path / "chat.jinja")
    assert loaded.serve.chat_template == tmp_path / "chat.jinja"
    assert loaded.serve.adapters_folder == tmp_path / "served"
    assert loaded.evaluation.questions == str(tmp_path / "q.jsonl")
    assert loaded.data.validation.path == str(tmp_path / "v.jsonl")  # type: ignore[union-attr]


def test_a_file_in_the_working_directory_is_found_too(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "rows.jsonl").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    assert load_recipe(recipe).data.sources[0].path == str(tmp_path / "here" / "rows.jsonl")


def test_a_path_that_means_two_files_is_refused(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    for folder in (tmp_path, tmp_path / "here"):
        (folder / "rows.jsonl").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    assert "Write the absolute path" in refusal(recipe)


def test_a_pattern_is_found_where_its_files_are_and_becomes_absolute(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "a [b]", tmp_path / "here"
    for folder in (home / "data", here):
        folder.mkdir(parents=True)
    recipe = recipe.rename(home / "recipe.yaml")
    (home / "data" / "rows.jsonl").write_text("x")
    monkeypatch.chdir(here)
    pattern = "data.sources.0.path=data/*.jsonl"
    path = load_recipe(recipe, [pattern]).data.sources[0].path
    assert path == f"{tmp_path}/a [[]b]/data/*.jsonl"
    assert find_files(path) == [home / "data" / "rows.jsonl"]
    assert load_recipe(recipe, [f"data.sources.0.path={path}"]).data.sources[0].path == path
    (here / "data").mkdir()
    assert load_recipe(recipe, [pattern]).data.sources[0].path == path
    (here / "data" / "rows.jsonl").write_text("x")
    assert "Write the absolute path" in refusal(recipe, None, pattern)
    assert load_recipe(recipe, ["data.sources.0.path=no/*.x"]).data.sources[0].path == "no/*.x"


def test_a_source_setting_that_does_not_fit_the_file_is_a_problem_of_its_line(
    recipe: Path,
) -> None:
    said = refusal(recipe, None, "data.sources=[{path: a.parquet, text_unit: file, take: 0}]")
    assert "'data.sources.0.take': must be greater than or equal to 1 (found 0)" in said
    assert "'data.sources.0.text_unit': is for .txt files, and a.parquet is none" in said


def test_a_name_that_is_no_file_stays_as_it_is(recipe: Path) -> None:
    loaded = load_recipe(recipe, ["data.sources.0.path=owner/name", "model.base=owner/model"])
    assert loaded.data.sources[0].path == "owner/name"
    assert loaded.model.base == "owner/model"
