"""The adapters of one running engine: loaded, named, rolled back, unloaded.

    load ──► checked on a copy ──► in the engine ──► served ──► draining ──► out of the engine
                                                       │  new requests: 404     slot free again
                                                       └─ restart: loaded again

Adapters are loaded one after the other, and the state is changed one change after the other; an
alias can be changed while an adapter is loaded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from serve.adapters.base import ServedBase, folder_hash
from serve.adapters.checks import check_adapter
from serve.adapters.names import Version, check_name
from serve.adapters.places import find_source
from serve.adapters.provenance import Provenance, check_provenance, read_provenance
from serve.adapters.refusal import AdapterRefused
from serve.adapters.state import State, VersionRecord
from serve.adapters.store import Store
from serve.errors import AdapterNotUsable

_Done = TypeVar("_Done")
Drain = Callable[[Version], Awaitable[int]]
"""Waits for a version's requests, ends those that take too long, and returns how many it ended."""


class AdapterEngine(Protocol):
    """What holds the adapters' weights; `serve.vllm_app` has the real one."""

    async def load(self, name: str, folder: Path) -> None:
        """Take an adapter in, under a name that requests to the engine may use.

        Raises:
            AdapterRefused: the engine does not want it; nothing of it stays.
        """

    async def unload(self, name: str) -> None:
        """Let an adapter go, and its slot with it."""


@dataclass(frozen=True)
class Room:
    """How many adapters there may be, how large, and which names are not theirs."""

    slots: int
    """Adapters at a time."""

    max_rank: int
    """Largest rank."""

    base_names: tuple[str, ...]
    """What the base is called; its own name first."""

    static: frozenset[str] = frozenset()
    """Adapters that the server was started with; they stay as they are."""

    @property
    def base(self) -> str:
        """The base's own name."""
        return self.base_names[0]

    @property
    def taken(self) -> frozenset[str]:
        """Names that no adapter of the registry may have."""
        return self.static | {*self.base_names}


@dataclass(frozen=True)
class Wanted:
    """A request to load an adapter."""

    name: str
    path: str
    """Relative to the adapters' folder."""

    number: int | None = None
    """The version; the next if not given."""

    unverified: bool = False
    """Load it although nothing says which base it was trained on."""

    alias: bool | None = None
    """Whether the alias is to mean it; not given: only if there is no alias yet."""


