"""Requests made to do harm, against the real engine: each a 4xx, and the server as it was."""

import json
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import psutil
import pytest

from serve.process import ServerProcess

pytestmark = pytest.mark.end_to_end

CHAT = {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 4}
LOOP = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}


def schema(value: Any) -> dict[str, Any]:
    named = {"name": "x", "schema": value}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def raw(field: bytes) -> bytes:
    """A request that is right but for one field, which Python's json would not write."""
    return b'{"model": "smollm2", "messages": [{"role": "user", "content": "x"}], ' + field + b"}"


HOSTILE: dict[str, dict[str, Any] | bytes] = {
    "a thousand answers": {"n": 1000},
    "a looping reference": schema(LOOP),
    "a schema of nothing": schema({"type": "nothing"}),
    "a schema that contradicts itself": schema({"type": "integer", "minimum": 5, "maximum": 1}),
    "a schema beyond integers": schema({"type": "integer", "minimum": -(10**300)}),
    "a schema of 100 kB": schema({"description": "x" * 100_000}),
    "a schema with a large pattern": schema({"type": "string", "pattern": "[a-z]{0,500}"}),
    "a pattern of 100 kB": {"structured_outputs": {"regex": "(a|b)" * 20_000}},
    "an exponential pattern": {"structured_outputs": {"regex": "(a+)+b"}},
    "a pattern that counts": {"structured_outputs": {"regex": "(.{0,100}){100}"}},
    "optional parts": {"structured_outputs": {"regex": "a?" * 1000}},
    "a recursive grammar": {"structured_outputs": {"grammar": 'root ::= root | "a" root root'}},
    "no grammar": {"structured_outputs": {"grammar": "start: /a/"}},
    "a choice of nothing": {"structured_outputs": {"choice": []}},
    "a lone surrogate": raw(b'"stop": "\\ud800"'),
    "bad UTF-8": raw(b'"user": "\xff"'),
    "deep JSON": b'{"model": "smollm2", "messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "not a number": raw(b'"temperature": NaN'),
    "a name of 100 kB": {"model": "x" * 100_000},
    "content of no kind": {"messages": [{"role": "user", "content": {}}]},
    "an unknown role": {"messages": [{"role": "boss", "content": "x"}]},
    "media from elsewhere": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/"}}],
            }
        ]
    },
    "a template": {"chat_template": "{% for _ in range(10**9) %}x{% endfor %}"},
    "a huge bias": {"logit_bias": {"5": 500}},
    "a bias without bound": raw(b'"logit_bias": {"5": 1e999}'),
    "tokens that are none": {"logit_bias": {"49152": 1}},
    "no token allowed": {"allowed_token_ids": []},
    "too many logprobs": {"logprobs": True, "top_logprobs": 1000},
    "too many tokens": {"max_tokens": 10**9},
    "a prompt too long": {"messages": [{"role": "user", "content": "word " * 5000}]},
    "a body of 5 MB": {"messages": [{"role": "user", "content": "x" * 5_000_000}]},
    "a tool of no name": {"tools": [{"type": "function", "function": {}}]},
    "a tool of no object": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "null"}}}],
        "tool_choice": "required",
    },
}


def resident(server: ServerProcess) -> int:
    """Bytes of the server and its engine."""
    first = psutil.Process(server.pid)
    return sum(one.memory_info().rss for one in [first, *first.children(recursive=True)])


def send(server: ServerProcess, given: dict[str, Any] | bytes, *, stream: bool) -> httpx.Response:
    headers = {"content-type": "application/json"}
    if isinstance(given, bytes):
        content = given
    else:
        body = {"model": server.model.name, **CHAT, "stream": stream, **given}
        content = json.dumps(body).encode()
    url = f"{server.url}/chat/completions"
    return httpx.post(url, content=content, headers=headers, timeout=30)


def test_each_is_a_4xx_in_openais_shape_and_the_server_is_as_it_was(server: ServerProcess) -> None:
    assert send(server, {}, stream=False).status_code == 200
    assert send(server, schema({"type": "object"}), stream=False).status_code == 200
    wrong, after = {}, []
    for _ in range(2):
        for name, given in HOSTILE.items():
            for stream in (False, True):
                answer = send(server, given, stream=stream)
                try:
                    told = set(answer.json()["error"]) == {"message", "type", "param", "code"}
                except ValueError:
                    told = False
                if not (400 <= answer.status_code < 500 and told and len(answer.text) < 4000):
                    wrong[f"{name}, stream={stream}"] = (answer.status_code, answer.text[:200])
                assert str(server.model.path) not in answer.text
        after.append(resident(server))
    assert not wrong
    assert send(server, {}, stream=False).status_code == 200
    first, second = after  # the first makes what is made once
    assert second < first + 20 * 2**20


def connected(server: ServerProcess) -> socket.socket:
    address = urlsplit(server.root_url)
    assert address.hostname
    return socket.create_connection((address.hostname, address.port or 0), timeout=10)


