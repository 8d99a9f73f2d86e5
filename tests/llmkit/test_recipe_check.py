"""`llmkit recipe check`: what a recipe names is looked for, all at once, and nothing is loaded."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmkit.errors import UsageError
from llmkit.recipe_check import check_recipe


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and a catalogue of which nothing was fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    Path("rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')


def recipe(base: object, **data: Any) -> Path:
    """A recipe whose every key stands on a line of its own."""
    values = {"sources": [{"path": "rows.jsonl"}], "max_tokens": 64} | data
    lines = [f"  {key}: {json.dumps(value)}" for key, value in values.items()]
    text = "\n".join([f"model: {{base: {base}}}", "name: demo", "data:", *lines])
    Path("demo.yaml").write_text(text + "\n")
    return Path("demo.yaml")


def refused(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        check_recipe(path, overrides)
    return str(caught.value).splitlines()[1:]


def test_everything_that_is_missing_is_named_at_once_with_its_line(tiny: Path) -> None:
    path = recipe(
        "smollm2-135m-instrct",
        sources=[{"path": "none.jsonl"}],
        validation={"path": "neither.jsonl"},
        contamination={"against": ["no-set.jsonl"], "semantic": {"model": "no-such-model"}},
        filters=[{"kind": "perplexity", "max": 9, "model": "all-minilm-l6-v2"}],
        dedup={"semantic": {"model": "smollm2-135m-instruct"}},
        select={"kind": "mmr", "count": 2, "model": str(tiny)},
    )
    with path.open("a") as file:
        file.write("evaluation: {questions: none.jsonl}\nserve: {chat_template: none.jinja}\n")
    found = refused(path, "model.chat_template=chatlm")
    expected = [
        ("command line", "chat template 'chatlm': neither a known name (alpaca, chatml, "),
        ("demo.yaml:1", "'smollm2-135m-instrct' was not found", "Did you mean 'smollm2-135m-ins"),
        ("demo.yaml:4", "none.jsonl: no such file"),
        ("demo.yaml:6", "neither.jsonl: no such file"),
        ("demo.yaml:7", "no-set.jsonl: no such file"),
        ("demo.yaml:7", "model 'no-such-model' was not found"),
        ("demo.yaml:8", "'all-minilm-l6-v2' embeds sentences; it writes no text"),
        ("demo.yaml:9", "'smollm2-135m-instruct' is not a sentence-transformers model. "),
        ("demo.yaml:10", "has no modules.json"),
        ("demo.yaml:11", "none.jsonl: cannot be read"),
        ("demo.yaml:12", "none.jinja: no such file"),
    ]
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert all(word in line for word in words), line


def test_two_sources_of_one_file_are_refused(tiny: Path) -> None:
    (line,) = refused(recipe(tiny, sources=[{"path": "rows.jsonl"}, {"path": "*.jsonl"}]))
    assert "rows.jsonl is named by two sources" in line


def test_what_must_fit_a_model_that_is_here_is_measured_on_it(tiny: Path) -> None:
    assert check_recipe(recipe(tiny)) == []
    assert check_recipe(recipe(tiny), ["model.chat_template=chatml"]) == []
    (template,) = refused(recipe(tiny), "model.chat_template=llama-3")
    assert "does not begin with a special token of this tokenizer" in template
    (length,) = refused(recipe(tiny, max_tokens=4096))
    assert "demo.yaml:5: data.max_tokens: 4096, but " in length
    assert "was made for 512 tokens" in length


def test_of_a_base_that_writes_no_text_nothing_else_is_said() -> None:
    (line,) = refused(recipe("all-minilm-l6-v2"))
    assert "embeds sentences; it writes no text" in line


def test_what_is_not_on_this_machine_is_named_and_not_fetched() -> None:
    path = recipe("owner/base", sources=[{"path": "owner/rows"}], dedup={"semantic": {}})
    assert check_recipe(path) == [
        "not looked at: data set owner/rows (`datasets` loads it, maybe from the hub)",
        "not looked at: model owner/base (not on this machine yet)",
        "not looked at: model all-minilm-l6-v2 (not on this machine yet)",
    ]
    assert not Path("cache").exists()


def test_the_recipes_own_problems_come_first(tiny: Path) -> None:
    lines = refused(recipe(tiny, sources=[{"path": "none.jsonl"}]), "data.max_token=3")
    assert len(lines) == 1
    assert "unknown key 'data.max_token'" in lines[0]


def test_nothing_heavy_is_imported_for_it(tiny: Path) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from llmkit.recipe_check import check_recipe;"
        f"check_recipe(Path({str(recipe(tiny).absolute())!r}));"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.stdout == "[]\n", done.stderr
