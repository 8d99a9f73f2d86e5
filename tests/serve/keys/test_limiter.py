"""Limits are exact: in one server, between servers, and when a server or the database dies."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from serve.keys.database import Database
from serve.keys.key import Key, Limits
from serve.keys.limiter import LEASE, Limiter, LimitsUnavailable, Verdict
from serve.keys.store import KeyStore
from serve.keys.window import Admitted, Ask, Refused, Window
from serve.keys.window_rows import WindowRows

SIXTY = Limits(requests_per_minute=60)


@asynccontextmanager
async def servers(database_name: str, count: int) -> AsyncIterator[Sequence[Limiter]]:
    """So many limiters, each with connections and a thread of its own, as servers have."""
    databases = [Database(database_name) for _ in range(count)]
    limiters = [Limiter(database) for database in databases]
    for limiter in limiters:
        limiter.start()
    try:
        yield limiters
    finally:
        for limiter in limiters:
            await asyncio.to_thread(limiter.stop)
        for database in databases:
            database.close()


@pytest.fixture
def make_key(database: Database) -> Callable[[Limits], Key]:
    return lambda limits: KeyStore(database).create("ann", limits=limits).key


def count_admitted(verdicts: Sequence[Verdict]) -> int:
    return sum(isinstance(verdict.result, Admitted) for verdict in verdicts)


async def soon(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_of_200_at_once_exactly_60_are_admitted(
    database_name: str, make_key: Callable[[Limits], Key], replicas: int
) -> None:
    key = make_key(SIXTY)

    async def scenario() -> None:
        async with servers(database_name, replicas) as limiters:
            asked = [limiters[n % replicas].admit(key, Ask()) for n in range(200)]
            verdicts = await asyncio.gather(*asked)
        assert count_admitted(verdicts) == 60
        refused = [v.result for v in verdicts if isinstance(v.result, Refused)]
        assert {of.limit for of in refused} == {"requests"}
        assert all(of.wait is not None and 50 < of.wait <= 61 for of in refused)

    asyncio.run(scenario())


REPLICA = """
import asyncio, sys
from serve.keys.database import Database
from serve.keys.limiter import Limiter
from serve.keys.store import KeyStore
from serve.keys.window import Admitted, Ask

async def main():
    database = Database(sys.argv[1])
    key = KeyStore(database).all()[0].key
    limiter = Limiter(database)
    limiter.start()
    print("ready", flush=True)
    sys.stdin.readline()
    verdicts = await asyncio.gather(*(limiter.admit(key, Ask()) for _ in range(int(sys.argv[2]))))
    print(sum(isinstance(verdict.result, Admitted) for verdict in verdicts), flush=True)
    await asyncio.sleep(float(sys.argv[3]))
    if sys.argv[4:] == ["die"]:
        import os
        os._exit(9)
    await asyncio.to_thread(limiter.stop)

