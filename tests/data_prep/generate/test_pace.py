"""Calls are spread evenly over a minute."""

import pytest

from data_prep.generate.pace import Pace
from data_prep.generate.settings import LimitsConfig


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_no_minute_has_more_requests_than_allowed(clock: list[float]):
    pace = Pace(LimitsConfig(requests_per_minute=30))
    begins = [pace.seconds_until(100) for _ in range(61)]
    assert begins == pytest.approx([2 * n for n in range(61)])
    clock[0] += 500
    assert pace.seconds_until(100) == 0
    assert pace.seconds_until(100) == pytest.approx(2)


def test_no_minute_has_more_tokens_than_allowed(clock: list[float]):
    pace = Pace(LimitsConfig(tokens_per_minute=6000))
    assert [pace.seconds_until(500) for _ in range(3)] == pytest.approx([0, 5, 10])


def test_tokens_that_were_not_taken_are_given_back(clock: list[float]):
    pace = Pace(LimitsConfig(tokens_per_minute=6000))
    pace.seconds_until(1000)
    pace.correct(1000, 200)
    assert pace.seconds_until(1000) == pytest.approx(2)


def test_the_stricter_limit_decides(clock: list[float]):
    pace = Pace(LimitsConfig(requests_per_minute=60, tokens_per_minute=600))
    assert [pace.seconds_until(5) for _ in range(3)] == pytest.approx([0, 1, 2])
    assert [pace.seconds_until(50) for _ in range(2)] == pytest.approx([3, 8])


def test_without_limits_nobody_waits(clock: list[float]):
    pace = Pace(LimitsConfig())
    assert [pace.seconds_until(10**6) for _ in range(100)] == [0] * 100


def test_the_longest_pause_holds(clock: list[float]):
    pace = Pace(LimitsConfig())
    pace.pause(30)
    pace.pause(10)
    assert pace.pause_left() == 30
    clock[0] += 31
    assert pace.pause_left() == 0
