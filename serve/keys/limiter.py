"""Limits held exactly by every server that shares a database, at memory's price for one alone.

Each key's counts (`serve.keys.window`) are, at any moment, in one of two places:

    owned     one server has them in its memory, and writes them to the key's row every tenth of
              a second. Admitting a request costs no word to the database.
    shared    they are in the row. Every server counts there, in one transaction for all the
              requests that wait.

A server that is asked about a key takes its row, if no other has it. If another has it, it says
so in the row (``wanted``); the owner writes its counts there within a tenth of a second and gives
the row up, which is then shared for a minute. An owner that could not write for `_TRUST` seconds
admits nothing until it can; after `LEASE` seconds the row is anyone's. So two never count apart.
What a server's sudden death can take is the last tenth of a second's counts; what its being cut
off from the database for longer than the lease, those of `_TRUST`.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from serve.keys.database import Database
from serve.keys.key import Key
from serve.keys.trouble import Trouble
from serve.keys.window import Admitted, Ask, Left, Refused, Window
from serve.keys.window_rows import WindowRow, WindowRows

LEASE = 3.0
"""Seconds for which a row is taken; taken anew well before they end."""
BETWEEN_WRITES = 0.1
"""Seconds between an owner's transactions."""
_TRUST = 0.5
"""Seconds after a transaction in which its owner counts without another, less where it took so
long that the lease is nearly over."""
_BETWEEN_LOOKS = 0.02
"""Seconds between looks at a row that another server has yet to give up."""
_SHARED = 60.0
"""Seconds for which a row that two servers wanted stays shared."""
_IDLE = 5.0
"""Seconds without a request after which an owner gives a row up of itself."""
_BETWEEN_TOUCHES = 5.0
"""Seconds between a server's words that it still holds tokens in shared rows."""
_PATIENCE = 10.0
"""Seconds that a request waits for another server to give a row up."""


class LimitsUnavailable(Exception):
    """The database does not answer, so it is not known what a key has left."""


@dataclass(frozen=True)
class Verdict:
    """Whether a request is admitted, and what its key has left of the minute afterwards."""

    result: Admitted | Refused
    requests: Left | None
    tokens: Left | None


@dataclass
class _Waiting:
    """A request to be admitted."""

    key: Key
    ask: Ask
    future: asyncio.Future[Verdict]
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Ended:
    """A request to be settled."""

    admitted: Admitted
    used: int | None
    """Tokens; None for one that came to nothing."""

    def settle(self, window: Window, process: str, now: float) -> None:
        if self.used is None:
            window.take_back(self.admitted, process, now)
        else:
            window.settle(self.admitted, self.used, process, now)


@dataclass
class _Owned:
    """A key whose counts are in this process's memory."""

    window: Window
    until: float
    """When to stop trusting that they are, on `time.monotonic`'s clock, as the moments below."""
    written: float
    asked: float
    """When a request was last admitted."""
    changed: bool = False


@dataclass
class _Turn:
    """What one transaction does to this process's state, once it is committed."""

    answered: list[tuple[_Waiting, Verdict]] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    """Keys with nothing left to count."""
    taken: dict[str, _Owned] = field(default_factory=dict)
    given_up: dict[str, _Owned] = field(default_factory=dict)
    renewed: list[_Owned] = field(default_factory=list)


