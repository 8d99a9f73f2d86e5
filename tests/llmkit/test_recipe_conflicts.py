"""Settings that a method does not look at, or that wait for what never comes, are refused."""

from pathlib import Path

import pytest

from llmkit.errors import UsageError
from llmkit.recipe import dump_recipe, load_recipe

RECIPE = "name: x\nmodel: {base: smollm2-135m}\ndata: {sources: [{path: rows.json}]}\n"
HELD_OUT = "data.validation=0.1"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def _method(name: str, *words: str) -> list[str]:
    return [f"training.method={name}", *words]


def _refused(recipe: Path, words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe, words)
    assert f"command line: {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "setting", "said"),
    [
        ("sft", "beta=0.2", "beta (0.2) does nothing under training.method=sft: it is for dpo,"),
        ("reward", "beta=0.2", "beta (0.2) does nothing under training.method=reward"),
        ("orpo", "loss=ipo", "loss (ipo) does nothing under training.method=orpo: it is for dpo."),
        ("kto", "label_smoothing=0.1", "label_smoothing (0.1) does nothing under"),
        ("dpo", "desirable_weight=2.0", "desirable_weight (2.0) does nothing under"),
        ("orpo", "undesirable_weight=2.0", "undesirable_weight (2.0) does nothing under"),
    ],
)
def test_a_preference_setting_that_does_nothing_is_refused(
    recipe: Path, method: str, setting: str, said: str
) -> None:
    words = _method(method, f"training.preference.{setting}")
    _refused(recipe, words, f"training.preference.{said}")


def test_settings_of_one_method_that_exclude_each_other_are_refused(recipe: Path) -> None:
    hinge = "training.preference={loss: hinge, label_smoothing: 0.1}"
    _refused(
        recipe,
        _method("dpo", hinge),
        "training.preference.label_smoothing (0.1) belongs to loss=sigmoid",
    )
    nothing = "training.preference={desirable_weight: 0.0, undesirable_weight: 0.0}"
    _refused(recipe, _method("kto", nothing), "training.preference: with desirable_weight=0 and")


@pytest.mark.parametrize("wish", ["keep=best", "early_stopping={evaluations: 2}"])
@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ([], "training.evaluate_every and data.validation"),
        ([HELD_OUT], "training.evaluate_every"),
    ],
)
def test_waiting_for_evaluations_that_are_never_made_is_refused(
    recipe: Path, wish: str, words: list[str], missing: str
) -> None:
    name = wish.partition("=")[0]
    with pytest.raises(UsageError, match=rf"training\.{name}.*none are measured: set {missing}"):
        load_recipe(recipe, [f"training.{wish}", *words])
    load_recipe(recipe, [f"training.{wish}", HELD_OUT, "training.evaluate_every=5"])


@pytest.mark.parametrize("kind", ["{kind: full}", "{kind: freeze, layers: 2}"])
def test_quantised_weights_that_should_train_are_refused(recipe: Path, kind: str) -> None:
    words = [f"training.adapter={kind}", "model.quantization=nf4"]
    _refused(recipe, words, "training.adapter.kind=")
    load_recipe(recipe, words[:1])
    load_recipe(recipe, ["training.adapter={rank: 4}", words[1]])
    load_recipe(recipe, ["training.adapter={kind: freeze, layers: 0, head: true}", words[1]])


def test_directions_of_quantised_weights_are_not_taken_out(recipe: Path) -> None:
    words = ["training.adapter.init=pissa", "model.quantization=int8"]
    _refused(recipe, words, "training.adapter.init=pissa takes singular directions")
    load_recipe(recipe, words[:1])


@pytest.mark.parametrize("word", ["evaluation.generate=2", "evaluation.questions=q.jsonl"])
def test_a_reward_model_cannot_be_asked(recipe: Path, word: str) -> None:
    said = "a reward model scores answers and writes none"
    _refused(recipe, _method("reward", word, HELD_OUT), said)


@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "orpo", "reward"])
def test_a_written_recipe_of_every_method_reads_back(
    recipe: Path, method: str, tmp_path: Path
) -> None:
    loaded = load_recipe(recipe, _method(method))
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(loaded))  # with every default of every method written out
    assert load_recipe(copy).training == loaded.training


def test_layers_to_train_whole_are_written_as_a_list(recipe: Path) -> None:
    loaded = load_recipe(recipe, ["training.adapter={modules_to_save: [embed_tokens]}"])
    assert loaded.training.adapter.modules_to_save == ["embed_tokens"]
    with pytest.raises(UsageError, match="modules_to_save"):
        load_recipe(recipe, ["training.adapter={modules_to_save: [1]}"])


def test_conflicts_are_said_beside_unknown_keys(recipe: Path) -> None:
    words = ["training.adapter={kind: full, rnk: 3}", "model.quantization=nf4", "data.maxtokens=9"]
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe, words)
    said = str(caught.value)
    assert "3 problems" in said
    assert "unknown key 'data.maxtokens' (did you mean 'max_tokens'?)" in said
    assert "unknown key 'training.adapter.rnk'" in said
    assert "training.adapter.kind=full trains weights themselves" in said


def test_what_only_a_misspelt_key_would_have_said_is_not_missed(recipe: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe, ["data.filters=[{kind: tokens, mx: 3}]"])
    assert "neither min nor max" not in str(caught.value)
