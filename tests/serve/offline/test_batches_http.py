"""Files and batches through the openai client, on a server with a fake engine."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from batch_stub import CHAT, StubServer, ended, line, lines_of, results, stub_server, submit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubServer]:
    folder = tmp_path_factory.mktemp("batches")
    with stub_server(folder, database="none", max_batch_bytes=5_000_000, max_batch_lines=300) as it:
        yield it


@pytest.fixture(scope="module")
def client(server: StubServer) -> openai.OpenAI:
    return server.client()


def test_the_openai_client_does_the_whole_round(client: openai.OpenAI, server: StubServer) -> None:
    said = [f"hello {number}" for number in range(50)]
    file = client.files.create(file=("in.jsonl", lines_of(said)), purpose="batch")
    assert (file.purpose, file.filename, file.status) == ("batch", "in.jsonl", "processed")
    assert client.files.retrieve(file.id) == file
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        metadata={"for": "me"},
    )
    assert batch.metadata == {"for": "me"}
    done = ended(client, batch.id)
    assert done.status == "completed"
    assert done.request_counts is not None
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (50, 50, 0)
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (150, 100)
    assert done.error_file_id is None
    answers = results(client, done.output_file_id)
    told = {of["custom_id"]: of["response"] for of in answers}
    assert len(answers) == len(told) == 50
    for number, text in enumerate(said, 1):
        response = told[f"r{number}"]
        assert response["status_code"] == 200
        assert response["request_id"]
        assert response["body"]["choices"][0]["message"]["content"] == text
    asked = [(text, priority) for text, priority in server.asked() if text.startswith("hello")]
    assert sorted(asked) == sorted((text, 1) for text in said)


def test_a_request_of_a_client_is_not_of_low_priority(
    client: openai.OpenAI, server: StubServer
) -> None:
    client.chat.completions.create(model="stub", messages=[{"role": "user", "content": "me first"}])
    assert ("me first", 0) in server.asked()


def test_lines_that_fail_are_in_the_error_file_and_hold_up_no_other(client: openai.OpenAI) -> None:
    content = lines_of(["a", "b"]) + line("hot", "c", temperature=9) + line("end", "d")
    done = ended(client, submit(client, content))
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (3, 1)
    (failed,) = results(client, done.error_file_id)
    assert failed["custom_id"] == "hot"
    assert failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["param"] == "temperature"
    assert len(results(client, done.output_file_id)) == 3


def test_a_batch_can_be_cancelled_and_keeps_what_is_done(
    client: openai.OpenAI, server: StubServer
) -> None:
    batch = submit(client, lines_of(["quick", *["hang"] * 40]))
    while client.batches.retrieve(batch).request_counts.completed < 1:  # type: ignore[union-attr]
        time.sleep(0.02)
    assert client.batches.cancel(batch).status == "cancelling"
    done = ended(client, batch)
    assert done.status == "cancelled"
    assert [of["custom_id"] for of in results(client, done.output_file_id)] == ["r1"]
    assert done.cancelled_at is not None
    with pytest.raises(openai.ConflictError) as refused:
        client.batches.cancel(batch)
    assert refused.value.code == "batch_not_cancellable"
    assert sum(text == "hang" for text, _ in server.asked()) <= 16


def test_what_is_wrong_in_a_file_is_named_by_line(client: openai.OpenAI) -> None:
    content = b"\n".join(
        [
            line("one", "a").strip(),
            b"{no json",
            line("one", "b").strip(),
            line("two", "c").strip().replace(b"POST", b"GET"),
            b"",
            line("three", "d").strip().replace(b"chat/completions", b"embeddings"),
            line("four", "e", model="unknown").strip(),
            line("five", "f", stream=True).strip(),
            b'{"custom_id": "six"}',
        ]
    )
    batch = ended(client, submit(client, content))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    told = [(of.line, of.code, of.param) for of in batch.errors.data]
    assert told == [
        (2, "invalid_json_line", None),
        (3, "duplicate_custom_id", "custom_id"),
        (4, "invalid_method", "method"),
        (6, "invalid_url", "url"),
        (7, "model_not_found", "body.model"),
        (8, "invalid_value", "body.stream"),
        (9, "missing_required_parameter", "method"),
    ]
    assert batch.output_file_id is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\n\n", "empty_file"),
        (lines_of(["x"] * 301), "too_many_requests"),
        (b"\n" * 301, "too_many_requests"),
    ],
)
def test_a_file_without_lines_or_with_too_many_fails(
    client: openai.OpenAI, content: bytes, code: str
) -> None:
    batch = ended(client, submit(client, content))
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [of.code for of in batch.errors.data] == [code]


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(
    client: openai.OpenAI, server: StubServer
) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 100_000

    before = len(client.files.list().data)
    answer = httpx.post(
        f"{server.url}/v1/files",
        content=endless(),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "file_too_large"
    assert len(client.files.list().data) == before
    assert not list(server.folder.glob("**/*.partial"))


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"files": {"file": b"x"}}, "missing_required_parameter"),
        ({"files": {"file": b"x"}, "data": {"purpose": "fine-tune"}}, "invalid_value"),
        ({"files": {"other": b"x"}, "data": {"purpose": "batch"}}, "missing_required_parameter"),
        ({"data": {"purpose": "batch"}}, "unsupported_media_type"),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, "unsupported_media_type"),
        (
            {
                "content": b"--b\r\nnothing",
                "headers": {"content-type": "multipart/form-data; boundary=b"},
            },
            "invalid_form",
        ),
        (
            {
                "content": b"--b\r\nnothing",
                "headers": {"content-type": f"multipart/form-data; boundary={'b' * 300}"},
            },
            "invalid_form",
        ),
        (
            {
                "files": {"file": b"x"},
                "data": {
                    "purpose": "batch",
                    "expires_after[anchor]": "created_at",
                    "expires_after[seconds]": "5",
                },
            },
            "invalid_value",
        ),
        (
            {
                "files": {"file": b"x"},
                "data": {"purpose": "batch"},
                "headers": {"sec-fetch-site": "cross-site"},
            },
            "permission_denied",
        ),
    ],
)
def test_a_form_that_is_no_upload_is_refused(
    server: StubServer, form: dict[str, Any], code: str
) -> None:
    answer = httpx.post(f"{server.url}/v1/files", **form)
    assert answer.status_code < 500
    assert answer.json()["error"]["code"] == code


def test_a_file_keeps_its_bytes_and_goes_when_deleted(client: openai.OpenAI) -> None:
    content = bytes(range(256)) * 5000 + b"\r\n--not-the-boundary\r\n"
    file = client.files.create(
        file=("../../etc/passwd", content),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert file.filename == "passwd"
    assert file.bytes == len(content)
    assert file.expires_at == file.created_at + 7200
    assert client.files.content(file.id).content == content
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)


def test_a_file_that_a_batch_reads_is_not_deleted(client: openai.OpenAI) -> None:
    batch = submit(client, lines_of(["hang"]))
    file = client.batches.retrieve(batch).input_file_id
    with pytest.raises(openai.ConflictError) as refused:
        client.files.delete(file)
    assert refused.value.code == "file_in_use"
    client.batches.cancel(batch)
    ended(client, batch)
    client.files.delete(file)


def test_lists_come_in_pages_the_newest_first(client: openai.OpenAI) -> None:
    made = [submit(client, lines_of(["x"])) for _ in range(3)]
    listed = [batch.id for batch in client.batches.list(limit=2)]  # the client asks for every page
    assert listed[:3] == made[::-1]
    assert len(listed) == len(set(listed))
    files = client.files.list(purpose="batch", limit=1, order="asc")
    assert len(files.data) == 1
    assert files.has_more
    with pytest.raises(openai.BadRequestError):
        client.batches.list(limit=1000)
    with pytest.raises(openai.BadRequestError):
        client.batches.list(after="batch_nowhere")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"endpoint": "/v1/moderations"}, "invalid_value"),
        ({"endpoint": "/v1/embeddings"}, "unsupported_value"),
        ({"completion_window": "1 week"}, "invalid_value"),
        ({"completion_window": "999h"}, "invalid_value"),
        ({"priority": 0}, None),
        ({"metadata": {"x": 1}}, "invalid_type"),
    ],
)
def test_a_batch_that_can_not_be_is_refused(
    client: openai.OpenAI, server: StubServer, change: dict[str, Any], code: str | None
) -> None:
    file = client.files.create(file=("in.jsonl", lines_of(["x"])), purpose="batch")
    body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **change}
    answer = httpx.post(f"{server.url}/v1/batches", json=body)
    assert answer.status_code == 400
    assert code is None or answer.json()["error"]["code"] == code


def test_a_file_that_is_not_there_is_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_x")


def test_lines_are_counted_apart_from_requests_that_someone_awaits(
    client: openai.OpenAI, server: StubServer
) -> None:
    ended(client, submit(client, lines_of(["x"])))
    assert 'route="/v1/batches (lines)"' in httpx.get(f"{server.url}/metrics").text