class Limiter:
    """Admits and settles requests; a thread of its own speaks with the database."""

    def __init__(self, database: Database) -> None:
        self._rows = WindowRows(database)
        self._trouble = Trouble(f"the limits in {database.where}")
        self._process = uuid.uuid4().hex[:12]
        # Guards `_owned` and the windows in it: the event loop and the thread use them.
        self._lock = threading.Lock()
        self._owned: dict[str, _Owned] = {}
        self._ahead = 0.0
        """Seconds by which the database's clock is ahead of this machine's."""
        self._under_way: Counter[str] = Counter()
        self._new: deque[tuple[str, _Waiting | _Ended]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        # The thread's own:
        self._waiting: defaultdict[str, list[_Waiting]] = defaultdict(list)
        self._ended: defaultdict[str, list[_Ended]] = defaultdict(list)
        self._touched = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="limiter", daemon=True)

    def start(self) -> None:
        """Begin to speak with the database."""
        self._thread.start()

    def stop(self) -> None:
        """Write everything down and end the thread. Blocks."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    async def admit(self, key: Key, ask: Ask) -> Verdict:
        """Count a request of a key, or refuse it.

        Raises:
            LimitsUnavailable: the database does not answer.
        """
        verdict = self._admit_from_memory(key, ask)
        if verdict is None:
            verdict = await self._admit_by_thread(key, ask)
        if isinstance(verdict.result, Admitted):
            self._under_way[key.id] += 1
        return verdict

    def settle(self, key: Key, admitted: Admitted, used: int) -> None:
        """An admitted request has ended and used so many tokens. Never blocks."""
        self._under_way[key.id] -= 1
        self._end(key.id, _Ended(admitted, used))

    def take_back(self, key: Key, admitted: Admitted) -> None:
        """An admitted request came to nothing and counts for nothing. Never blocks."""
        self._under_way[key.id] -= 1
        self._end(key.id, _Ended(admitted, None))

    def _admit_from_memory(self, key: Key, ask: Ask) -> Verdict | None:
        """The verdict, if this process has the key's counts."""
        with self._lock:
            owned = self._owned.get(key.id)
            moment = time.monotonic()
            if owned is None or owned.until <= moment:
                return None
            owned.asked, owned.changed = moment, True
            return self._judge(owned.window, key, ask, self._now())

    async def _admit_by_thread(self, key: Key, ask: Ask) -> Verdict:
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._tell(key.id, _Waiting(key, ask, future))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The client left. What came for it meanwhile, or still comes, goes back.
            future.add_done_callback(lambda done: self._undo(key, done))
            raise

    def _undo(self, key: Key, future: asyncio.Future[Verdict]) -> None:
        if future.exception() is None and isinstance(admitted := future.result().result, Admitted):
            self._end(key.id, _Ended(admitted, None))

    def _end(self, key_id: str, ended: _Ended) -> None:
        with self._lock:
            owned = self._owned.get(key_id)
            if owned is not None and owned.until > time.monotonic():
                ended.settle(owned.window, self._process, self._now())
                owned.changed = True
                return
        self._tell(key_id, ended)

    def _judge(self, window: Window, key: Key, ask: Ask, now: float) -> Verdict:
        result = window.admit(key.limits, ask, self._process, now)
        return Verdict(result, *window.left(key.limits, now))

    def _now(self) -> float:
        return time.time() + self._ahead

    def _tell(self, key_id: str, what: _Waiting | _Ended) -> None:
        self._new.append((key_id, what))
        self._wake.set()

    # From here on, what the thread does.

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._pause())
            self._wake.clear()
            self._sort_in()
            self._answer_from_memory()
            # Twice: a connection that the database closed long ago is noticed only in use.
            if self._turn() or self._turn():
                self._trouble.over()
            else:
                self._fail(self._waiting)
                time.sleep(BETWEEN_WRITES)
            self._fail_impatient()
        self._write_the_rest()
        self._fail(self._waiting)
        self._rows.close()

    def _write_the_rest(self) -> None:
        """Settle what has ended; a row of another server is waited for until its lease is over."""
        last = time.monotonic() + LEASE
        while True:
            self._sort_in()
            self._turn()
            if not self._ended or time.monotonic() > last:
                return
            time.sleep(_BETWEEN_LOOKS)

    def _pause(self) -> float:
        if self._waiting or self._ended:
            return _BETWEEN_LOOKS
        return BETWEEN_WRITES if self._owned else _BETWEEN_TOUCHES

    def _keys_under_way(self) -> set[str]:
        return {key_id for key_id, count in list(self._under_way.items()) if count > 0}

    def _sort_in(self) -> None:
        while self._new:
            key_id, what = self._new.popleft()
            if isinstance(what, _Waiting):
                self._waiting[key_id].append(what)
            else:
                self._ended[key_id].append(what)

    def _answer_from_memory(self) -> None:
        """Requests that came while their key was on its way into memory."""
        for key_id in self._owned.keys() & (self._waiting.keys() | self._ended.keys()):
            for ended in self._ended.pop(key_id, ()):
                self._end(key_id, ended)
            for waiting in self._waiting.pop(key_id, ()):
                verdict = self._admit_from_memory(waiting.key, waiting.ask)
                if verdict is None:
                    self._waiting[key_id].append(waiting)
                else:
                    _answer(waiting.future, verdict)

    def _turn(self) -> bool:
        """Everything that is due, in one transaction; whether it could be done."""
        moment = time.monotonic()
        touching = moment - self._touched >= _BETWEEN_TOUCHES
        due = {
            key_id
            for key_id, owned in self._owned.items()
            if self._stopping or moment - owned.written >= BETWEEN_WRITES * 0.9
        }
        due |= self._waiting.keys() | self._ended.keys()
        due |= self._keys_under_way() if touching else set()
        if not due:
            return True
        turn, damaged = _Turn(), set[str]()
        try:
            with self._rows.locked(sorted(due)) as (now, rows):
                self._ahead = now - time.time()
                for key_id, row in rows.items():
                    try:
                        self._visit(key_id, row, now, moment, turn)
                    except (ValueError, LookupError, TypeError):
                        damaged.add(key_id)
        except Exception as error:
            # Whatever it was: without this thread every request with a limit would wait for ever.
            self._trouble.told(error)
            with self._lock:
                self._owned |= turn.given_up
                for owned in turn.renewed:
                    owned.changed = True
            return False
        if touching:
            self._touched = moment
        self._adopt(turn, moment)
        self._forget(damaged | (due - rows.keys()))
        return True

    def _visit(self, key_id: str, row: WindowRow, now: float, moment: float, turn: _Turn) -> None:
        """One row, locked."""
        with self._lock:
            owned = self._owned.get(key_id)
            if owned is not None and row.owner == self._process:
                self._write(key_id, owned, row, now, moment, turn)
                return
            self._owned.pop(key_id, None)  # lost to another: this process was not heard of
        if row.owner not in (None, self._process) and row.owned_until > now:
            row.wanted = row.wanted or key_id in self._waiting or key_id in self._ended
            return
        window = Window.from_json(row.state)
        window.touch(self._process, now)
        for ended in self._ended.get(key_id, ()):
            ended.settle(window, self._process, now)
        waiting = self._waiting.get(key_id, ())
        turn.answered += [(of, self._judge(window, of.key, of.ask, now)) for of in waiting]
        turn.settled.add(key_id)
        row.state, row.owner, row.wanted = window.as_json(), None, False
        # A row in which another server holds something stays shared: that server's word that it
        # still does is for the row, and an owner's memory would not hear it.
        alone = window.held.keys() <= {self._process}
        if waiting and alone and row.shared_until <= now and not self._stopping:
            row.owner, row.owned_until = self._process, now + LEASE
            turn.taken[key_id] = _Owned(window, moment, moment, moment)

    def _write(
        self, key_id: str, owned: _Owned, row: WindowRow, now: float, moment: float, turn: _Turn
    ) -> None:
        """Bring a row up to what memory has; the lock is held."""
        owned.window.touch(self._process, now)
        idle = moment - owned.asked > _IDLE and self._process not in owned.window.held
        if row.wanted or idle or self._stopping:
            row.state, row.owner = owned.window.as_json(), None
            row.shared_until = now + _SHARED if row.wanted else 0.0
            row.wanted = False
            turn.given_up[key_id] = self._owned.pop(key_id)
            return
        if owned.changed or row.owned_until - now < LEASE / 2:
            row.state, row.owned_until = owned.window.as_json(), now + LEASE
            owned.changed = False
        owned.written = moment
        turn.renewed.append(owned)

    def _adopt(self, turn: _Turn, moment: float) -> None:
        """What was committed."""
        for key_id in turn.settled:
            self._ended.pop(key_id, None)
            self._waiting.pop(key_id, None)
        # From now, as a slow database would leave no time otherwise; and well within the lease,
        # which began after `moment`.
        until = min(time.monotonic() + _TRUST, moment + LEASE - _TRUST)
        with self._lock:
            self._owned |= turn.taken
            for owned in (*turn.renewed, *turn.taken.values()):
                owned.until = until
        for waiting, verdict in turn.answered:
            _answer(waiting.future, verdict)

    def _forget(self, key_ids: Iterable[str]) -> None:
        """Keys whose rows someone damaged or took out: nothing is known of their limits."""
        for key_id in key_ids:
            self._ended.pop(key_id, None)
            with self._lock:
                self._owned.pop(key_id, None)
        self._fail(key_ids)

    def _fail_impatient(self) -> None:
        late = time.monotonic() - _PATIENCE
        for key_id, of in list(self._waiting.items()):
            for waiting in of:
                if waiting.since < late:
                    _answer(waiting.future, None)
            self._waiting[key_id] = [waiting for waiting in of if waiting.since >= late]
            if not self._waiting[key_id]:
                del self._waiting[key_id]

    def _fail(self, key_ids: Iterable[str]) -> None:
        """Tell those who wait for these keys that no verdict comes."""
        for key_id in list(key_ids):
            for waiting in self._waiting.pop(key_id, ()):
                _answer(waiting.future, None)


def _answer(future: asyncio.Future[Verdict], verdict: Verdict | None) -> None:
    """Hand a verdict, or that none comes, to the event loop that waits for it."""

    def settle() -> None:
        if verdict is None:
            future.set_exception(LimitsUnavailable)
        else:
            future.set_result(verdict)

    with suppress(RuntimeError):  # the loop is closed
        future.get_loop().call_soon_threadsafe(settle)
