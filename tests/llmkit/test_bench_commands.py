"""``llmkit bench`` as a person calls it."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_stub import Stub, stub_server
from typer.testing import CliRunner

from llmkit.cli import app
from llmkit.errors import UsageError

run = CliRunner().invoke


@pytest.fixture
def served() -> Iterator[tuple[str, Stub]]:
    with stub_server() as server:
        yield server


def test_a_table_and_plots_come_of_every_load(served: tuple[str, Stub], tmp_path: Path) -> None:
    url, _ = served
    words = ["bench", "serve", url, "--concurrency", "1,2", "--rate", "50", "--requests", "4"]
    done = run(app, [*words, "--output-tokens", "3", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    for load in ("concurrency 1", "concurrency 2", "50/s"):
        assert load in done.stdout
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<img") == 4
    assert "http" not in page.replace(url, "").replace("data:image", "")
    for name in ("throughput", "latency", "ttft", "tpot"):
        png = (tmp_path / "out" / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert png.startswith(b"\x89PNG")
        assert min(width, height) > 300


def test_json_holds_the_figures(served: tuple[str, Stub], tmp_path: Path) -> None:
    url, _ = served
    words = ["bench", "serve", url, "--concurrency", "2", "--requests", "4", "--json"]
    done = run(app, [*words, "--output-tokens", "3", "--out", str(tmp_path)])
    (figures,) = json.loads(done.stdout)
    assert figures["completion_tokens"] == 12


def test_each_load_asks_anew(served: tuple[str, Stub], tmp_path: Path) -> None:
    url, stub = served
    words = ["bench", "serve", url, "--concurrency", "1,2", "--requests", "3"]
    run(app, [*words, "--output-tokens", "3", "--out", str(tmp_path)])
    texts = [body["messages"][0]["content"] for body in stub.asked]
    assert len(set(texts)) == len(texts) == 9


def test_requests_come_from_a_file(served: tuple[str, Stub], tmp_path: Path) -> None:
    url, stub = served
    path = tmp_path / "asks.jsonl"
    path.write_text('{"prompt": "one"}\n{"messages": [{"role": "user", "content": "two"}]}\n')
    words = ["bench", "serve", url, "--file", str(path), "--requests", "3", "--concurrency", "1"]
    assert run(app, [*words, "--out", str(tmp_path)]).exit_code == 0
    texts = [body["messages"][0]["content"] for body in stub.asked]
    assert texts[-3:] == ["one", "two", "one"]
    page = (tmp_path / "index.html").read_text()
    assert "from asks.jsonl: later ones may find their prompts cached" in page


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "asks.jsonl:1: not JSON"), ('{"text": 1}', "neither 'messages'"), ("", "no requests")],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "asks.jsonl"
    path.write_text(line + "\n")
    done = run(app, ["bench", "serve", "http://127.0.0.1:9/v1", "--file", str(path)])
    assert done.exit_code != 0
    assert said in str(done.exception)


@pytest.mark.parametrize("words", [["--rate", "0"], ["--concurrency", "1.5"], ["--rate", "x"]])
def test_a_load_must_be_a_number_above_zero(words: list[str]) -> None:
    done = run(app, ["bench", "serve", "http://127.0.0.1:9/v1", *words])
    assert words[0] in str(done.exception)


def test_failed_requests_end_with_an_error(served: tuple[str, Stub], tmp_path: Path) -> None:
    url, stub = served
    stub.breaks_off = True
    words = ["bench", "serve", url, "--requests", "4", "--concurrency", "2"]
    done = run(app, [*words, "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "server_shutdown" in done.output + str(done.exception)


def test_a_single_batch_is_no_measurement_of_batching() -> None:
    done = run(app, ["bench", "cache", "no-such-model", "--requests", "4", "--batch", "4"])
    assert isinstance(done.exception, UsageError)
    assert "such as 8" in str(done.exception)
