"""Filters in recipes: what is wrong with one is said as for any other key."""

from pathlib import Path

import pytest

from llmkit.errors import UsageError
from llmkit.recipe import dump_recipe, load_recipe

KINDS = (
    "blacklist, characters, code, language, pattern, perplexity, personal, refusals, repetition, "
    "symbols, tokens, words"
)
GOOD = """\
name: demo
model:
  base: smollm2-135m-instruct
data:
  sources:
    - path: rows.jsonl
  filters:
"""


def load(folder: Path, *entries: str):
    path = folder / "recipe.yaml"
    path.write_text(GOOD + "".join(f"    - {entry}\n" for entry in entries))
    return load_recipe(path)


def refusal(folder: Path, *entries: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load(folder, *entries)
    said = str(caught.value).replace(str(folder / "recipe.yaml"), "FILE")
    return [line.strip() for line in said.splitlines()[1:]]


def test_filters_keep_their_order_and_survive_being_written(tmp_path: Path):
    entries = ("{kind: tokens, max: 2048}", "{kind: language, keep: [en]}", "{kind: refusals}")
    loaded = load(tmp_path, *entries)
    assert [entry.kind for entry in loaded.data.filters] == ["tokens", "language", "refusals"]
    again = tmp_path / "again.yaml"
    again.write_text(dump_recipe(loaded))
    assert load_recipe(again) == loaded


def test_without_the_key_there_are_no_filters(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD.replace("  filters:\n", ""))
    assert load_recipe(path).data.filters == ()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            "{kind: tokns, max: 3}",
            "'data.filters.0.kind' names nothing that is known (did you mean 'tokens'? allowed: "
            f'{KINDS}; found "tokns")',
        ),
        (
            "{kind: zzz}",
            f"'data.filters.0.kind' names nothing that is known (allowed: {KINDS}; found \"zzz\")",
        ),
        ("{max: 3}", f"'data.filters.0.kind' is missing (allowed: {KINDS})"),
        ("tokens", "'data.filters.0': must be a mapping of keys to values (found \"tokens\")"),
        ("{kind: tokens, mx: 3}", "unknown key 'data.filters.0.mx' (did you mean 'max'?)"),
        (
            "{kind: tokens, keep: 3}",
            "unknown key 'data.filters.0.keep' (not for kind tokens, but for language; allowed "
            "here: kind, min, max)",
        ),
        (
            "{kind: tokens, min: 5, max: 3}",
            "'data.filters.0': min (5) is above max (3), so every row would be dropped",
        ),
        (
            "{kind: language, keep: [english]}",
            "'data.filters.0.keep': language 'english' is not known (did you mean 'en'?)",
        ),
        (
            "{kind: personal, kinds: [emai]}",
            "'data.filters.0.kinds.0': must be 'email', 'phone', 'ip', 'card' or 'iban' "
            "(found \"emai\"; did you mean 'email'?)",
        ),
        (
            "{kind: code, max: '1'}",
            "'data.filters.0.max': must be a number (found \"1\")",
        ),
    ],
)
def test_what_is_wrong_with_a_filter_is_said_on_its_line(tmp_path: Path, entry: str, said: str):
    assert refusal(tmp_path, entry) == [f"FILE:8: {said}"]


def test_problems_of_several_filters_are_said_at_once(tmp_path: Path):
    said = refusal(
        tmp_path, "{kind: tokens, mx: 3, max: 1}", "{kind: words, min: x}", "{kind: wrds}"
    )
    assert [line.partition(": ")[0] for line in said] == ["FILE:8", "FILE:9", "FILE:10"]
