"""One batch's life, without HTTP: its window, its retries, its disk."""

import asyncio
import errno
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from batch_stub import lines_of
from starlette.types import Receive, Scope, Send
from test_gate import Others

from serve.gateway.admit import Admit
from serve.gateway.errors import error_body, send_json
from serve.keys.database import Database
from serve.keys.key import Key, Limits
from serve.keys.opening import Keys, open_keys
from serve.keys.store import KeyStore
from serve.keys.window import Ask, Window
from serve.offline import attempts, batches, results, run, runner
from serve.offline.batches import Batches, new_batch_id
from serve.offline.call import ask
from serve.offline.files import Files, new_file_id
from serve.offline.folder import BatchesFolderNotUsable
from serve.offline.records import BatchRecord
from serve.offline.runner import Runner, Serving, Store
from serve.requests.bounds import Bounds
from serve.requests.refusal import RequestRefused
from serve.settings import ServeSettings

Answer = Callable[[dict[str, Any], Send], Awaitable[None]]


async def fine(body: dict[str, Any], send: Send) -> None:
    await send_json(send, 200, {"usage": {"prompt_tokens": 1, "completion_tokens": 1}})


BOUNDS = Bounds(lambda: ["stub"], 512, 100)


class AnyKey:
    """Knows every key, without limits."""

    outdated = False

    def get(self, key_id: str) -> Key:
        return Key(key_id, "ann")