class AdapterRegistry:
    """What is served, and how to change it."""

    def __init__(self, store: Store, base: ServedBase, engine: AdapterEngine, room: Room) -> None:
        self._store, self._base, self._engine = store, base, engine
        self.room = room
        self._loading, self._changing = asyncio.Lock(), asyncio.Lock()  # taken in this order
        self._unloading: dict[Version, asyncio.Task[int]] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._aliases: dict[str, Version] = {}
        self._served: dict[str, Version] = {}

    @property
    def state(self) -> State:
        """What is served; not to be changed by readers."""
        return self._store.state

    @property
    def draining(self) -> frozenset[Version]:
        """Versions that take no new requests and hold their slot still."""
        return frozenset(self._unloading)

    def resolve(self, name: str) -> Version | None:
        """The version that a name means at this moment; None if it is no adapter's."""
        return self._aliases.get(name) or self._served.get(name)

    def names(self) -> list[str]:
        """Every name that a request may choose: versions, and aliases."""
        return [*self._served, *self._aliases]

    async def restore(self) -> None:
        """Load what the record says is served.

        Raises:
            AdapterNotUsable: the engine refused one of them.
        """
        for version, record in self.state.served().items():
            try:
                await self._engine.load(str(version), self._store.folder_of(record.sha256))
            except AdapterRefused as error:
                raise AdapterNotUsable(str(version), Path(record.path), str(error)) from None
        self._store.forget_unserved()
        self._take_in(self.state)

    async def load(self, wanted: Wanted) -> Version:
        """Check an adapter, load it, and serve it.

        Raises:
            AdapterRefused: it does not fit, or there is no room; nothing was changed.
        """
        check_name(wanted.name)
        return await self._whole(self._load(wanted))

    async def _load(self, wanted: Wanted) -> Version:
        def serve(state: State) -> None:
            state.add(version, record)
            if wanted.alias or (wanted.alias is None and wanted.name not in state.aliases()):
                state.point(version)

        async with self._loading:
            version = Version(wanted.name, wanted.number or self.state.next_number(wanted.name))
            self._check_room(version)
            try:
                record = await asyncio.to_thread(self._examine, wanted, version)
                await self._engine.load(str(version), self._store.folder_of(record.sha256))
                try:
                    await self._change(serve)
                except OSError:
                    await self._engine.unload(str(version))
                    raise
            except BaseException:
                await self._forget()
                raise
            return version

    def _check_room(self, version: Version) -> None:
        if version.name in self.room.taken:
            raise AdapterRefused(
                409,
                "name_taken",
                f"{version.name!r} is the name of the base, or of an adapter that the server was "
                "started with. Choose another.",
                param="name",
            )
        self.state.check_free(version)
        if version in self._unloading:
            raise AdapterRefused(409, "adapter_draining", f"{version} is being unloaded; wait.")
        used = len(self.state.served()) + len(self._unloading)
        if used >= self.room.slots:
            raise AdapterRefused(
                409,
                "no_free_slot",
                f"all {self.room.slots} slots for adapters are in use. Unload a version, or start "
                f"the server with max_adapters={self.room.slots + 1}.",
            )

    def _examine(self, wanted: Wanted, version: Version) -> VersionRecord:
        """Check everything about an adapter on a copy of it, and keep that."""
        source = find_source(self._store.root, wanted.path)
        with self._store.copy(source) as (copy, source_sha256):
            found = read_provenance(source, source_sha256)
            if not wanted.unverified:
                check_provenance(wanted.path, found, self._base)
            rank = check_adapter(copy, self._base, self.room.max_rank)
            sha256 = folder_hash(copy)
            self.state.check_free(version, sha256)
            self._store.keep(copy, sha256)
        return VersionRecord(
            sha256=sha256,
            path=wanted.path,
            rank=rank,
            base=self._base.sha256,
            template=found.template if found else None,
            verified=_fits(found, self._base),
            loaded_at=int(time.time()),
        )

    async def point(self, version: Version) -> None:
        """Let a version's alias mean it, from the next request on.

        Raises:
            AdapterRefused: it is not served.
        """
        await self._whole(self._change(lambda state: state.point(version)))

    async def roll_back(self, name: str) -> Version:
        """Let an alias mean what it meant before, from the next request on.

        Raises:
            AdapterRefused: there is nothing to go back to.
        """
        return await self._whole(self._change(lambda state: state.roll_back(name)))

    async def drop_alias(self, name: str) -> None:
        """Let a name alone mean nothing, from the next request on.

        Raises:
            AdapterRefused: there is no such alias.
        """
        await self._whole(self._change(lambda state: state.drop_alias(name)))

    async def unload(self, version: Version, drain: Drain) -> int:
        """Take no new requests for a version, wait for those there are, and free its slot.

        A second caller waits for the same.

        Returns:
            How many requests were ended before they were done.

        Raises:
            AdapterRefused: it is not served, or its alias means it.
        """
        unloading = await self._whole(self._begin_unloading(version, drain))
        return await asyncio.shield(unloading)

    async def _begin_unloading(self, version: Version, drain: Drain) -> asyncio.Task[int]:
        async with self._changing:
            task = self._unloading.get(version)
            if task is None:
                state = self.state.model_copy(deep=True)
                state.take_out(version)
                await self._save(state)
            if task is None or task.done():  # done and still here: it failed, and is tried again
                task = asyncio.create_task(self._drained(version, drain))
                self._unloading[version] = task
            return task

    async def _drained(self, version: Version, drain: Drain) -> int:
        ended = await drain(version)
        await self._engine.unload(str(version))
        async with self._loading:  # whose copies are not to be removed
            del self._unloading[version]
            await self._forget()
        return ended

    async def _whole(self, work: Coroutine[Any, Any, _Done]) -> _Done:
        """Do something to its end, also when the request that asked for it ends before."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _change(self, change: Callable[[State], _Done]) -> _Done:
        async with self._changing:
            state = self.state.model_copy(deep=True)
            done = change(state)
            await self._save(state)
        return done

    async def _forget(self) -> None:
        """Remove copies that nothing needs."""
        async with self._changing:
            still = {self.state.names[v.name].versions[v.number].sha256 for v in self._unloading}
            await asyncio.to_thread(self._store.forget_unserved, still)

    async def _save(self, state: State) -> None:
        await asyncio.to_thread(self._store.save, state)
        self._take_in(state)

    def _take_in(self, state: State) -> None:
        """Prepare what every request asks for."""
        self._served = {str(version): version for version in state.served()}
        self._aliases = state.aliases()


def _fits(found: Provenance | None, base: ServedBase) -> bool:
    if found is None or found.base != base.sha256:
        return False
    return found.template in (None, base.template_sha256)
