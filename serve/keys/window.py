"""What one key has used of its limits: a sliding minute, a month, and what is in hand.

    seconds   s-60 ........ s-2  s-1   s      requests admitted and tokens used, by the second
              └──────── 61 of them ────┘      so any 60 seconds that end now lie within
    held      tokens put aside for requests under way, by server process, each for a while:
              a process that dies gives back what it held

A request is admitted when what it will use at least still fits; what it may use at most is put
aside, as far as it fits, until `settle` puts what it did use in its place. So where both are
equal, no 60 seconds and no month ever go over a limit, whichever way requests run side by side.

Pure: no clock and no database. `serve.keys.limiter` keeps it in the database under a lock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from serve.keys.key import Limits

MINUTE = 60
SECONDS_HELD = 20.0
"""How long a process's holds outlast the last word from it."""
_CLOCKS_DIFFER = 120.0
"""Seconds by which clocks may be apart, or one may jump, without being thought broken."""
_SOON = 1.0
"""Seconds to wait for what no clock frees: for a request under way to end."""

LimitName = Literal["requests", "tokens", "concurrent", "month"]


@dataclass(frozen=True)
class Ask:
    """What a request will use of the token limits."""

    least: int = 0
    most: int = 0


@dataclass(frozen=True)
class Refused:
    """A request that does not fit."""

    limit: LimitName
    wait: float | None
    """Seconds until it may fit; None when it never will: it asks for more than the limit."""
    used_up: bool = False
    """Whether nothing but the next month makes room: no request under way holds it."""


@dataclass(frozen=True)
class Admitted:
    """A request that fits."""

    held: int
    """Tokens put aside for it."""
    second: int
    """In which it was counted."""


@dataclass(frozen=True)
class Left:
    """How much of a limit is left, and when all of it will be there again."""

    limit: int
    remaining: int
    reset: float
    """Seconds."""


@dataclass
class Held:
    """What one server process has under way."""

    requests: int = 0
    tokens: int = 0
    until: float = 0.0


