"""Versions and aliases over an engine that only notes what it is given."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from adapter_folders import (
    ROOM,
    NotingEngine,
    make_adapter,
    make_base,
    make_registry,
    make_run,
    matrices,
)

from serve.adapters.base import ServedBase
from serve.adapters.names import Version
from serve.adapters.refusal import AdapterRefused
from serve.adapters.registry import AdapterRegistry, Room, Wanted
from serve.adapters.restoring import check_restorable
from serve.adapters.store import AdaptersFolderNotUsable, Store
from serve.errors import AdapterNotUsable, ServeError

Scenario = Callable[[AdapterRegistry, NotingEngine], Awaitable[None]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


@pytest.fixture
def runs(tmp_path: Path, base: Path) -> Path:
    """Three runs of one base, each with other weights."""
    for number in (1, 2, 3):
        make_run(tmp_path / "runs" / f"run-{number}", base, fill=float(number))
    return tmp_path / "runs"


def live(runs: Path, base: Path, scenario: Scenario, room: Room = ROOM) -> NotingEngine:
    """One life of a server: restore, the scenario, end."""

    async def life() -> NotingEngine:
        engine = NotingEngine()
        registry = make_registry(runs, base, engine, room)
        try:
            await registry.restore()
            await scenario(registry, engine)
        finally:
            registry._store.close()
        return engine

    return asyncio.run(life())


async def at_once(version: Version) -> int:
    return 0


async def refusal(work: Awaitable[object]) -> AdapterRefused:
    with pytest.raises(AdapterRefused) as caught:
        await work
    return caught.value


def test_versions_count_up_and_the_first_gets_the_alias(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        first = await registry.load(Wanted("support", "run-1"))
        second = await registry.load(Wanted("support", "run-2"))
        assert (str(first), str(second)) == ("support@1", "support@2")
        assert registry.resolve("support") == first
        assert registry.resolve("support@2") == second
        assert registry.resolve("support@3") is None
        assert set(registry.names()) == {"support", "support@1", "support@2"}
        assert set(engine.inside) == {"support@1", "support@2"}

    live(runs, base, scenario)


def test_an_alias_goes_on_and_rolls_back(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        for number in (1, 2, 3):
            await registry.load(Wanted("s", f"run-{number}", alias=True))
        assert registry.resolve("s") == Version("s", 3)
        assert await registry.roll_back("s") == Version("s", 2)
        assert await registry.roll_back("s") == Version("s", 1)
        assert (await refusal(registry.roll_back("s"))).code == "nothing_to_roll_back"
        await registry.point(Version("s", 3))
        assert registry.resolve("s") == Version("s", 3)
        assert (await refusal(registry.point(Version("s", 9)))).status == 404

    live(runs, base, scenario, Room(3, 8, ("demo",)))


def test_an_alias_goes_back_to_each_version_once(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        for number in (1, 2, 3):
            await registry.load(Wanted("s", f"run-{number}", alias=True))
        for number in (1, 2, 1, 3):
            await registry.point(Version("s", number))
        await registry.unload(Version("s", 2), at_once)
        assert await registry.roll_back("s") == Version("s", 1)
        assert (await refusal(registry.roll_back("s"))).code == "nothing_to_roll_back"
        told = await refusal(registry.point(Version("x" * 5000, 1)))
        assert len(str(told)) < 200

    live(runs, base, scenario, Room(3, 8, ("demo",)))


def test_an_alias_changes_while_an_adapter_is_loaded(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        for number in (1, 2):
            await registry.load(Wanted("s", f"run-{number}", alias=True))
        engine.may_load.clear()
        loading = asyncio.create_task(registry.load(Wanted("s", "run-3")))
        await asyncio.wait_for(registry.roll_back("s"), 5)
        assert registry.resolve("s") == Version("s", 1)
        engine.may_load.set()
        assert await loading == Version("s", 3)
        assert registry.resolve("s") == Version("s", 1)

    live(runs, base, scenario, Room(3, 8, ("demo",)))


def test_a_rollback_does_not_go_to_what_was_unloaded(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        await registry.load(Wanted("s", "run-1"))
        await registry.load(Wanted("s", "run-2", alias=True))
        await registry.unload(Version("s", 1), at_once)
        assert (await refusal(registry.roll_back("s"))).code == "nothing_to_roll_back"
        assert registry.resolve("s") == Version("s", 2)

    live(runs, base, scenario)


def test_an_unloaded_version_is_out_of_the_engine_and_its_slot_free(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        await registry.load(Wanted("a", "run-1"))
        await registry.load(Wanted("b", "run-2"))
        assert (await refusal(registry.load(Wanted("c", "run-3")))).code == "no_free_slot"
        assert (await refusal(registry.unload(Version("a", 1), at_once))).code == "adapter_in_use"
        await registry.drop_alias("a")
        assert registry.resolve("a") is None
        await registry.unload(Version("a", 1), at_once)
        assert set(engine.inside) == {"b@1"}
        await registry.load(Wanted("c", "run-3"))
        assert set(engine.inside) == {"b@1", "c@1"}
        assert (await refusal(registry.unload(Version("a", 1), at_once))).status == 404

    live(runs, base, scenario)


def test_a_draining_version_takes_no_requests_and_keeps_its_slot(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        drained = asyncio.Event()
        seen: list[object] = []

        async def drain(version: Version) -> int:
            # What requests are asked for is settled before their end is waited for.
            seen.append(registry.resolve("a@1"))
            await drained.wait()
            return 3

        await registry.load(Wanted("a", "run-1", alias=False))
        await registry.load(Wanted("b", "run-2"))
        asked = [asyncio.create_task(registry.unload(Version("a", 1), drain)) for _ in range(2)]
        while not seen:
            await asyncio.sleep(0.01)
        assert seen == [None]
        assert set(engine.inside) == {"a@1", "b@1"}
        assert registry.draining == {Version("a", 1)}
        assert (await refusal(registry.load(Wanted("c", "run-3")))).code == "no_free_slot"
        asked[0].cancel()  # the client left; the unloading goes on
        drained.set()
        assert await asked[1] == 3
        assert set(engine.inside) == {"b@1"}
        assert registry.draining == frozenset()

    live(runs, base, scenario)


def test_an_unloading_that_failed_can_be_tried_again(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        async def fails(version: Version) -> int:
            raise RuntimeError("stuck")

        await registry.load(Wanted("a", "run-1", alias=False))
        with pytest.raises(RuntimeError, match="stuck"):
            await registry.unload(Version("a", 1), fails)
        assert registry.draining == {Version("a", 1)}
        await registry.unload(Version("a", 1), at_once)
        assert (engine.inside, registry.draining) == ({}, frozenset())

    live(runs, base, scenario)


def test_a_number_never_means_another_adapter(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        await registry.load(Wanted("a", "run-1", 5, alias=False))
        assert (await refusal(registry.load(Wanted("a", "run-2", 5)))).code == "adapter_exists"
        await registry.unload(Version("a", 5), at_once)
        refused = await refusal(registry.load(Wanted("a", "run-2", 5)))
        assert refused.code == "version_taken"
        assert "a@6" in str(refused)
        await registry.load(Wanted("a", "run-1", 5))
        assert str(await registry.load(Wanted("a", "run-2"))) == "a@6"

    live(runs, base, scenario)


def test_the_engine_gets_another_folder_for_other_content(
    tmp_path: Path, runs: Path, base: Path
) -> None:
    """vLLM tells cached prefixes of adapters apart by name and folder alone."""

    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        await registry.load(Wanted("a", "run-1", alias=False))
        make_run(runs / "run-1", base, fill=9.0)
        await registry.load(Wanted("a", "run-1", alias=False))
        (_, first), (_, second) = engine.loads
        assert first != second
        # And what is served does not change when its run is trained again.
        assert (first / "adapter_model.safetensors").read_bytes() != (
            second / "adapter_model.safetensors"
        ).read_bytes()
        await registry.unload(Version("a", 1), at_once)
        assert (first.exists(), second.exists()) == (False, True)

    live(runs, base, scenario)


@pytest.mark.parametrize("name", ["", "a@1", "a/b", "../x", "a b", "-a", "x" * 65, "é", "a\n"])
def test_a_name_that_is_none_is_refused(runs: Path, base: Path, name: str) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        assert (await refusal(registry.load(Wanted(name, "run-1")))).code == "invalid_adapter_name"

    assert live(runs, base, scenario).inside == {}


def test_names_of_the_base_and_of_static_adapters_are_taken(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        for name in ("demo", "base", "fixed"):
            assert (await refusal(registry.load(Wanted(name, "run-1")))).code == "name_taken"

    live(runs, base, scenario, Room(2, 8, ("demo", "base"), frozenset({"fixed"})))


def test_what_the_engine_refuses_leaves_nothing(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        engine.refuses = True
        assert "refused" in str(await refusal(registry.load(Wanted("a", "run-1"))))
        assert registry.names() == []
        engine.refuses = False
        assert str(await registry.load(Wanted("a", "run-1"))) == "a@1"

    live(runs, base, scenario)
    assert len([path for path in (runs / ".served").iterdir() if path.is_dir()]) == 1


def test_an_unverified_adapter_is_loaded_only_when_asked_for(runs: Path, base: Path) -> None:
    make_adapter(runs / "plain")

    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        assert (await refusal(registry.load(Wanted("a", "plain")))).code == "adapter_unverified"
        await registry.load(Wanted("a", "plain", unverified=True))
        assert not registry.state.names["a"].versions[1].verified
        await registry.load(Wanted("b", "run-1", unverified=True))
        assert registry.state.names["b"].versions[1].verified

    live(runs, base, scenario)


def test_loads_at_the_same_time_do_not_share_a_slot_or_a_number(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        asked = [registry.load(Wanted("a", f"run-{number}")) for number in (1, 2, 3)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(map(str, done))[:2] == ["a@1", "a@2"]
        assert sum(isinstance(each, AdapterRefused) for each in done) == 1

    assert set(live(runs, base, scenario).inside) == {"a@1", "a@2"}


def test_a_load_is_finished_though_its_client_left(runs: Path, base: Path) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        asked = asyncio.create_task(registry.load(Wanted("a", "run-1")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked.cancel()
        while not registry.names():
            await asyncio.sleep(0.01)
        assert set(engine.inside) == {"a@1"}

    live(runs, base, scenario)


def test_a_restart_serves_the_same_versions_and_aliases(runs: Path, base: Path) -> None:
    async def before(registry: AdapterRegistry, engine: NotingEngine) -> None:
        await registry.load(Wanted("a", "run-1"))
        await registry.load(Wanted("a", "run-2", alias=True))
        await registry.load(Wanted("b", "run-3", alias=False))
        await registry.unload(Version("b", 1), at_once)

    async def after(registry: AdapterRegistry, engine: NotingEngine) -> None:
        assert set(engine.inside) == {"a@1", "a@2"}
        assert registry.resolve("a") == Version("a", 2)
        assert await registry.roll_back("a") == Version("a", 1)
        assert (await refusal(registry.load(Wanted("b", "run-1", 1)))).code == "no_free_slot"
        assert registry.state.next_number("b") == 2

    room = Room(3, 8, ("demo",))
    live(runs, base, before, room)
    for number in (1, 2):  # the runs may go: what is served was kept
        (runs / f"run-{number}" / "manifest.json").unlink()
    live(runs, base, after, ROOM)


@pytest.fixture
def served(runs: Path, base: Path) -> Path:
    """A folder from which one version was served."""

    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        await registry.load(Wanted("a", "run-1"))

    live(runs, base, scenario)
    return runs


def restorable(served: Path, base: Path, room: Room = ROOM) -> None:
    store = Store(served)
    try:
        check_restorable(store, ServedBase(base), room)
    finally:
        store.close()


def test_what_cannot_be_served_as_before_stops_the_start(
    served: Path, base: Path, tmp_path: Path
) -> None:
    restorable(served, base)
    for room, told in [
        (Room(2, 1, ("demo",)), "max_adapter_rank=1"),
        (Room(2, 8, ("a",)), "name is the base's"),
    ]:
        with pytest.raises(AdapterNotUsable, match=told):
            restorable(served, base, room)
    with pytest.raises(AdaptersFolderNotUsable, match="max_adapters=1"):
        restorable(served, base, Room(0, 8, ("demo",)))
    (base / "chat_template.jinja").write_text("other")
    with pytest.raises(AdapterNotUsable, match="another chat template"):
        restorable(served, base)
    (base / "config.json").write_text('{"other": 1}')
    with pytest.raises(AdapterNotUsable, match="another base"):
        restorable(served, base)


def test_a_damaged_copy_or_record_stops_the_start(served: Path, base: Path) -> None:
    record = served / ".served" / "served.json"
    sha256 = json.loads(record.read_text())["names"]["a"]["versions"]["1"]["sha256"]
    make_adapter(served / ".served" / sha256, matrices(fill=5.0))
    with pytest.raises(AdapterNotUsable, match="missing or damaged"):
        restorable(served, base)
    record.write_text(record.read_text()[:-20])
    with pytest.raises(AdaptersFolderNotUsable, match="damaged"):
        Store(served)


def test_a_folder_is_of_one_server_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(AdaptersFolderNotUsable, match="another server"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()
    with pytest.raises(ServeError, match="no such folder"):
        Store(tmp_path / "absent")


def test_a_full_disk_changes_nothing(
    runs: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(registry: AdapterRegistry, engine: NotingEngine) -> None:
        await registry.load(Wanted("a", "run-1"))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(OSError, match="No space"):
                await registry.load(Wanted("b", "run-2"))
            with pytest.raises(OSError, match="No space"):
                await registry.drop_alias("a")
        assert set(engine.inside) == {"a@1"}
        assert set(registry.names()) == {"a", "a@1"}

    live(runs, base, scenario)