def said(connection: socket.socket) -> bytes:
    """All that the server still says; it may have closed while we were sending."""
    pieces = []
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def test_a_head_of_a_megabyte_is_refused_and_the_connection_closed(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx-large: " + b"a" * 40_000 + b"\r\n\r\n")
        head, _, body = said(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431")
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    with connected(server) as connection:
        with suppress(ConnectionError):  # it is closed before all of it was sent
            connection.sendall(b"GET / HTTP/1.1\r\nx-large: " + b"a" * 2**20 + b"\r\n\r\n")
        assert said(connection)[:12] in (b"", b"HTTP/1.1 431")
    assert send(server, {}, stream=False).status_code == 200


def test_clients_that_send_a_byte_and_wait_keep_no_one_else_waiting(server: ServerProcess) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
    body = b"content-type: application/json\r\ncontent-length: 900\r\n\r\n{"
    with ExitStack() as held:
        for start in (b"P", head, head + body) * 20:
            connection = held.enter_context(connected(server))
            connection.sendall(start)
        began = time.monotonic()
        assert httpx.get(f"{server.root_url}/ready").status_code == 200
        assert send(server, {}, stream=False).status_code == 200
        assert time.monotonic() - began < 8, "it waited until the others were given up"


ELSEWHERE = ["../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "smollm2\0", "\0", "a\nb"]
"""Names that a careless server would look for on its disk."""


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_is_never_a_path(server: ServerProcess, name: str) -> None:
    answer = send(server, {"model": name}, stream=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    loading = httpx.post(f"{server.url}/adapters", json={"name": name, "path": name})
    assert 400 <= loading.status_code < 500
    assert "root:" not in answer.text + loading.text


@pytest.mark.parametrize(
    "path",
    [
        "/%2e%2e/%2e%2e/etc/passwd",
        "/../../etc/passwd",
        "//etc/passwd",
        "/v1/models/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/models/%2e%2e/%2e%2e/etc/passwd",
        "/v1//models",
        "/v1/models/%00",
        "/%00",
        "/v1/adapters/..%2f..%2fetc",
        "/index.html%00",
        "/..%5c..%5cetc%5cpasswd",
    ],
)
def test_a_path_leads_nowhere_but_to_a_route(server: ServerProcess, path: str) -> None:
    with connected(server) as connection:  # clients would tidy the path up
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        head, _, body = said(connection).partition(b"\r\n\r\n")
    assert int(head.split()[1]) in (400, 404, 405)
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_may_choose_whether_to_call_a_tool(server: ServerProcess, stream: bool) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    asked = {"tools": [tool], "tool_choice": "auto", "max_tokens": 40, "temperature": 0}
    answer = send(server, asked, stream=stream)
    assert answer.status_code == 200, answer.text
    if stream:
        assert answer.text.rstrip().endswith("data: [DONE]")
        assert '"error"' not in answer.text
        return
    choice = answer.json()["choices"][0]
    calls = choice["message"].get("tool_calls") or []
    assert calls or choice["message"]["content"]
    assert (choice["finish_reason"] == "tool_calls") is bool(calls)


def test_a_prompt_that_is_too_long_has_openais_code(server: ServerProcess) -> None:
    for stream in (False, True):
        answer = send(server, HOSTILE["a prompt too long"], stream=stream)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
        assert error["param"] == "messages"


@pytest.mark.parametrize("parameters", [None, {"properties": {"city": {"type": "string"}}}])
def test_a_required_call_has_an_object_for_arguments(
    server: ServerProcess, parameters: dict[str, Any] | None
) -> None:
    client = openai.OpenAI(base_url=server.url, api_key="unused", max_retries=0)
    answer = client.chat.completions.create(
        model=server.model.name,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[{"type": "function", "function": {"name": "find", "parameters": parameters}}],  # type: ignore[typeddict-item]
        tool_choice="required",
        temperature=0,
        max_tokens=200,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    for call in calls:
        assert call.type == "function"
        assert isinstance(json.loads(call.function.arguments), dict)


def test_patterns_and_grammars_that_are_taken_are_followed(server: ServerProcess) -> None:
    for outputs, fits in [
        ({"regex": r"(\d{1,3}\.){3}\d{1,3}"}, lambda text: text.count(".") == 3),
        ({"choice": ["yes", "no"]}, lambda text: text in ("yes", "no")),
        ({"grammar": 'root ::= "<" [a-z]{1,9} ">"'}, lambda text: text[0] == "<" == text[:1]),
        ({"json": {"type": "string", "pattern": "^[a-z]{2,5}$"}}, lambda text: text[0] == '"'),
    ]:
        answer = send(server, {"structured_outputs": outputs, "max_tokens": 30}, stream=False)
        assert answer.status_code == 200, answer.text
        assert fits(answer.json()["choices"][0]["message"]["content"])


def test_the_responses_route_answers_and_streams(server: ServerProcess) -> None:
    client = openai.OpenAI(base_url=server.url, api_key="unused", max_retries=0)
    asked = "What is the capital of France?"
    answer = client.responses.create(
        model=server.model.name, input=asked, temperature=0, max_output_tokens=30
    )
    assert "Paris" in answer.output_text
    kinds = [
        event.type
        for event in client.responses.create(
            model=server.model.name, input=asked, max_output_tokens=5, stream=True
        )
    ]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=server.model.name, input="x")
