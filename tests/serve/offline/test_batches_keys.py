"""Whose files and batches they are, and who pays: through HTTP, on a server with a fake engine."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from batch_stub import CHAT, StubServer, ended, line, lines_of, results, stub_server, submit

from serve.keys.database import Database
from serve.keys.key import Limits
from serve.keys.store import KeyStore


class Keyed:
    """A server that asks for keys, and what makes them."""

    def __init__(self, server: StubServer, store: KeyStore) -> None:
        self.server, self.store = server, store

    def new(self, **of_key: Any) -> tuple[str, openai.OpenAI]:
        """A new key's id, and its client."""
        made = self.store.create("ann", **of_key)
        client = self.server.client(made.text)
        until = time.monotonic() + 5
        while True:
            try:
                client.models.list()
            except openai.AuthenticationError:
                assert time.monotonic() < until
                time.sleep(0.05)
            except openai.APIStatusError:
                return made.key.id, client
            else:
                return made.key.id, client


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    database = Database(str(folder / "keys.db"))
    store = KeyStore(database)
    store.create("first")
    settings: dict[str, Any] = {"database": str(folder / "keys.db"), "max_files_bytes": 100_000}
    with stub_server(folder, max_batches=2, **settings) as server:
        yield Keyed(server, store)
    database.close()


def test_files_and_batches_are_seen_by_their_key_and_by_admins(keyed: Keyed) -> None:
    (_, ann), (_, bob), (_, admin) = keyed.new(), keyed.new(), keyed.new(admin=True)
    batch = ended(ann, submit(ann, lines_of(["secret"])))
    assert batch.output_file_id is not None
    for file_id in (batch.input_file_id, batch.output_file_id):
        for asking in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError) as refused:
                asking(file_id)
            assert refused.value.code == "file_not_found"
    with pytest.raises(openai.NotFoundError):
        bob.batches.retrieve(batch.id)
    with pytest.raises(openai.NotFoundError):
        bob.batches.cancel(batch.id)
    with pytest.raises(openai.NotFoundError):
        bob.batches.create(
            input_file_id=batch.input_file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
        )
    assert not bob.files.list().data
    assert not bob.batches.list().data
    assert {of.id for of in ann.files.list().data} == {batch.input_file_id, batch.output_file_id}
    assert results(admin, batch.output_file_id)[0]["custom_id"] == "r1"
    assert batch.id in {of.id for of in admin.batches.list().data}


def test_what_lines_use_is_charged_to_the_key_of_the_batch(keyed: Keyed) -> None:
    key_id, client = keyed.new(limits=Limits(tokens_per_month=100_000))
    ended(client, submit(client, lines_of(["x"] * 7)))
    until = time.monotonic() + 10
    while True:
        answer = httpx.get(
            f"{keyed.server.url}/v1/usage", headers={"authorization": f"Bearer {client.api_key}"}
        )
        rows = answer.json()["data"]
        used = sum(row["total_tokens"] for row in rows)
        if used:
            break
        assert time.monotonic() < until
        time.sleep(0.1)
    assert used == 35
    assert {row["key_id"] for row in rows} == {key_id}
    assert {row["model"] for row in rows} == {"stub"}


def test_a_batch_waits_for_what_is_only_held_and_past_the_month_it_fails(keyed: Keyed) -> None:
    _, client = keyed.new(limits=Limits(tokens_per_month=1200))  # room for two lines at a time
    done = ended(client, submit(client, lines_of(["x"] * 3, max_tokens=500)))
    assert done.request_counts is not None
    assert done.request_counts.completed == 3
    _, client = keyed.new(limits=Limits(tokens_per_month=20))
    done = ended(client, submit(client, lines_of(["x"] * 3, max_tokens=500)))
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (0, 3)
    failed = results(client, done.error_file_id)[0]["response"]
    assert failed["body"]["error"]["code"] == "insufficient_quota"


