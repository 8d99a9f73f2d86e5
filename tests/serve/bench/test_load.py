"""Load on a stub server whose answers' lengths and times are known."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from openai_stub import Stub, stub_server

from serve.bench.client import Answer, Target
from serve.bench.load import Load, Round, run_load, run_static
from serve.bench.measure import EndpointNotUsable, first_model, measure
from serve.bench.summary import summarize
from serve.bench.workload import made_up


@pytest.fixture
def served() -> Iterator[tuple[Target, Stub]]:
    with stub_server() as (url, stub):
        yield Target(url, "stub"), stub


def test_every_request_is_asked_and_its_tokens_counted(served: tuple[Target, Stub]) -> None:
    target, stub = served
    asks = made_up(12, 5, [2, 7])
    done = asyncio.run(run_load(target, asks, Load(concurrency=4)))
    assert sorted(each["max_tokens"] for each in stub.asked) == [2] * 6 + [7] * 6
    summary = summarize(done)
    assert (summary.requests, summary.errors) == (12, {})
    assert (summary.prompt_tokens, summary.completion_tokens) == (36, 54)


def test_models_are_asked_for_in_turn() -> None:
    asks = made_up(5, 5, [2], models=[None, "a"])
    assert [ask.model for ask in asks] == [None, "a", None, "a", None]


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_concurrency_is_reached_and_never_exceeded(
    served: tuple[Target, Stub], at_once: int
) -> None:
    target, stub = served
    stub.seconds_per_token = 0.002
    done = asyncio.run(run_load(target, made_up(9, 5, [4]), Load(concurrency=at_once)))
    assert stub.most_under_way == at_once
    assert summarize(done).concurrency == pytest.approx(at_once, rel=0.25)


def test_an_open_loop_sends_whether_or_not_answers_came(served: tuple[Target, Stub]) -> None:
    target, stub = served
    stub.seconds_per_token = 0.5
    done = asyncio.run(run_load(target, made_up(20, 5, [1]), Load(rate=100)))
    assert stub.most_under_way > 10
    gaps = [b.began - a.began for a, b in pairwise(done.answers)]
    assert sum(gaps) / len(gaps) == pytest.approx(0.01, rel=0.9)


def test_a_static_batch_waits_for_its_longest_answer(served: tuple[Target, Stub]) -> None:
    target, stub = served
    stub.seconds_per_token = 0.004
    asks = made_up(8, 5, [1, 40])
    static = asyncio.run(run_static(target, asks, 2))
    for first, second in pairwise([static.answers[i : i + 2] for i in range(0, 8, 2)]):
        assert min(each.began for each in second) >= max(each.ended for each in first)


def test_first_token_and_time_per_token_are_the_servers(served: tuple[Target, Stub]) -> None:
    target, stub = served
    stub.seconds_per_token = 0.02
    done = asyncio.run(run_load(target, made_up(2, 5, [10]), Load(concurrency=1)))
    summary = summarize(done)
    assert summary.ttft
    assert summary.tpot
    # Slower than the stub is what a busy machine may be; faster is not possible.
    assert summary.ttft.p50 >= 0.02
    assert summary.tpot.p50 >= 0.02
    assert summary.ttft.p50 < 0.1, "the role's chunk or the last one was taken for a token"


def test_without_streaming_only_latency_is_known(served: tuple[Target, Stub]) -> None:
    target, _ = served
    whole = Target(target.url, "stub", stream=False)
    summary = summarize(asyncio.run(run_load(whole, made_up(3, 5, [4]), Load(concurrency=1))))
    assert summary.completion_tokens == 12
    assert summary.latency
    assert (summary.ttft, summary.tpot) == (None, None)


def test_refusals_and_broken_streams_are_errors_by_kind(served: tuple[Target, Stub]) -> None:
    target, stub = served
    stub.status = 429
    refused = asyncio.run(run_load(target, made_up(3, 5, [4]), Load(concurrency=3)))
    assert summarize(refused).errors == {"HTTP 429 rate_limit_exceeded": 3}
    stub.status, stub.breaks_off = 200, True
    broken = asyncio.run(run_load(target, made_up(2, 5, [4]), Load(concurrency=1)))
    assert summarize(broken).errors == {"HTTP 200 server_shutdown": 2}
    assert summarize(broken).completion_tokens == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "event",
    [
        {"usage": {"completion_tokens": None}},
        {"usage": {"tokens": 1}},
        {"usage": None, "choices": 5},
        {"choices": [3], "usage": 7},
        [1],
        "x",
        None,
    ],
)
def test_what_is_no_answer_is_an_error_and_raises_nothing(
    served: tuple[Target, Stub], event: Any, stream: bool
) -> None:
    target, stub = served
    stub.events = [event]
    asked = run_load(
        Target(target.url, "stub", stream=stream), made_up(1, 5, [4]), Load(concurrency=1)
    )
    assert summarize(asyncio.run(asked)).errors == {"not an answer of the API": 1}


@pytest.mark.parametrize(
    "delta", [{"content": "a"}, {"reasoning": "a"}, {"reasoning_content": "a"}]
)
@pytest.mark.parametrize("data", ["data: ", "data:"])
def test_text_and_usage_are_found_however_a_server_sends_them(
    served: tuple[Target, Stub], delta: dict[str, str], data: str
) -> None:
    target, stub = served
    stub.data = data
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    stub.events = [
        {"choices": [{"delta": None}], "usage": None},
        {"choices": [{"delta": delta}], "usage": usage},
    ]
    [answer] = asyncio.run(run_load(target, made_up(1, 5, [4]), Load(concurrency=1))).answers
    assert (answer.error, answer.completion_tokens) == (None, 1)
    assert answer.ttft


def test_no_load_asks_what_an_earlier_one_or_the_warm_up_did(served: tuple[Target, Stub]) -> None:
    target, stub = served
    loads = [Load(concurrency=1), Load(concurrency=2)]
    measure(target, lambda load: made_up(3, 5, [1], seed=load), loads)
    texts = [body["messages"][0]["content"] for body in stub.asked]
    assert len(set(texts)) == len(texts) == 3 * 3


@pytest.mark.parametrize("models", [None, [], {"data": 3}, {"data": [3]}, {"data": [{}]}])
def test_what_lists_no_models_is_said(served: tuple[Target, Stub], models: Any) -> None:
    target, stub = served
    stub.listed = models
    with pytest.raises(EndpointNotUsable, match="OpenAI-compatible"):
        first_model(target.url, None)


def test_a_server_that_refuses_everything_is_not_measured(served: tuple[Target, Stub]) -> None:
    target, stub = served
    stub.status = 429
    with pytest.raises(EndpointNotUsable, match="rate_limit_exceeded"):
        measure(target, lambda _: made_up(3, 5, [4]), [Load(concurrency=1)])


def test_the_key_is_sent_and_the_first_model_found(served: tuple[Target, Stub]) -> None:
    target, stub = served
    assert first_model(target.url, "sk-1") == "stub"
    keyed = Target(target.url, "stub", "sk-1")
    measure(keyed, lambda _: made_up(1, 5, [1]), [Load(concurrency=1)])
    assert stub.keys == {"Bearer sk-1"}


def test_no_server_is_said_with_its_address() -> None:
    with pytest.raises(EndpointNotUsable, match=r"127\.0\.0\.1:9"):
        first_model("http://127.0.0.1:9/v1", None)


def test_percentiles_are_of_the_answered_requests_alone() -> None:
    good = [Answer(0, n, n / 2, 1, 11) for n in range(1, 101)]
    done = Round(Load(concurrency=1), (*good, Answer(0, 5000, error="x")), 10.0)
    summary = summarize(done)
    assert summary.latency
    assert summary.ttft
    assert summary.tpot
    assert (summary.latency.p50, summary.latency.longest) == (50.5, 100)
    assert summary.ttft.p99 == pytest.approx(49.505)
    assert summary.tpot.p50 == pytest.approx(2.525)
    assert summary.output_tokens_per_second == 110


def test_the_same_seed_makes_the_same_requests() -> None:
    assert made_up(5, 9, [1, 2], seed=3) == made_up(5, 9, [1, 2], seed=3)
    assert made_up(5, 9, [1, 2], seed=3) != made_up(5, 9, [1, 2], seed=4)


def test_a_prefix_is_shared_by_all_prompts() -> None:
    texts = [ask.messages[0]["content"] for ask in made_up(4, 5, [1], prefix_tokens=30)]
    assert len({text.split()[29] for text in texts}) == 1
    assert len({tuple(text.split()[:30]) for text in texts}) == 1
    assert len(set(texts)) == 4
