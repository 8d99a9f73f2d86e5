"""What keys used: requests and tokens by key, by model or adapter, and by day (UTC)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from serve.keys.database import Database
from serve.keys.tables import keys, usage
from serve.keys.trouble import Trouble

SECONDS_BETWEEN_WRITES = 1.0


@dataclass(frozen=True)
class UsageRow:
    """What one key used of one model on one day."""

    key_id: str
    key_name: str
    model: str
    day: date
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass
class _Counts:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: _Counts) -> None:
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


_Place = tuple[str, str, date]
"""Key, model, day."""


@dataclass
class Usage:
    """Counts in memory, added to the database's once a second by a thread."""

    database: Database
    _counts: dict[_Place, _Counts] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _trouble: Trouble = field(default_factory=lambda: Trouble("usage"))

    def add(self, key_id: str, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """A request has ended. Never blocks for the database."""
        place = (key_id, model, datetime.now(UTC).date())
        with self._lock:
            counts = self._counts.setdefault(place, _Counts())
            counts.add(_Counts(1, prompt_tokens, completion_tokens))

    def write(self) -> None:
        """Add what is in memory to the database.

        Raises:
            SQLAlchemyError: the database does not answer; nothing was lost.
        """
        with self._lock:
            counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            with self.database.writing() as connection:
                # In one order: no two replicas wait for each other.
                rows = [_as_row(place, counts[place]) for place in sorted(counts)]
                connection.execute(self._added(), rows)
        except Exception:
            with self._lock:
                for place, of in counts.items():
                    self._counts.setdefault(place, _Counts()).add(of)
            raise

    def read(
        self,
        *,
        key_id: str | None = None,
        since: date | None = None,
        until: date | None = None,
        most: int | None = None,
    ) -> list[UsageRow]:
        """What was used, by day, key and model; of all keys unless one is named. Blocks.

        Args:
            key_id: the key.
            since: the first day.
            until: the last day.
            most: rows to read, the first ones.
        """
        self.write()
        wanted = select(
            usage.c.key_id,
            func.coalesce(keys.c.name, ""),
            *(usage.c[name] for name in ("model", "day", *_COUNTED)),
        ).join_from(usage, keys, usage.c.key_id == keys.c.id, isouter=True)
        if key_id is not None:
            wanted = wanted.where(usage.c.key_id == key_id)
        if since is not None:
            wanted = wanted.where(usage.c.day >= since)
        if until is not None:
            wanted = wanted.where(usage.c.day <= until)
        with self.database.reading() as connection:
            ordered = wanted.order_by(usage.c.day, usage.c.key_id, usage.c.model).limit(most)
            rows = connection.execute(ordered)
            return [UsageRow(*row) for row in rows]

    def start(self) -> None:
        """Write from a thread until `stop`."""
        self._thread = threading.Thread(target=self._follow, name="usage", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the rest and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        while True:
            stopping = self._stop.wait(SECONDS_BETWEEN_WRITES)
            try:
                self.write()
            except Exception as error:
                # What was not written is kept, and tried again; without this thread none would be.
                self._trouble.told(error)
            else:
                self._trouble.over()
            if stopping:
                return

    def _added(self) -> Any:
        """The statement that adds counts to those that are there."""
        dialect = postgresql if self.database.postgresql else sqlite
        row = dialect.insert(usage)
        return row.on_conflict_do_update(
            index_elements=[usage.c.key_id, usage.c.model, usage.c.day],
            set_={name: usage.c[name] + row.excluded[name] for name in _COUNTED},
        )


_COUNTED = ("requests", "prompt_tokens", "completion_tokens")


def _as_row(place: _Place, counts: _Counts) -> Mapping[str, object]:
    key_id, model, day = place
    return {"key_id": key_id, "model": model, "day": day, **vars(counts)}
