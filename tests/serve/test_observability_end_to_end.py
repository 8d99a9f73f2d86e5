"""Tokens, times and ids of requests to the real engine, as /metrics and headers tell them."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.process import ServerProcess

pytestmark = pytest.mark.end_to_end

CHAT = "/v1/chat/completions"
ASKED = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Count from one to ten."}],
    "max_tokens": 12,
    "temperature": 0,
}


@pytest.fixture
def client(server: ServerProcess) -> httpx.Client:
    return httpx.Client(base_url=server.url.removesuffix("/v1"), timeout=120)


def figures(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Samples of chat requests and of families without a route, by name and what tells apart."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.labels.get("route", CHAT) == CHAT:
                told = (sample.labels.get(name, "") for name in ("kind", "status", "le"))
                key = (sample.name, *filter(None, told))
                # Other tests' requests to this server are counted for models of their own.
                found[key] = found.get(key, 0.0) + sample.value
    return found


def tokens(before: dict[Any, float], after: dict[Any, float]) -> tuple[float, float]:
    names = [("llmkit_tokens_total", kind) for kind in ("prompt", "completion")]
    prompt, completion = (after.get(name, 0) - before.get(name, 0) for name in names)
    return prompt, completion


def once(client: httpx.Client, holds: Callable[[dict[Any, float]], bool]) -> dict[Any, float]:
    """The figures once they hold: they are counted just after the answer's last byte."""
    for _ in range(100):
        now = figures(client)
        if holds(now):
            return now
        time.sleep(0.1)
    raise AssertionError("the request was not counted within 10 s")


def stream(client: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    with client.stream("POST", CHAT, json={**ASKED, "stream": True, **asked}) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_tokens_counted_are_the_usage_that_the_client_is_told(client: httpx.Client) -> None:
    before = figures(client)
    usage = client.post(CHAT, json={**ASKED, "n": 2, "temperature": 1}).json()["usage"]
    told = (usage["prompt_tokens"], usage["completion_tokens"])
    assert told[1] > 12
    after = once(client, lambda now: tokens(before, now)[0] > 0)
    assert tokens(before, after) == told


def test_a_stream_counts_the_same_whether_or_not_it_asks_for_usage(client: httpx.Client) -> None:
    before = figures(client)
    told = stream(client, stream_options={"include_usage": True})[-1]["usage"]
    middle = once(client, lambda now: tokens(before, now)[0] > 0)
    assert tokens(before, middle) == (told["prompt_tokens"], told["completion_tokens"])
    assert not any("usage" in event for event in stream(client))
    after = once(client, lambda now: tokens(middle, now)[0] > 0)
    assert tokens(middle, after) == (told["prompt_tokens"], told["completion_tokens"])
    for name in ("time_to_first_token", "time_per_output_token"):
        counted = f"llmkit_{name}_seconds_count"
        assert after[(counted,)] - before.get((counted,), 0) == 2


def test_a_stream_that_is_left_counts_its_prompt_and_its_tokens_so_far(
    client: httpx.Client,
) -> None:
    before = figures(client)
    asked = {**ASKED, "stream": True, "max_tokens": 1000, "ignore_eos": True}
    with client.stream("POST", CHAT, json=asked) as answer:
        events = answer.iter_lines()
        for _ in range(12):
            next(events)
    after = once(client, lambda now: tokens(before, now)[0] > 0)
    prompt, completion = tokens(before, after)
    assert prompt > 10
    assert 4 <= completion < 500


def counted(client: httpx.Client, route: str, kind: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "llmkit_tokens_total"
        and (sample.labels["route"], sample.labels["kind"]) == (route, kind)
    )


def more_than(before: float, client: httpx.Client, route: str, kind: str) -> float:
    deadline = time.monotonic() + 10
    while (now := counted(client, route, kind)) == before and time.monotonic() < deadline:
        time.sleep(0.1)
    return now - before


def test_completions_of_several_prompts_count_them_all(client: httpx.Client) -> None:
    asked = {"model": "smollm2", "prompt": ["One two", "Red green blue"], "max_tokens": 4}
    before = counted(client, "/v1/completions", "prompt")
    told = client.post("/v1/completions", json=asked).json()["usage"]["prompt_tokens"]
    assert more_than(before, client, "/v1/completions", "prompt") == told


@pytest.mark.parametrize("streams", [False, True])
def test_a_response_counts_the_usage_that_it_ends_with(client: httpx.Client, streams: bool) -> None:
    route = "/v1/responses"
    asked = {"model": "smollm2", "input": "Name a colour.", "max_output_tokens": 6, "store": False}
    before = counted(client, route, "completion")
    answer = client.post(route, json={**asked, "stream": streams})
    assert answer.status_code == 200, answer.text
    if streams:
        [told] = re.findall(r'"output_tokens":(\d+)', answer.text)
    else:
        told = answer.json()["usage"]["output_tokens"]
    assert more_than(before, client, route, "completion") == int(told)


def test_the_request_id_is_the_clients_and_names_the_engines_answer(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ASKED, headers={"x-request-id": "order-66"})
    assert answer.headers.get_list("x-request-id") == ["order-66"]
    assert answer.json()["id"] == "chatcmpl-order-66"


def test_one_exposition_has_vllms_figures_and_ours(client: httpx.Client) -> None:
    client.post(CHAT, json=ASKED)
    names = [f.name for f in text_string_to_metric_families(client.get("/metrics").text)]
    assert {"vllm:kv_cache_usage_perc", "llmkit_requests", "process_resident_memory_bytes"} <= {
        *names
    }
    assert len(names) == len(set(names))
