"""What becomes of a batch when its server is killed, stopped, or crashed by one of its lines."""

import signal
import time
from pathlib import Path

import openai
import pytest
from batch_stub import StubServer, ended, lines_of, results, stub_server, submit

SAID = [f"line {number}" for number in range(60)]


def wait_for(client: openai.OpenAI, batch: str, completed: int) -> None:
    until = time.monotonic() + 20
    while True:
        counts = client.batches.retrieve(batch).request_counts
        if counts is not None and counts.completed >= completed:
            return
        assert time.monotonic() < until
        time.sleep(0.01)


def on_disk(server: StubServer) -> set[str]:
    """Custom ids whose result is complete on the disk."""
    found = "".join(path.read_text() for path in server.folder.glob("batches/*/output.jsonl"))
    return {text.split('"custom_id":"')[1].split('"')[0] for text in found.splitlines()}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_batch_goes_on_after_a_restart_without_losing_or_repeating_a_line(
    tmp_path: Path, how: signal.Signals
) -> None:
    settings = {"database": "none", "seconds": 0.05, "batch_concurrency": 4}
    with stub_server(tmp_path, **settings) as server:
        batch = submit(server.client(), lines_of(SAID))
        wait_for(server.client(), batch, 8)
        server.end(how)
        finished = on_disk(server)
        assert 8 <= len(finished) < 60
        asked_before = len(server.asked())
        server.start()
        client = server.client()
        done = ended(client, batch)
        assert done.status == "completed"
        answers = results(client, done.output_file_id)
        ids = [of["custom_id"] for of in answers]
        assert sorted(ids) == sorted(f"r{number}" for number in range(1, 61))
        assert done.request_counts is not None
        assert (done.request_counts.total, done.request_counts.completed) == (60, 60)
        assert done.usage is not None
        assert done.usage.total_tokens == 300
        again = {f"r{SAID.index(text) + 1}" for text, _ in server.asked()[asked_before:]}
        assert not again & finished
        assert client.files.list(purpose="batch_output").data[0].id == done.output_file_id


def test_half_a_line_at_the_end_is_run_again(tmp_path: Path) -> None:
    settings = {"database": "none", "seconds": 0.05, "batch_concurrency": 2}
    with stub_server(tmp_path, **settings) as server:
        batch = submit(server.client(), lines_of(SAID[:20]))
        wait_for(server.client(), batch, 4)
        server.end(signal.SIGKILL)
        (output,) = server.folder.glob("batches/*/output.jsonl")
        content = output.read_bytes()
        output.write_bytes(content[:-20])
        server.start()
        done = ended(server.client(), batch)
        ids = [of["custom_id"] for of in results(server.client(), done.output_file_id)]
        assert sorted(ids) == sorted(f"r{number}" for number in range(1, 21))


def test_a_line_that_kills_the_server_ends_its_batch_after_some_tries(tmp_path: Path) -> None:
    with stub_server(tmp_path, database="none") as server:
        batch = submit(server.client(), lines_of(["a", "b", "die"]))
        done = None
        while done is None:
            try:
                done = ended(server.client(), batch)
            except openai.APIConnectionError:
                assert server.wait() == -signal.SIGKILL
                server.start()
        assert done.status == "failed"
        assert done.errors is not None
        assert done.errors.data is not None
        assert done.errors.data[0].code == "batch_abandoned"
        assert len(results(server.client(), done.output_file_id)) == 2
