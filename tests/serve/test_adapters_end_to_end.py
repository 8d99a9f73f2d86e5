"""Adapters in the real engine: every answer is its own adapter's, whoever else is in the batch."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from adapter_folders import make_adapter, record_run

from serve.adapters.base import ServedBase
from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end

PROMPT = "The village at the river was known for one thing: "
LONG = "Water flows down the hill and turns the wheel of the mill. " * 24 + PROMPT
"""Some 300 tokens, so that its beginning is kept in the prefix cache."""
RANK = 8


def make_random_run(folder: Path, base: Path, seed: int) -> None:
    """A run whose adapter changes every answer, recorded as llmkit records its own."""
    from data_prep.chat_templates import load_template
    from data_prep.tokenizer import load_tokenizer
    from llmkit.models.catalog import ResolvedModel

    torch.manual_seed(seed)
    tensors = {}
    for layer, shape in ServedBase(base).layers.items():
        if layer.endswith(("down_proj", "o_proj", "q_proj")) and shape is not None:
            rows, columns = shape
            name = f"base_model.model.{layer}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, columns) / columns**0.5
            tensors[f"{name}.lora_B.weight"] = torch.randn(rows, RANK) * 0.3
    adapter = make_adapter(folder / "adapter", tensors, r=RANK, lora_alpha=RANK)
    template = load_template("keep", load_tokenizer(base)).source
    record_run(folder, adapter, ResolvedModel("smollm2", base).content_hash(), template)


@pytest.fixture(scope="module")
def runs(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for number in (1, 2, 3):
        make_random_run(folder / f"run-{number}", smollm2, number)
    return folder


def start(smollm2: Path, runs: Path, log: Path) -> ServerProcess:
    settings = ServeSettings(
        max_model_len=1024,
        dtype="float32",  # so that a batch's size does not decide between two near tokens
        adapters_folder=runs,
        max_adapters=2,
        max_adapter_rank=RANK,
        drain_seconds=3,
    )
    return ServerProcess(open_model(smollm2, name="smollm2"), log, settings)


@pytest.fixture(scope="module")
def server(
    smollm2: Path, runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with two slots, both in use: ``a@1`` and ``b@1``."""
    with start(smollm2, runs, tmp_path_factory.mktemp("adapted") / "log") as server:
        load(server.url, "a", "run-1")
        load(server.url, "b", "run-2")
        yield server


@pytest.fixture
def adapted(server: ServerProcess) -> str:
    """The server's address."""
    return server.url


def load(url: str, name: str, path: str, **more: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/adapters", json={"name": name, "path": path} | more, timeout=60)
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


def unload(url: str, *names: str) -> None:
    for name in names:
        answer = httpx.delete(f"{url}/adapters/{name}", timeout=60)
        assert answer.status_code == 200, answer.text


def ask(url: str, model: str, prompt: str = PROMPT) -> tuple[str, str]:
    """The text, and which model the answer says it is of."""
    return asyncio.run(ask_together(url, [model], prompt))[0]


async def ask_together(url: str, models: list[str], prompt: str = PROMPT) -> list[tuple[str, str]]:
    async with httpx.AsyncClient(timeout=120) as client:

        async def one(model: str) -> tuple[str, str]:
            asked = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 12}
            asked["ignore_eos"] = True
            answer = await client.post(f"{url}/completions", json=asked)
            assert answer.status_code == 200, answer.text
            body = answer.json()
            return body["choices"][0]["text"], body["model"]

        return list(await asyncio.gather(*map(one, models)))


def test_in_one_batch_each_answers_as_it_does_alone(adapted: str) -> None:
    names = ["smollm2", "a@1", "b@1"]
    alone = {name: ask(adapted, name)[0] for name in names}
    assert len(set(alone.values())) == 3, "adapters that change nothing show nothing"
    for together in (names * 2, ["smollm2", "a@1"], ["b@1", "smollm2", "smollm2"]):
        for text, model in asyncio.run(ask_together(adapted, together)):
            assert text == alone[model]


def test_an_alias_and_the_bases_alias_answer_as_what_they_mean(adapted: str) -> None:
    assert ask(adapted, "a") == ask(adapted, "a@1")
    assert ask(adapted, "base") == ask(adapted, "smollm2")
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "model": "b"}
    answer = httpx.post(f"{adapted}/chat/completions", json=chat, timeout=60).json()
    assert answer["model"] == "b@1"