asyncio.run(main())
"""


def replica(database_name: str, requests: int, *more: str) -> subprocess.Popen[str]:
    """A server process that asks for so many at once when it is told to."""
    command = [sys.executable, "-c", REPLICA, database_name, str(requests), *more]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_server_processes_admit_exactly_60_of_200_at_once(
    database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    make_key(SIXTY)
    processes = [replica(database_name, 100, "0") for _ in range(2)]
    for process in processes:
        tell(process)
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum(int(out) for out, _ in outputs) == 60


def test_what_a_killed_server_admitted_still_counts(
    database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(SIXTY)
    process = replica(database_name, 20, "0.5", "die")
    tell(process)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (9, "20\n"), err

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            began = time.monotonic()
            verdicts = await asyncio.gather(*(limiter.admit(key, Ask()) for _ in range(100)))
            assert time.monotonic() - began < LEASE + 1
        assert count_admitted(verdicts) == 40

    asyncio.run(scenario())


def test_a_server_cut_off_from_the_database_admits_nothing_beside_the_others(
    database_name: str, make_key: Callable[[Limits], Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(SIXTY)

    async def scenario() -> None:
        async with servers(database_name, 2) as (cut_off, other):
            assert count_admitted([await cut_off.admit(key, Ask()) for _ in range(10)]) == 10
            await asyncio.sleep(0.5)  # they are written
            with monkeypatch.context() as patched:
                patched.setattr(cut_off._rows, "_connected", away)
                await asyncio.sleep(0.6)
                with pytest.raises(LimitsUnavailable):
                    await cut_off.admit(key, Ask())
                verdicts = await asyncio.gather(*(other.admit(key, Ask()) for _ in range(100)))
                assert count_admitted(verdicts) == 50
            assert isinstance((await cut_off.admit(key, Ask())).result, Refused)

    asyncio.run(scenario())


def away(*_: object) -> None:
    raise OperationalError("SELECT", {}, Exception("away"))


def test_servers_that_take_turns_count_together(
    database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(Limits(requests_per_minute=100))

    async def scenario() -> None:
        async with servers(database_name, 2) as (one, other):
            assert count_admitted([await one.admit(key, Ask()) for _ in range(50)]) == 50
            began = time.monotonic()
            first = await other.admit(key, Ask())
            # The first server counted in its memory and had to give the row up.
            assert time.monotonic() - began < LEASE - 0.5
            turns = [await (one, other)[n % 2].admit(key, Ask()) for n in range(60)]
            assert count_admitted([first, *turns]) == 50

    asyncio.run(scenario())


def test_a_server_alone_asks_the_database_a_few_times_a_second(
    database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(Limits(requests_per_minute=1_000_000, tokens_per_minute=1_000_000))
    statements: list[str] = []

    async def scenario() -> None:
        database = Database(database_name)
        event.listen(
            database.engine, "before_cursor_execute", lambda *of: statements.append(str(of[2]))
        )
        limiter = Limiter(database)
        limiter.start()
        began = time.monotonic()
        for _ in range(3000):
            verdict = await limiter.admit(key, Ask(10, 10))
            assert isinstance(verdict.result, Admitted)
            limiter.settle(key, verdict.result, 7)
        seconds = time.monotonic() - began
        await asyncio.to_thread(limiter.stop)
        database.close()
        assert len(statements) < 40 + 40 * seconds

    asyncio.run(scenario())


def test_tokens_of_many_requests_at_once_never_go_over(
    database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(Limits(tokens_per_minute=1000))

    async def scenario() -> None:
        used = 0
        async with servers(database_name, 2) as limiters:

            async def one(number: int) -> None:
                nonlocal used
                limiter = limiters[number % 2]
                verdict = await limiter.admit(key, Ask(100, 100))
                if isinstance(verdict.result, Admitted):
                    await asyncio.sleep(0.01)
                    used += 30
                    limiter.settle(key, verdict.result, 30)

            for _ in range(12):
                await asyncio.gather(*(one(n) for n in range(12)))
        # Each takes 30 of the 100 it may take: the last is admitted where 100 are left.
        assert 900 < used <= 1000

    asyncio.run(scenario())


def test_concurrent_requests_are_counted_over_all_servers(
    database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(Limits(concurrent_requests=5))

    async def scenario() -> None:
        async with servers(database_name, 2) as limiters:
            verdicts = await asyncio.gather(*(limiters[n % 2].admit(key, Ask()) for n in range(20)))
            assert count_admitted(verdicts) == 5
            for number, verdict in enumerate(verdicts):
                if isinstance(verdict.result, Admitted):
                    limiters[number % 2].settle(key, verdict.result, 0)

            async def five_again() -> bool:
                again = await asyncio.gather(
                    *(limiters[n % 2].admit(key, Ask()) for n in range(20))
                )
                for number, verdict in enumerate(again):
                    if isinstance(verdict.result, Admitted):
                        limiters[number % 2].settle(key, verdict.result, 0)
                return count_admitted(again) == 5

            await soon(five_again)

    asyncio.run(scenario())


def share_rows(database: Database, *, until: float) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE llmkit_windows SET shared_until = :at"), {"at": until})


def test_a_lone_request_holds_its_place_in_a_shared_row_for_as_long_as_it_runs(
    database: Database,
    database_name: str,
    make_key: Callable[[Limits], Key],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = make_key(Limits(concurrent_requests=1))
    share_rows(database, until=time.time() + 3600)
    monkeypatch.setattr("serve.keys.limiter._BETWEEN_TOUCHES", 0.01)
    held: list[float] = []

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            assert count_admitted([await limiter.admit(key, Ask())]) == 1

            async def renewed() -> bool:
                with database.reading() as connection:
                    state = connection.execute(text("SELECT state FROM llmkit_windows")).scalar()
                [holding] = Window.from_json(str(state)).held.values()
                held.append(holding.until)
                return held[-1] > held[0]

            await soon(renewed, 5)

    asyncio.run(scenario())


def owner_of_the_row(database: Database) -> str | None:
    with database.reading() as connection:
        owner: str | None = connection.execute(text("SELECT owner FROM llmkit_windows")).scalar()
        return owner


def test_a_row_in_which_another_server_holds_something_stays_shared(
    database: Database, database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(Limits(concurrent_requests=1))

    async def scenario() -> None:
        async with servers(database_name, 2) as (one, other):
            share_rows(database, until=time.time() + 3600)
            admitted = (await one.admit(key, Ask())).result
            assert isinstance(admitted, Admitted)
            share_rows(database, until=0)
            # Taken now, the row would forget after a while what the other still holds.
            assert count_admitted([await other.admit(key, Ask())]) == 0
            assert owner_of_the_row(database) is None
            one.settle(key, admitted, 1)

            async def let_in() -> bool:
                return count_admitted([await other.admit(key, Ask())]) == 1

            await soon(let_in, 5)
            assert owner_of_the_row(database) is not None

    asyncio.run(scenario())


def test_a_database_slower_than_memory_is_trusted_only_slows_requests_down(
    database_name: str, make_key: Callable[[Limits], Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(Limits(requests_per_minute=1000))
    locked = WindowRows.locked

    @contextmanager
    def slowly(rows: WindowRows, key_ids: Sequence[str]) -> Iterator[object]:
        with locked(rows, key_ids) as found:
            time.sleep(0.06)
            yield found

    monkeypatch.setattr("serve.keys.limiter._TRUST", 0.05)
    monkeypatch.setattr("serve.keys.limiter._PATIENCE", 1.0)
    monkeypatch.setattr(WindowRows, "locked", slowly)

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            for _ in range(8):
                assert count_admitted([await limiter.admit(key, Ask())]) == 1
                await asyncio.sleep(0.06)

    asyncio.run(scenario())


def test_a_server_that_stops_settles_in_a_row_that_another_owns(
    database: Database, database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(Limits(tokens_per_minute=100))

    async def scenario() -> None:
        async with servers(database_name, 2) as (one, other):
            share_rows(database, until=time.time() + 3600)
            admitted = (await one.admit(key, Ask(10, 10))).result
            assert isinstance(admitted, Admitted)
            share_rows(database, until=0)
            await other.admit(key, Ask())  # it owns the row from here on
            one.settle(key, admitted, 60)
            await asyncio.to_thread(one.stop)
            verdict = await other.admit(key, Ask())
            assert verdict.tokens is not None
            assert verdict.tokens.remaining == 40

    asyncio.run(scenario())


def test_one_after_the_other_fits_a_limit_of_one_at_a_time(
    database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(Limits(concurrent_requests=1))

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            for _ in range(300):
                verdict = await limiter.admit(key, Ask())
                assert isinstance(verdict.result, Admitted)
                limiter.settle(key, verdict.result, 0)

    asyncio.run(scenario())


def test_a_request_that_is_given_up_while_it_waits_holds_nothing(
    database_name: str, make_key: Callable[[Limits], Key]
) -> None:
    key = make_key(Limits(concurrent_requests=1, tokens_per_minute=10))

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            asked = asyncio.create_task(limiter.admit(key, Ask(10, 10)))
            await asyncio.sleep(0)
            asked.cancel()

            async def fits() -> bool:
                verdict = await limiter.admit(key, Ask(10, 10))
                return isinstance(verdict.result, Admitted)

            await soon(fits, 2)

    asyncio.run(scenario())


def test_counts_outlast_the_server(database_name: str, make_key: Callable[[Limits], Key]) -> None:
    key = make_key(Limits(requests_per_minute=3, tokens_per_month=100))

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            for _ in range(2):
                verdict = await limiter.admit(key, Ask(1, 1))
                assert isinstance(verdict.result, Admitted)
                limiter.settle(key, verdict.result, 50)
        async with servers(database_name, 1) as (limiter,):
            verdict = await limiter.admit(key, Ask(1, 1))
            assert isinstance(verdict.result, Refused)
            assert verdict.result.limit == "month"
            assert verdict.requests is not None
            assert verdict.requests.remaining == 1

    asyncio.run(scenario())


def test_a_restart_of_postgresql_is_not_noticed(
    new_postgresql: Callable[[], str], cut: Callable[[], None]
) -> None:
    name = new_postgresql()
    database = Database(name)
    keys = [KeyStore(database).create("ann", limits=SIXTY).key for _ in range(2)]
    database.close()

    async def scenario() -> None:
        async with servers(name, 1) as (limiter,):
            for key in keys:
                assert count_admitted([await limiter.admit(key, Ask())]) == 1
                await asyncio.to_thread(cut)
            verdicts = await asyncio.gather(*(limiter.admit(keys[0], Ask()) for _ in range(200)))
            assert count_admitted(verdicts) == 59

    asyncio.run(scenario())


def test_without_the_database_nothing_is_admitted_and_afterwards_it_is(
    database_name: str, make_key: Callable[[Limits], Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(SIXTY)

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            with monkeypatch.context() as patched:
                patched.setattr(limiter._rows, "_connected", away)
                with pytest.raises(LimitsUnavailable):
                    await limiter.admit(key, Ask())
            assert isinstance((await limiter.admit(key, Ask())).result, Admitted)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "damage", ["UPDATE llmkit_windows SET state = 'no'", "DELETE FROM llmkit_windows"]
)
def test_damaged_counts_admit_nothing_and_stop_no_other_key(
    database: Database, database_name: str, make_key: Callable[[Limits], Key], damage: str
) -> None:
    damaged = make_key(SIXTY)
    with database.writing() as connection:
        connection.execute(text(damage))
    sound = make_key(SIXTY)

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            for _ in range(2):
                answers = await asyncio.gather(
                    limiter.admit(damaged, Ask()),
                    limiter.admit(sound, Ask()),
                    return_exceptions=True,
                )
                assert isinstance(answers[0], LimitsUnavailable)
                assert isinstance(answers[1], Verdict)
                assert isinstance(answers[1].result, Admitted)

    asyncio.run(scenario())


def test_trouble_with_the_database_is_logged_once_and_its_end_too(
    database_name: str,
    make_key: Callable[[Limits], Key],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = make_key(SIXTY)

    async def scenario() -> None:
        async with servers(database_name, 1) as (limiter,):
            with monkeypatch.context() as patched:
                patched.setattr(limiter._rows, "_connected", away)
                for _ in range(3):
                    with pytest.raises(LimitsUnavailable):
                        await limiter.admit(key, Ask())
            await limiter.admit(key, Ask())

    asyncio.run(scenario())
    told = [record.getMessage() for record in caplog.records]
    told = [line for line in told if line.startswith("the limits in")]
    assert len(told) == 2
    assert "away" in told[0]
    assert "again" in told[1]
