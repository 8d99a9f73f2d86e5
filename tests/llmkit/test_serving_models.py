"""`llmkit serve` on a model that is no run: what it takes, and what it says when ready."""

from pathlib import Path
from typing import Any

import pytest

from llmkit import bench_commands, serving
from llmkit.errors import UsageError


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    """All of a sentence-transformers folder that is read before it is loaded."""
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["BertModel"]}')
    (folder / "modules.json").write_text("[]")
    return folder


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server is ready at once, and ends."""

    def run(*_: Any, on_ready: Any) -> None:
        on_ready("http://localhost:8000/v1", "anyone may ask")

    monkeypatch.setattr("serve.app.run_server", run)


@pytest.mark.usefixtures("at_once")
def test_each_kind_of_model_is_served_with_an_example_of_what_it_does(
    embedder: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, route in ((embedder, "embeddings"), (tiny, "chat/completions")):
        serving.serve_run_or_model(str(folder), [], None, None, unverified=False)
        said = capsys.readouterr().out
        assert f"curl http://localhost:8000/v1/{route} " in said
        assert ('"input"' in said) is (route == "embeddings")


@pytest.mark.usefixtures("at_once")
def test_what_does_neither_is_not_served(embedder: Path) -> None:
    (embedder / "modules.json").unlink()
    (embedder / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}')
    with pytest.raises(UsageError, match="is an encoder"):
        serving.serve_run_or_model(str(embedder), [], None, None, unverified=False)


def test_a_model_that_writes_nothing_has_no_cache_to_measure(embedder: Path) -> None:
    with pytest.raises(UsageError, match="embeds sentences"):
        bench_commands.bench_cache(str(embedder))