def test_the_models_list_has_versions_aliases_and_no_path(adapted: str, runs: Path) -> None:
    answer = httpx.get(f"{adapted}/models")
    parents = {card["id"]: card["parent"] for card in answer.json()["data"]}
    assert parents == {
        "smollm2": None,
        "base": "smollm2",
        "a@1": "smollm2",
        "b@1": "smollm2",
        "a": "a@1",
        "b": "b@1",
    }
    assert str(runs) not in answer.text
    assert str(runs) not in httpx.get(f"{adapted}/adapters").text


def test_slots_are_used_again_and_cached_prefixes_are_not(adapted: str) -> None:
    """More adapters than slots, one after the other, over one long prompt."""
    first, base = ask(adapted, "a@1", LONG)[0], ask(adapted, "smollm2", LONG)[0]
    unload(adapted, "a", "a@1")
    third = load(adapted, "a", "run-3")["id"]
    other = ask(adapted, third, LONG)[0]
    assert len({first, base, other}) == 3
    unload(adapted, "a", third)
    load(adapted, "a", "run-1", version=1)
    both = asyncio.run(ask_together(adapted, ["a@1", "smollm2", "b@1"], LONG))
    assert [text for text, _ in both[:2]] == [first, base]


def test_answers_stay_right_while_adapters_come_and_go(adapted: str) -> None:
    """Some clients leave half-way; one adapter is unloaded and loaded all the while."""
    alone = {name: ask(adapted, name)[0] for name in ("smollm2", "a@1", "b@1")}
    unload(adapted, "b")
    over = asyncio.Event()
    answered: list[tuple[str, str]] = []

    async def come_and_go(client: httpx.AsyncClient) -> None:
        for _ in range(5):
            gone = await client.delete(f"{adapted}/adapters/b@1")
            body = {"name": "b", "path": "run-2", "version": 1, "alias": False}
            back = await client.post(f"{adapted}/adapters", json=body)
            assert (gone.status_code, back.status_code) == (200, 201)
            await asyncio.sleep(0.5)
        over.set()

    async def ask_on(client: httpx.AsyncClient, model: str, patience: float | None) -> None:
        asked = {"model": model, "prompt": PROMPT, "temperature": 0, "ignore_eos": True}
        asked["max_tokens"] = 12 if patience is None else 200
        while not over.is_set():
            try:
                request = client.post(f"{adapted}/completions", json=asked)
                answer = await asyncio.wait_for(request, patience)
            except TimeoutError:
                continue
            if answer.status_code == 404 and model == "b@1":
                await asyncio.sleep(0.1)
                continue
            assert answer.status_code == 200, answer.text
            answered.append((answer.json()["model"], answer.json()["choices"][0]["text"]))

    async def all_at_once() -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            patient = [ask_on(client, name, None) for name in ("smollm2", "a", "b@1") * 2]
            leaving = [ask_on(client, name, 0.4) for name in ("a", "b@1")]
            await asyncio.gather(come_and_go(client), *patient, *leaving)

    asyncio.run(all_at_once())
    assert {model for model, _ in answered} == set(alone)
    assert [text for model, text in answered] == [alone[model] for model, _ in answered]
    httpx.post(f"{adapted}/adapters/b/alias", json={"version": 1})


def test_a_stream_that_outlasts_the_drain_is_ended_with_an_error_event(adapted: str) -> None:
    asked = {"model": "b@1", "prompt": PROMPT, "max_tokens": 900, "ignore_eos": True}
    asked["stream"] = True
    with httpx.stream("POST", f"{adapted}/completions", json=asked, timeout=60) as answer:
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        assert httpx.delete(f"{adapted}/adapters/b", timeout=60).status_code == 200
        done = httpx.delete(f"{adapted}/adapters/b@1", timeout=60).json()
        last = list(lines)[-1]
    assert done["requests_ended"] == 1
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "adapter_unloaded"
    load(adapted, "b", "run-2", version=1)
    assert ask(adapted, "b")[1] == "b@1"


def test_a_restart_serves_the_same(server: ServerProcess) -> None:
    unload(server.url, "b", "b@1")
    load(server.url, "a", "run-2", alias=True)
    before = [ask(server.url, name) for name in ("a", "a@1", "smollm2")]
    server.stop()
    server.start()
    server.wait_until_ready()
    assert [ask(server.url, name) for name in ("a", "a@1", "smollm2")] == before
    answer = httpx.post(f"{server.url}/adapters/a/rollback", json={})
    assert answer.json()["id"] == "a@1"
    assert ask(server.url, "a") == before[1]
