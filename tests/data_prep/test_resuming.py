"""What an interrupted preparation finds again, and what it does not believe."""

import numpy as np
import pytest
from tiny_tokenizer import alpaca, write_jsonl
from word_embedder import WordEmbedder

from data_prep.models import RememberedEmbedder
from data_prep.pipeline import prepare
from data_prep.settings import DataConfig

ROWS = [alpaca(n) for n in range(10)]


@pytest.fixture
def resume(tmp_path, chatml):
    """Prepare ten rows, each time in the same work folder."""
    source = {"path": write_jsonl(tmp_path / "rows.jsonl", ROWS)}
    work = tmp_path / "work"

    def run(name: str, **settings: object) -> bytes:
        folder = tmp_path / name
        folder.mkdir()
        config = DataConfig(sources=[source], workers=1, **settings)
        prepare(config, chatml, folder, work=work)
        files = sorted(path for path in folder.iterdir())
        return b"".join(path.read_bytes() for path in files)

    return run, work


def shards(work) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(work.rglob("*.arrow"))}


def test_finished_shards_are_not_made_again_and_missing_ones_are(resume):
    run, work = resume
    before = run("one", shard_rows=4)
    made = shards(work)
    next(work.rglob("000001.arrow")).unlink()
    assert run("two", shard_rows=4) == before
    again = shards(work)
    assert [path[-12:] for path in made if made[path] != again[path]] == ["000001.arrow"]


def test_shards_of_another_size_are_not_taken_for_these(resume):
    """An interrupted run may go on with smaller shards: that is the advice when memory ran out."""
    run, work = resume
    before = run("one", shard_rows=4)
    next(work.rglob("000002.arrow")).unlink()
    assert run("two", shard_rows=2) == before


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_shard_that_is_not_whole_is_made_again(resume, left):
    run, work = resume
    before = run("one", shard_rows=4)
    (path,) = work.rglob("000001.arrow")
    path.write_bytes(path.read_bytes()[:left])
    assert run("two", shard_rows=4) == before


@pytest.mark.parametrize("left", [0, 50, -1])
def test_answers_of_a_model_that_are_not_whole_are_asked_for_again(tmp_path, left):
    embedder = WordEmbedder()
    remembered = RememberedEmbedder(embedder, tmp_path)
    before = remembered.embed(["one", "two"])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:left])
    assert np.array_equal(remembered.embed(["one", "two"]), before)
    assert np.array_equal(remembered.embed(["one", "two"]), before)
    assert embedder.asked == [2, 2]
