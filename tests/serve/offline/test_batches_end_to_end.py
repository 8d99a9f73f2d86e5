"""Batches on the real engine: the same answers as asked one by one, behind everyone else."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from batch_stub import ended, lines_of, results, submit

from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end

SAID = [f"Count to {number}." for number in range(3, 33)]


@pytest.fixture(scope="module")
def running(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("batches")
    # In float32 greedy text does not hang on how many others are in the batch.
    settings = ServeSettings(
        max_model_len=512, dtype="float32", batches_folder=folder / "offline", batch_concurrency=8
    )
    server = ServerProcess(open_model(smollm2, name="stub"), folder / "server.log", settings)
    with server:
        yield server


def client_of(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=120)


def ask(client: openai.OpenAI, said: str) -> str | None:
    answer = client.chat.completions.create(
        model="stub",
        messages=[{"role": "user", "content": said}],
        max_tokens=12,
        temperature=0,
        extra_headers={"X-Vllm-Priority": "7"},
    )
    return answer.choices[0].message.content


def test_lines_are_answered_as_requests_are_and_those_refused_are_told(
    running: ServerProcess,
) -> None:
    client = client_of(running)
    content = lines_of(SAID[:6], max_tokens=12, temperature=0)
    content += lines_of(["x"], max_tokens=100_000).replace(b'"r1"', b'"too-long"')
    done = ended(client, submit(client, content), 120)
    assert done.status == "completed"
    answers = {
        of["custom_id"]: of["response"]["body"]["choices"][0]["message"]["content"]
        for of in results(client, done.output_file_id)
    }
    assert answers == {f"r{number}": ask(client, said) for number, said in enumerate(SAID[:6], 1)}
    (refused,) = results(client, done.error_file_id)
    assert refused["custom_id"] == "too-long"
    assert refused["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert done.usage is not None
    assert done.usage.output_tokens <= 72
    assert done.usage.input_tokens > 6 * 8


def test_someone_who_waits_is_answered_before_a_batch_is_through(running: ServerProcess) -> None:
    client = client_of(running)
    batch = submit(client, lines_of(SAID, max_tokens=64, temperature=0, ignore_eos=True))
    while client.batches.retrieve(batch).status != "in_progress":
        time.sleep(0.05)
    assert ask(client, "Hello!")
    counts = client.batches.retrieve(batch).request_counts
    assert counts is not None
    assert counts.completed < counts.total
    assert ended(client, batch, 200).status == "completed"


def test_a_server_killed_in_the_middle_goes_on_where_it_was(running: ServerProcess) -> None:
    client = client_of(running)
    batch = submit(client, lines_of(SAID, max_tokens=24, temperature=0, ignore_eos=True))
    while client.batches.retrieve(batch).request_counts.completed < 8:  # type: ignore[union-attr]
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait(20)
    running.start()
    running.wait_until_ready()
    client = client_of(running)
    done = ended(client, batch, 200)
    assert done.status == "completed"
    ids = [of["custom_id"] for of in results(client, done.output_file_id)]
    assert sorted(ids) == sorted(f"r{number}" for number in range(1, 31))
    assert done.usage is not None
    assert done.usage.output_tokens == 30 * 24
