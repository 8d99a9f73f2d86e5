"""One batch's life, without HTTP: its window, its retries, its disk."""

import asyncio
import errno
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from batch_stub import lines_of
from starlette.types import Receive, Scope, Send
from test_gate import Others

from serve.gateway.errors import error_body, send_json
from serve.keys.opening import Keys
from serve.offline import attempts, results, run
from serve.offline.batches import new_batch_id
from serve.offline.files import new_file_id
from serve.offline.records import BatchRecord
from serve.offline.runner import Runner, Serving, Store
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

Answer = Callable[[dict[str, Any], Send], Awaitable[None]]


async def fine(body: dict[str, Any], send: Send) -> None:
    await send_json(send, 200, {"usage": {"prompt_tokens": 1, "completion_tokens": 1}})


def batch_of(tmp_path: Path, answer: Answer, said: list[str], seconds: float = 60) -> BatchRecord:
    """A batch of these lines, run until it ends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(json.loads((await receive())["body"]), send)

    async def scenario() -> BatchRecord:
        store = Store(tmp_path, 10**9)
        settings = ServeSettings(batches_folder=tmp_path)
        serving = Serving(Keys(), Bounds(lambda: ["stub"], 512, 100), settings, Others())
        runner = Runner(store, serving, app)
        with store.files.incoming(None, 10**6) as file:
            file.write(lines_of(said))
            file.finish()
            kept = await store.files.keep(
                file.path, None, filename="in", purpose="batch", seconds=None
            )
        record = BatchRecord(
            id=new_batch_id(),
            owner=None,
            endpoint="/v1/chat/completions",
            input_file_id=kept.id,
            completion_window="1h",
            created=time.time(),
            expires=time.time() + seconds,
            output_id=new_file_id(),
            error_id=new_file_id(),
        )
        async with runner.running():
            await runner.submit(record)
            while not record.ended:
                await asyncio.sleep(0.01)
        store.close()
        return record

    return asyncio.run(asyncio.wait_for(scenario(), 30))


def written(tmp_path: Path, file_id: str) -> list[dict[str, Any]]:
    text = (tmp_path / "files" / f"{file_id}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_lines_that_did_not_run_in_time_are_told_so(tmp_path: Path) -> None:
    async def answer(body: dict[str, Any], send: Send) -> None:
        if body["messages"][0]["content"] == "hang":
            await asyncio.sleep(1000)
        await fine(body, send)

    record = batch_of(tmp_path, answer, ["a", "b", *["hang"] * 1200], seconds=1)
    assert record.status == "expired"
    assert (record.counts.completed, record.counts.failed) == (2, 1200)
    assert record.body()["expired_at"] is not None
    failed = written(tmp_path, record.error_id)
    assert {of["error"]["code"] for of in failed} == {"batch_expired"}
    assert len({of["custom_id"] for of in failed}) == 1200


def test_an_answer_on_its_way_to_the_disk_when_the_time_is_over_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_by = results._append

    def slow(file: Any, text: bytes) -> None:
        time.sleep(0.5)
        written_by(file, text)

    monkeypatch.setattr(results, "_append", slow)
    record = batch_of(tmp_path, fine, ["a", "b"], seconds=0.3)
    assert record.counts.completed + record.counts.failed == 2
    told = written(tmp_path, record.output_id)
    told += written(tmp_path, record.error_id) if record.has_errors else []
    assert sorted(of["custom_id"] for of in told) == ["r1", "r2"]


@pytest.mark.parametrize("status", [500, 503, 429, 504])
def test_a_line_is_asked_again_where_the_server_was_at_fault(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_PAUSE", 0.01)
    asked = []

    async def answer(body: dict[str, Any], send: Send) -> None:
        asked.append(body)
        if len(asked) < 3:
            await send_json(send, status, error_body("no", kind="server_error", code="x"))
        else:
            await fine(body, send)

    record = batch_of(tmp_path, answer, ["a"])
    assert record.counts.completed == 1
    assert len(asked) == 3


def test_a_line_on_which_the_server_fails_again_and_again_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_PAUSE", 0.01)
    asked = []

    async def answer(body: dict[str, Any], send: Send) -> None:
        asked.append(body)
        raise RuntimeError("a defect")

    record = batch_of(tmp_path, answer, ["a"])
    assert record.status == "completed"
    assert record.counts.failed == 1
    assert len(asked) == 3
    assert written(tmp_path, record.error_id)[0]["response"]["status_code"] == 500


def test_a_disk_that_fails_is_waited_for_and_no_result_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SECONDS_BETWEEN_TRIES", 0.01)
    written_by = results._append
    calls = []

    def full_twice(file: Any, text: bytes) -> None:
        calls.append(text)
        if len(calls) in (2, 3):
            written_by(file, text[:-10])
            raise OSError(errno.ENOSPC, "no space left")
        written_by(file, text)

    monkeypatch.setattr(results, "_append", full_twice)

    async def answer(body: dict[str, Any], send: Send) -> None:
        await asyncio.sleep(0.001 * len(body["messages"][0]["content"]))
        await fine(body, send)

    record = batch_of(tmp_path, answer, ["x" * number for number in range(1, 31)])
    assert record.status == "completed"
    answers = written(tmp_path, record.output_id)
    assert sorted(of["custom_id"] for of in answers) == sorted(f"r{n}" for n in range(1, 31))


def test_what_has_expired_is_removed_unless_a_batch_reads_it(tmp_path: Path) -> None:
    record = batch_of(tmp_path, fine, ["a"])

    async def scenario() -> None:
        store = Store(tmp_path, 10**9)
        serving = Serving(Keys(), Bounds(lambda: ["stub"], 512, 100), ServeSettings(), Others())

        async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

        runner = Runner(store, serving, app)
        await runner.clean(time.time() + 20 * 24 * 3600)
        assert len(store.files.all()) == 2
        await runner.clean(time.time() + 31 * 24 * 3600)
        assert [of.id for of in store.files.all()] == [record.input_file_id]
        assert not store.batches.all()
        store.close()

    asyncio.run(scenario())
    assert sorted(path.name for path in (tmp_path / "batches").iterdir()) == []
