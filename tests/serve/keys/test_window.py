"""The laws of a key's window, without a clock and without a database."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.keys.key import Limits
from serve.keys.window import SECONDS_HELD, Admitted, Ask, Refused, Window

NOW = datetime(2030, 3, 31, 23, 0, tzinfo=UTC).timestamp()


def admitted(window: Window, limits: Limits, now: float, ask: Ask | None = None) -> bool:
    return isinstance(window.admit(limits, ask or Ask(), "p", now), Admitted)


@given(
    st.lists(st.floats(0, 200), max_size=80).map(sorted),
    st.integers(1, 9),
)
def test_no_sixty_seconds_admit_more_than_the_limit(moments: list[float], limit: int) -> None:
    window, limits = Window(), Limits(requests_per_minute=limit)
    times = [at for at in moments if admitted(window, limits, NOW + at)]
    for start in times:
        assert sum(start <= at < start + 60 for at in times) <= limit


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(1, 50), st.integers(0, 50), st.floats(0, 40)),
        max_size=40,
    ),
    st.integers(60, 200),
    st.integers(60, 1000),
)
def test_tokens_never_go_over_a_limit(
    requests: list[tuple[float, int, int, float]], minute: int, month: int
) -> None:
    """Requests that name their most, end early or late, side by side, in any order."""
    window = Window()
    limits = Limits(tokens_per_minute=minute, tokens_per_month=month)
    now, used, running = NOW, [], []  # type: ignore[var-annotated]
    for pause, most, actual, lasts in requests:
        now += pause
        for end, held, tokens in sorted(running):
            if end <= now:
                window.settle(Admitted(held, 0), tokens, "p", end)
                used.append((end, tokens))
        running = [of for of in running if of[0] > now]
        result = window.admit(limits, Ask(most, most), "p", now)
        if isinstance(result, Admitted):
            assert result.held == most
            running.append((now + min(lasts, SECONDS_HELD), most, min(most, actual)))
        for end, _ in used:
            assert sum(tokens for at, tokens in used if end <= at < end + 60) <= minute
        assert sum(tokens for _, tokens in used) <= month


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 9)), max_size=30))
def test_the_state_comes_back_as_it_was_written(requests: list[tuple[float, int]]) -> None:
    window, now = Window(), NOW
    for pause, tokens in requests:
        now += pause
        window.admit(Limits(), Ask(tokens, tokens), f"p{tokens % 3}", now)
        window.settle(Admitted(tokens, 0), tokens // 2, f"p{tokens % 3}", now)
    again = Window.from_json(window.as_json())
    assert again == window
    # The running totals are those of the seconds that are left.
    assert again.left(Limits(99, 999), now) == window.left(Limits(99, 999), now)


def test_a_refusal_says_when_it_fits_and_then_it_does() -> None:
    window, limits = Window(), Limits(requests_per_minute=2)
    assert admitted(window, limits, NOW)
    assert admitted(window, limits, NOW + 10)
    refused = window.admit(limits, Ask(), "p", NOW + 20)
    assert isinstance(refused, Refused)
    assert refused.wait is not None
    assert 40 <= refused.wait <= 41
    assert not admitted(window, limits, NOW + 20 + refused.wait - 0.1)
    assert admitted(window, limits, NOW + 20 + refused.wait)
    assert not admitted(window, limits, NOW + 20 + refused.wait)


def test_more_than_the_limit_never_fits() -> None:
    for limits in (Limits(tokens_per_minute=10), Limits(tokens_per_month=10)):
        refused = Window().admit(limits, Ask(11, 11), "p", NOW)
        assert isinstance(refused, Refused)
        assert refused.wait is None


def test_an_answer_without_a_maximum_takes_what_is_left_and_gives_back_the_rest() -> None:
    window, limits = Window(), Limits(tokens_per_minute=100)
    first = window.admit(limits, Ask(10, 5000), "p", NOW)
    assert first == Admitted(100, int(NOW))
    refused = window.admit(limits, Ask(10, 5000), "p", NOW)
    assert refused == Refused("tokens", 1.0)
    window.settle(Admitted(100, 0), 30, "p", NOW)
    assert window.admit(limits, Ask(10, 5000), "p", NOW) == Admitted(70, int(NOW))


def test_requests_under_way_are_limited_until_they_end() -> None:
    window, limits = Window(), Limits(concurrent_requests=2)
    assert admitted(window, limits, NOW)
    assert admitted(window, limits, NOW)
    assert window.admit(limits, Ask(), "p", NOW) == Refused("concurrent", 1.0)
    window.settle(Admitted(0, 0), 0, "p", NOW)
    assert admitted(window, limits, NOW)


def test_what_a_dead_process_held_comes_back() -> None:
    window, limits = Window(), Limits(concurrent_requests=1, tokens_per_minute=10)
    assert isinstance(window.admit(limits, Ask(10, 10), "dead", NOW), Admitted)
    assert isinstance(window.admit(limits, Ask(1, 1), "p", NOW + SECONDS_HELD), Refused)
    assert isinstance(window.admit(limits, Ask(1, 1), "p", NOW + SECONDS_HELD + 1), Admitted)


def test_what_a_living_process_holds_stays() -> None:
    window, limits = Window(), Limits(concurrent_requests=1)
    window.admit(limits, Ask(), "p", NOW)
    window.touch("p", NOW + SECONDS_HELD - 1)
    assert not admitted(window, limits, NOW + SECONDS_HELD + 5)


def test_a_quota_is_there_again_with_the_new_month() -> None:
    window, limits = Window(), Limits(tokens_per_month=100)
    window.settle(Admitted(0, 0), 100, "p", NOW)
    refused = window.admit(limits, Ask(1, 1), "p", NOW)
    assert refused == Refused("month", 3600.0, used_up=True)
    assert admitted(window, limits, NOW + 3600, Ask(100, 100))


def test_a_clock_that_was_far_ahead_locks_no_key_out() -> None:
    window, limits = Window(), Limits(requests_per_minute=1)
    assert admitted(window, limits, NOW + 86400)
    assert not admitted(window, limits, NOW)
    assert admitted(window, limits, NOW + 62)


def test_a_clock_that_steps_back_a_little_admits_no_more() -> None:
    window, limits = Window(), Limits(requests_per_minute=1)
    assert admitted(window, limits, NOW)
    assert not admitted(window, limits, NOW - 30)


@pytest.mark.parametrize("seconds", [0, 30])
def test_what_is_left_counts_what_is_used_and_held(seconds: float) -> None:
    window, limits = Window(), Limits(requests_per_minute=5, tokens_per_minute=100)
    window.admit(limits, Ask(40, 40), "p", NOW)
    requests, tokens = window.left(limits, NOW)
    assert (requests and requests.remaining, tokens and tokens.remaining) == (4, 60)
    window.settle(Admitted(40, 0), 10, "p", NOW)
    requests, tokens = window.left(limits, NOW + seconds)
    assert (tokens and tokens.remaining, tokens and tokens.reset) == (90, 61 - seconds)
    requests, tokens = window.left(limits, NOW + 61)
    assert (requests and requests.remaining, tokens and tokens.remaining) == (5, 100)


def test_what_ends_after_its_hold_has_lapsed_frees_nothing_of_a_newer_one() -> None:
    window, limits = Window(), Limits(tokens_per_month=1000)
    first = window.admit(limits, Ask(100, 100), "p", NOW)
    assert isinstance(first, Admitted)
    later = NOW + SECONDS_HELD + 1
    for _ in range(2):
        window.admit(limits, Ask(10, 10), "p", later)
    window.settle(first, 100, "p", later)
    refused = window.admit(limits, Ask(901, 901), "p", later)
    assert isinstance(refused, Refused)


def test_what_came_to_nothing_counts_for_nothing() -> None:
    window, limits = Window(), Limits(requests_per_minute=1, tokens_per_minute=10)
    for second in range(5):
        result = window.admit(limits, Ask(10, 10), "p", NOW + second)
        assert isinstance(result, Admitted)
        window.take_back(result, "p", NOW + second + 0.5)
    requests, tokens = window.left(limits, NOW + 5)
    assert requests is not None
    assert tokens is not None
    assert (requests.remaining, tokens.remaining) == (1, 10)