def test_a_batch_leaves_its_key_some_of_the_requests_at_a_time(keyed: Keyed) -> None:
    key_id, client = keyed.new(limits=Limits(concurrent_requests=4))
    _, admin = keyed.new(admin=True)
    batches = [submit(client, lines_of(["x"] * 20)) for _ in range(2)]
    for batch in batches:
        assert ended(client, batch).status == "completed"
    headers = {"authorization": f"Bearer {admin.api_key}"}
    told = httpx.get(f"{keyed.server.url}/metrics", headers=headers).text
    refused = [line for line in told.splitlines() if line.startswith("llmkit_rejections_total")]
    assert not [line for line in refused if key_id in line]


def test_a_key_of_some_models_has_no_batch_with_another(keyed: Keyed) -> None:
    _, client = keyed.new(models=("other",))
    content = line("a", "x", model="other") + line("b", "x", model="stub")
    batch = ended(client, submit(client, content))
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(of.line, of.code) for of in batch.errors.data] == [(2, "model_not_found")]
    assert "stub" not in str(batch.errors.data[0].message).partition("may use:")[2]


def test_a_key_without_the_endpoint_makes_no_batch_of_it(keyed: Keyed) -> None:
    routes = ("/v1/files*", "/v1/batches*", "/v1/models")
    _, client = keyed.new(routes=routes)
    with pytest.raises(openai.PermissionDeniedError):
        submit(client, lines_of(["x"]))


def test_a_batch_ends_when_its_key_is_revoked(keyed: Keyed) -> None:
    key_id, client = keyed.new()
    _, admin = keyed.new(admin=True)
    # What fails is asked again, and by then the key holds no more.
    batch = submit(client, lines_of(["x", *["fail"] * 3]))
    keyed.store.revoke(key_id)
    done = ended(admin, batch)
    assert done.status == "failed"
    assert done.errors is not None
    assert done.errors.data is not None
    assert done.errors.data[0].code == "invalid_api_key"


def test_a_key_has_so_many_batches_and_bytes_and_no_more(keyed: Keyed) -> None:
    _, client = keyed.new()
    batches = [submit(client, lines_of(["hang"])) for _ in range(2)]
    with pytest.raises(openai.RateLimitError) as refused:
        submit(client, lines_of(["hang"]))
    assert refused.value.code == "too_many_batches"
    for batch in batches:
        client.batches.cancel(batch)
        ended(client, batch)
    client.files.create(file=("a", b"x" * 60_000), purpose="batch")
    with pytest.raises(openai.APIStatusError) as full:
        client.files.create(file=("a", b"x" * 60_000), purpose="batch")
    assert full.value.code == "storage_limit_exceeded"


def test_at_the_same_time_no_more_batches_are_taken_either(keyed: Keyed) -> None:
    _, client = keyed.new()
    file = client.files.create(file=("a", lines_of(["hang"])), purpose="batch")
    asked = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}

    async def post_all() -> list[httpx.Response]:
        headers = {"authorization": f"Bearer {client.api_key}"}
        async with httpx.AsyncClient(base_url=keyed.server.url, headers=headers) as at_once:
            posts = [at_once.post("/v1/batches", json=asked) for _ in range(8)]
            return await asyncio.gather(*posts)

    codes = sorted(answer.status_code for answer in asyncio.run(post_all()))
    assert codes == [200, 200, *[429] * 6]
    for batch in client.batches.list().data:
        client.batches.cancel(batch.id)


def test_without_a_key_nothing_is_taken(keyed: Keyed) -> None:
    with pytest.raises(openai.AuthenticationError):
        keyed.server.client().files.create(file=("a", b"x"), purpose="batch")


def test_the_folder_is_its_owners_alone(keyed: Keyed) -> None:
    for folder in ("files", "batches"):
        assert Path(keyed.server.folder / folder).stat().st_mode & 0o077 == 0