@dataclass
class Window:
    """The state of one key. Times are seconds since 1970."""

    seconds: dict[int, list[int]] = field(default_factory=dict)
    """Requests admitted and tokens used, by the second."""
    month: str = ""
    month_tokens: int = 0
    held: dict[str, Held] = field(default_factory=dict)
    """By process."""
    _requests: int = field(default=0, compare=False)
    """In the last minute, all `seconds` together; so the next one."""
    _tokens: int = field(default=0, compare=False)
    _swept: int = field(default=-1, compare=False)
    """The second in which what is past was last forgotten."""

    def __post_init__(self) -> None:
        self._requests = sum(requests for requests, _ in self.seconds.values())
        self._tokens = sum(tokens for _, tokens in self.seconds.values())

    def admit(self, limits: Limits, ask: Ask, process: str, now: float) -> Admitted | Refused:
        """Count a request and put its tokens aside, or say which limit it does not fit."""
        self._move_to(now)
        requests, tokens = self._requests, self._tokens
        held = sum(held.tokens for held in self.held.values())
        under_way = sum(held.requests for held in self.held.values())
        refused = (
            self._over("concurrent", limits.concurrent_requests, under_way, 1, now)
            or self._over("requests", limits.requests_per_minute, requests, 1, now)
            or self._over("tokens", limits.tokens_per_minute, tokens + held, ask.least, now)
            or self._over(
                "month", limits.tokens_per_month, self.month_tokens + held, ask.least, now
            )
        )
        if refused:
            return refused
        hold = ask.most
        if limits.tokens_per_minute is not None:
            hold = min(hold, limits.tokens_per_minute - tokens - held)
        if limits.tokens_per_month is not None:
            hold = min(hold, limits.tokens_per_month - self.month_tokens - held)
        self._at(now)[0] += 1
        self._requests += 1
        mine = self.held.setdefault(process, Held())
        mine.requests += 1
        mine.tokens += hold
        mine.until = now + SECONDS_HELD
        return Admitted(hold, int(now))

    def settle(self, admitted: Admitted, used: int, process: str, now: float) -> None:
        """A request has ended: what it used takes the place of what was put aside for it."""
        self._move_to(now)
        mine = self.held.get(process)
        if mine is not None:
            mine.requests -= 1
            # Never below zero: a hold that lapsed meanwhile was not the one that is there now.
            mine.tokens = max(0, mine.tokens - admitted.held)
            mine.until = now + SECONDS_HELD
            if mine.requests <= 0:
                del self.held[process]
        if used:
            self._at(now)[1] += used
            self._tokens += used
            self.month_tokens += used

    def take_back(self, admitted: Admitted, process: str, now: float) -> None:
        """A request came to nothing: it counts as if it had not been admitted."""
        self.settle(admitted, 0, process, now)
        counts = self.seconds.get(admitted.second)
        if counts is not None and counts[0]:
            counts[0] -= 1
            self._requests -= 1

    def touch(self, process: str, now: float) -> None:
        """A word from a process: what it holds goes on."""
        if process in self.held:
            self.held[process].until = now + SECONDS_HELD

    def left(self, limits: Limits, now: float) -> tuple[Left | None, Left | None]:
        """What is left of the minute's requests and tokens; None without such a limit."""
        self._move_to(now)
        held = sum(held.tokens for held in self.held.values())
        return (
            self._left(limits.requests_per_minute, self._requests, 0, now),
            self._left(limits.tokens_per_minute, self._tokens + held, 1, now),
        )

    def as_json(self) -> str:
        """The state, for the database."""
        held = {name: [of.requests, of.tokens, of.until] for name, of in self.held.items()}
        state = {
            "seconds": [[second, *counts] for second, counts in self.seconds.items()],
            "month": self.month,
            "month_tokens": self.month_tokens,
            "held": held,
        }
        return json.dumps(state, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Window:
        """The state that `as_json` wrote."""
        state = json.loads(text)
        return cls(
            {second: [requests, tokens] for second, requests, tokens in state["seconds"]},
            state["month"],
            state["month_tokens"],
            {name: Held(*held) for name, held in state["held"].items()},
        )

    def _over(
        self, name: LimitName, limit: int | None, used: int, more: int, now: float
    ) -> Refused | None:
        if limit is None or used + more <= limit:
            return None
        if more > limit:
            return Refused(name, None)
        if name == "concurrent":
            return Refused(name, _SOON)
        if name == "month":
            # Only what is held may come back before the month is over.
            if self.month_tokens + more <= limit:
                return Refused(name, _SOON)
            return Refused(name, _until_next_month(now), used_up=True)
        return Refused(name, self._wait(used + more - limit, 0 if name == "requests" else 1, now))

    def _wait(self, excess: int, which: int, now: float) -> float:
        """Seconds until so many requests (0) or tokens (1) are more than a minute old."""
        for second in sorted(self.seconds):
            excess -= self.seconds[second][which]
            if excess <= 0:
                return max(0.0, second + 1 + MINUTE - now)
        return _SOON  # what is missing is held by requests under way

    def _left(self, limit: int | None, used: int, which: int, now: float) -> Left | None:
        if limit is None:
            return None
        # Seconds are added as they come, so the last ones are the newest.
        newest = next((at for at in reversed(self.seconds) if self.seconds[at][which]), None)
        reset = 0.0 if newest is None else max(0.0, newest + 1 + MINUTE - now)
        return Left(limit, max(0, limit - used), reset)

    def _at(self, now: float) -> list[int]:
        return self.seconds.setdefault(int(now), [0, 0])

    def _move_to(self, now: float) -> None:
        """Forget what is past; once a second is enough."""
        if int(now) == self._swept:
            return
        self._swept = int(now)
        past = int(now) - MINUTE
        if any(second < past or second > now + _CLOCKS_DIFFER for second in self.seconds):
            kept: dict[int, list[int]] = {}
            for second, (requests, tokens) in self.seconds.items():
                if second < past:
                    continue
                # Written by a clock that was far ahead: it counts from now on, for a minute.
                at = int(now) if second > now + _CLOCKS_DIFFER else second
                counts = kept.setdefault(at, [0, 0])
                counts[0] += requests
                counts[1] += tokens
            self.seconds = kept
            self.__post_init__()
        for process in [name for name, held in self.held.items() if _lapsed(held, now)]:
            del self.held[process]
        month = datetime.fromtimestamp(now, UTC).strftime("%Y-%m")
        if month > self.month:
            self.month, self.month_tokens = month, 0


def _lapsed(held: Held, now: float) -> bool:
    return held.until < now or held.until > now + SECONDS_HELD + _CLOCKS_DIFFER


def _until_next_month(now: float) -> float:
    today = datetime.fromtimestamp(now, UTC)
    year, month = divmod(today.year * 12 + today.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC).timestamp() - now
