"""When the next call may begin: limits a minute, and the pauses a teacher asks for."""

import time

from data_prep.generate.settings import LimitsConfig


class Pace:
    """Spreads calls evenly, so that no stretch of a minute has more than is allowed.

    A call takes its share of a minute from the moment it begins: the next may begin when that is
    over. Nothing is saved up in quiet times.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._seconds_a_call = 60 / limits.requests_per_minute if limits.requests_per_minute else 0
        self._seconds_a_token = 60 / limits.tokens_per_minute if limits.tokens_per_minute else 0
        self._free_at = 0.0
        self._tokens_free_at = 0.0
        self._paused_until = 0.0

    def seconds_until(self, tokens: int) -> float:
        """Seconds after which a call of about so many tokens may begin; it takes its place now.

        Calls begin in the order in which they came here.
        """
        now = time.monotonic()
        at = max(now, self._free_at, self._tokens_free_at)
        self._free_at = at + self._seconds_a_call
        self._tokens_free_at = at + tokens * self._seconds_a_token
        return at - now

    def pause_left(self) -> float:
        """Seconds for which nobody may begin."""
        return max(0.0, self._paused_until - time.monotonic())

    def correct(self, expected: int, taken: int) -> None:
        """A call took another number of tokens than was expected of it: later ones move."""
        self._tokens_free_at += (taken - expected) * self._seconds_a_token

    def pause(self, seconds: float) -> None:
        """Nobody begins for so long: the teacher said so."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