def runner_of(store: Store, answer: Answer, keys: Keys | None = None) -> Runner:
    """Runs batches; with ``keys``, within the limits of these."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(json.loads((await receive())["body"]), send)

    keys = keys or Keys(cast("Any", AnyKey()))
    app = Admit(answered, keys, BOUNDS)
    return Runner(store, Serving(keys, BOUNDS, ServeSettings(), Others()), app)


async def new_batch(
    store: Store, said: list[str], seconds: float = 60, owner: str | None = None, crashes: int = 0
) -> BatchRecord:
    with store.files.incoming(owner, 10**6) as file:
        file.write(lines_of(said))
        file.finish()
        kept = await store.files.keep(
            file.path, owner, filename="in", purpose="batch", seconds=None
        )
    return BatchRecord(
        id=new_batch_id(),
        owner=owner,
        endpoint="/v1/chat/completions",
        input_file_id=kept.id,
        completion_window="1h",
        created=time.time(),
        expires=time.time() + seconds,
        output_id=new_file_id(),
        error_id=new_file_id(),
        crashes=crashes,
    )


async def ended(record: BatchRecord) -> None:
    while not record.ended:
        await asyncio.sleep(0.001)


def batch_of(tmp_path: Path, answer: Answer, said: list[str], seconds: float = 60) -> BatchRecord:
    """A batch of these lines, run until it ends."""

    async def scenario() -> BatchRecord:
        with closing(Store(tmp_path, 10**9)) as store:
            record = await new_batch(store, said, seconds)
            runs = runner_of(store, answer)
            async with runs.running():
                await runs.submit(record)
                await ended(record)
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


def test_how_a_batch_ends_is_on_the_disk_before_its_files_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SECONDS_BETWEEN_TRIES", 0.01)
    save, keep = Batches.save, Files.keep
    events = []

    async def once_full(batches: Batches, record: BatchRecord) -> None:
        if record.outcome is not None:
            events.append("full" if "full" not in events else "decided")
            if events == ["full"]:
                raise OSError(errno.ENOSPC, "no space left")
        await save(batches, record)

    async def kept(*of: Any, **more: Any) -> Any:
        if more["purpose"] == "batch_output":
            events.append("moved")
        return await keep(*of, **more)

    monkeypatch.setattr(Batches, "save", once_full)
    monkeypatch.setattr(Files, "keep", kept)
    record = batch_of(tmp_path, fine, ["a", "b"])
    assert record.status == "completed"
    assert events[:3] == ["full", "decided", "moved"]


def test_a_defect_of_the_server_takes_no_answer_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SECONDS_BETWEEN_TRIES", 0.01)

    async def broken(*_: Any) -> bool:
        await asyncio.sleep(0.05)
        raise RuntimeError("a defect")

    monkeypatch.setattr(run.BatchRun, "_expire", broken)

    async def answer(body: dict[str, Any], send: Send) -> None:
        await asyncio.sleep(1000 if body["messages"][0]["content"] == "hang" else 0)
        await fine(body, send)

    record = batch_of(tmp_path, answer, ["a", "hang", "b"], seconds=0.3)
    assert record.status == "failed"
    assert [of.code for of in record.errors] == ["internal_error"]
    assert {of["custom_id"] for of in written(tmp_path, record.output_id)} == {"r1", "r3"}


def test_a_stop_is_not_held_up_by_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(body: dict[str, Any], send: Send) -> None:
        await asyncio.sleep(1000 if body["messages"][0]["content"] == "hang" else 0)
        await fine(body, send)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    async def scenario() -> None:
        with closing(Store(tmp_path, 10**9)) as store:
            records = [await new_batch(store, ["hang", "a"]) for _ in range(2)]
            runs = runner_of(store, hang)
            async with runs.running():
                for record in records:
                    await runs.submit(record)
                while not all(of.counts.completed for of in records):
                    await asyncio.sleep(0.001)
                monkeypatch.setattr(batches, "write_beside", full)
                monkeypatch.setattr(results.Results, "flush", full)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_of_batches_that_may_crash_the_server_one_runs_until_a_line_is_done(
    tmp_path: Path,
) -> None:
    asked, may_answer = [], asyncio.Event()

    async def answer(body: dict[str, Any], send: Send) -> None:
        asked.append(body["messages"][0]["content"])
        await may_answer.wait()
        await fine(body, send)

    async def scenario() -> None:
        with closing(Store(tmp_path, 10**9)) as store:
            said = [["one", "one"], ["two"], ["other", "other"]]
            records = [
                await new_batch(store, of, owner=owner, crashes=crashes)
                for of, owner, crashes in zip(said, "abc", (2, 2, 0), strict=True)
            ]
            runs = runner_of(store, answer)
            async with runs.running():
                for record in records:
                    await runs.submit(record)
                while len(asked) < 3:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.05)
                assert sorted(asked) == ["one", "other", "other"]
                assert [of.crashes for of in records] == [3, 2, 1]
                may_answer.set()
                for record in records:
                    await ended(record)
        assert [of.status for of in records] == ["completed"] * 3
        assert [of.crashes for of in records] == [0, 0, 0]

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_batch_that_waits_for_its_turn_crashes_nothing(tmp_path: Path) -> None:
    async def hang(body: dict[str, Any], send: Send) -> None:
        await asyncio.sleep(1000)

    async def scenario() -> None:
        with closing(Store(tmp_path, 10**9)) as store:
            records = [await new_batch(store, ["hang"]) for _ in range(3)]
            runs = runner_of(store, hang)
            async with runs.running():
                for record in records:
                    await runs.submit(record)
                while [of.status for of in records] != ["in_progress"] * 3:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.05)
                assert [of.crashes for of in records] == [1, 1, 0]

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_while_its_key_may_ask_nothing_a_batch_lets_others_go_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_AT_ONCE", 1)
    passed, other_done = 0.0, asyncio.Event()
    sleep, admit = asyncio.sleep, Window.admit

    async def pass_time(seconds: float) -> None:
        nonlocal passed
        if seconds > 10:
            await other_done.wait()
        passed += seconds
        await sleep(0)

    def admit_then(window: Window, limits: Limits, ask: Ask, process: str, now: float) -> Any:
        return admit(window, limits, ask, process, now + passed)

    monkeypatch.setattr(attempts, "asyncio", SimpleNamespace(sleep=pass_time))
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: passed))
    monkeypatch.setattr(Window, "admit", admit_then)
    settings = ServeSettings(database=str(tmp_path / "keys.db"))
    with closing(Database(str(tmp_path / "keys.db"))) as database:
        limited = KeyStore(database).create("ann", limits=Limits(requests_per_minute=2)).key.id
        other = KeyStore(database).create("bob").key.id

    async def scenario() -> None:
        with closing(Store(tmp_path, 10**9)) as store, open_keys(settings) as keys:
            waiting = await new_batch(store, ["x"] * 4, owner=limited)
            records = [waiting, await new_batch(store, ["y"], owner=other)]
            runs = runner_of(store, fine, keys)
            async with runs.running():
                for record in records:
                    await runs.submit(record)
                await ended(records[1])
                assert not waiting.ended
                assert waiting.counts.completed == 2
                other_done.set()
                await ended(waiting)
        assert waiting.counts.completed == 4
        assert 50 < passed < 70

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_of_a_keys_ended_batches_the_newest_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_ENDED_KEPT", 2)

    async def scenario() -> None:
        with closing(Store(tmp_path, 10**9)) as store:
            runs = runner_of(store, fine)
            records = [await new_batch(store, ["a"], owner=owner) for owner in "abaaa"]
            async with runs.running():
                for record in records:
                    await runs.submit(record)
                    await ended(record)
            assert store.batches.all() == [records[1], *records[2:]]

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_many_small_files_take_room_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        with closing(Store(tmp_path, 3 * 4096)) as store:
            for _ in range(3):
                with store.files.incoming(None, 0) as file:
                    file.finish()
                    await store.files.keep(
                        file.path, None, filename="in", purpose="batch", seconds=None
                    )
            with pytest.raises(RequestRefused), store.files.incoming(None, 0):
                pass

    asyncio.run(scenario())


def test_a_line_reaches_the_engine_without_a_byte_more() -> None:
    bodies = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append((await receive())["body"])
        await send_json(send, 200, {})

    asyncio.run(ask(app, "/v1/embeddings", {"input": [1, 2], "model": "süß"}, None))
    assert bodies == ['{"input":[1,2],"model":"süß"}'.encode()]


def test_a_folder_is_of_one_server_at_a_time(tmp_path: Path) -> None:
    with (
        closing(Store(tmp_path, 10**9)),
        pytest.raises(BatchesFolderNotUsable, match="another server uses it"),
    ):
        Store(tmp_path, 10**9)


def test_what_has_expired_is_removed_unless_a_batch_reads_it(tmp_path: Path) -> None:
    record = batch_of(tmp_path, fine, ["a"])

    async def scenario() -> None:
        store = Store(tmp_path, 10**9)
        runs = runner_of(store, fine)
        await runs.clean(time.time() + 20 * 24 * 3600)
        assert len(store.files.all()) == 2
        await runs.clean(time.time() + 31 * 24 * 3600)
        assert [of.id for of in store.files.all()] == [record.input_file_id]
        assert not store.batches.all()
        store.close()

    asyncio.run(scenario())
    assert sorted(path.name for path in (tmp_path / "batches").iterdir()) == []
