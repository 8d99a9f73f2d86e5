"""What each route's body may hold."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import from_json

from serve.requests.bounds import Bounds
from serve.requests.chat import ChatRequest
from serve.requests.checks import CHECKED, check_request
from serve.requests.limits import Engine
from serve.requests.refusal import RequestRefused
from serve.settings import ServeSettings

ENGINE = Engine(
    Bounds(lambda: ["base", "support@3"], max_model_len=512, vocabulary=1000),
    ServeSettings(max_messages=20, max_choices=8, max_schema_chars=2000),
)
CHAT = {"model": "base", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "base", "prompt": "Hi"}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def refusal(route: str, body: Any, engine: Engine = ENGINE) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        check_request(route, body, engine)
    return caught.value


def chat(**fields: Any) -> dict[str, Any]:
    return {**CHAT, **fields}


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", chat(model="support@3", stream=True, n=2, temperature=0)),
        ("/v1/chat/completions", chat(stop=["a", "b"], logit_bias={"7": -100}, seed=-1)),
        ("/v1/chat/completions", chat(logprobs=True, top_logprobs=20, max_tokens=512)),
        ("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True})),
        ("/v1/chat/completions", chat(store=True, metadata={"a": "b"}, service_tier="auto")),
        ("/v1/chat/completions", chat(response_format={"type": "json_object"})),
        ("/v1/chat/completions", chat(tools=[TOOL], tool_choice="required")),
        ("/v1/chat/completions", chat(tools=[TOOL], tool_choice="none")),
        ("/v1/chat/completions", chat(structured_outputs={"choice": ["yes", "no"]})),
        ("/v1/chat/completions", chat(structured_outputs={"json": '{"type": "object"}'})),
        ("/v1/completions", TEXT),
        ("/v1/completions", {**TEXT, "prompt": [1, 2, 999], "echo": True, "max_tokens": 0}),
        ("/v1/completions", {**TEXT, "prompt": [[1], [2]], "n": 4, "logprobs": 0}),
        ("/v1/completions", {**TEXT, "prompt": ["a", "b"], "return_token_ids": True}),
        ("/tokenize", TEXT),
        ("/tokenize", CHAT),
        ("/detokenize", {"model": "base", "tokens": [0, 999]}),
        ("/detokenize", {"model": "base", "tokens": []}),
    ],
)
def test_an_ordinary_request_goes_on_as_it_is(route: str, body: dict[str, Any]) -> None:
    assert check_request(route, body, ENGINE) is None


def test_an_answer_can_be_sent_back_as_a_turn_with_all_its_fields() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    nothing = ("content", "refusal", "annotations", "audio", "function_call", "reasoning")
    answered = {"role": "assistant", "tool_calls": [call], **dict.fromkeys(nothing)}
    result = {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "7"}]}
    messages = [*CHAT["messages"], answered, result]  # type: ignore[misc]
    assert check_request("/v1/chat/completions", chat(messages=messages), ENGINE) is None


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": None}, "invalid_type", "model"),
        ({"model": "x" * 100_000}, "model_not_found", "model"),
        ({"messages": []}, "array_below_min_length", "messages"),
        ({"messages": [{"role": "boss", "content": "a"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"content": "a"}]}, "missing_required_parameter", "messages[0].role"),
        ({"messages": [{"role": "user", "content": {}}]}, "invalid_type", "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": CHAT["messages"] * 21}, "array_above_max_length", "messages"),  # type: ignore[operator]
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"temperature": 2.1}, "number_above_max_value", "temperature"),
        ({"temperature": float("inf")}, "invalid_value", "temperature"),
        ({"n": 9}, "number_above_max_value", "n"),
        ({"n": 0}, "number_below_min_value", "n"),
        ({"n": True}, "invalid_type", "n"),
        ({"max_tokens": 513}, "context_length_exceeded", "max_tokens"),
        ({"max_completion_tokens": 0}, "number_below_min_value", "max_completion_tokens"),
        ({"top_logprobs": 5}, "invalid_value", "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "number_above_max_value", "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "number_below_min_value", "top_logprobs"),
        ({"stop": ["a"] * 5}, "array_above_max_length", "stop"),
        ({"stop": "a" * 257}, "string_above_max_length", "stop"),
        ({"logit_bias": {"7": 500}}, "number_above_max_value", "logit_bias.7"),
        ({"logit_bias": {"1000": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "invalid_value", "logit_bias.-1"),
        ({"stop_token_ids": [1000]}, "invalid_value", "stop_token_ids"),
        ({"allowed_token_ids": [-1]}, "number_below_min_value", "allowed_token_ids[0]"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
        ({"response_format": {"type": "yaml"}}, "invalid_value", "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", None),
        ({"structured_outputs": {}}, "invalid_value", "structured_outputs"),
        ({"structured_outputs": {"regex": "(a+)+"}}, "invalid_regex", "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "root ::= root"}}, "invalid_grammar", None),
        ({"structured_outputs": {"json": "{"}}, "invalid_json_schema", "structured_outputs.json"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tools": [TOOL]}, "unsupported_value", "tool_choice"),
        ({"tools": []}, "array_below_min_length", "tools"),
        ({"seed": 2**63}, "number_above_max_value", "seed"),
        ({"seed": 10**4000}, "number_above_max_value", "seed"),
        ({"cache_salt": "a/b"}, "invalid_value", "cache_salt"),
        ({"made_up": 1}, "unrecognized_request_argument", "made_up"),
        ({"chat_template": "{{ 1 }}"}, "unrecognized_request_argument", "chat_template"),
        ({"chat_template_kwargs": {}}, "unrecognized_request_argument", "chat_template_kwargs"),
        ({"guided_regex": "a"}, "unrecognized_request_argument", "guided_regex"),
        ({"kv_transfer_params": {}}, "unrecognized_request_argument", "kv_transfer_params"),
        ({"priority": -1}, "unrecognized_request_argument", "priority"),
    ],
)
def test_a_chat_request_is_refused_and_the_field_named(
    fields: dict[str, Any], code: str, param: str | None
) -> None:
    refused = refusal("/v1/chat/completions", chat(**fields))
    assert refused.code == code
    assert param is None or refused.param == param
    assert refused.status == (404 if code == "model_not_found" else 400)
    assert len(refused.message) < 500


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_embeds", "image_embeds": "gASV"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "http://example.com"}},
        {"type": "file", "file": {"file_id": "f"}},
    ],
)
@pytest.mark.parametrize("role", ["user", "system", "tool"])
def test_media_of_every_kind_is_refused(part: dict[str, Any], role: str) -> None:
    message = {"role": role, "content": [{"type": "text", "text": "see"}, part]}
    refused = refusal("/v1/chat/completions", chat(messages=[message]))
    assert (refused.param or "").startswith("messages[0].content[1]")


def test_a_field_that_is_not_offered_may_be_null() -> None:
    fields = {"audio": None, "functions": None, "function_call": None, "chat_template": None}
    assert check_request("/v1/chat/completions", chat(**fields), ENGINE) is None


def test_a_null_that_is_not_offered_hides_no_other_fault() -> None:
    first = {"role": "assistant", "content": "x", "audio": None, "function_call": None}
    messages = [first, {"role": "alien", "content": "y"}]
    assert refusal("/v1/chat/completions", chat(messages=messages)).param == "messages[1].role"


def test_a_null_within_a_schema_is_judged_as_the_engine_gets_it() -> None:
    parameters = {"type": "object", "properties": {"audio": None}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    refused = refusal("/v1/chat/completions", chat(tools=[tool], tool_choice="required"))
    assert refused.code == "invalid_function_parameters"


@pytest.mark.parametrize(
    "fields",
    [
        {f"made_up_{number}": None for number in range(300)},
        {"messages": [{"role": "user", "content": "a", **dict.fromkeys(map(str, range(300)))}]},
    ],
)
def test_an_object_with_very_many_fields_is_not_looked_at(fields: dict[str, Any]) -> None:
    assert "fields; at most" in refusal("/v1/chat/completions", chat(**fields)).message


@pytest.mark.parametrize(
    ("route", "field"),
    [("/v1/chat/completions", "messages"), ("/tokenize", "messages"), ("/v1/responses", "input")],
)
def test_too_many_turns_are_refused_whatever_they_hold(route: str, field: str) -> None:
    refused = refusal(route, {"model": "base", field: [{}] * 21})
    assert (refused.param, refused.code) == (field, "array_above_max_length")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": ""}, "string_below_min_length"),
        ({"prompt": []}, "array_below_min_length"),
        ({"prompt": [1, 1000]}, "invalid_value"),
        ({"prompt": [-1]}, "number_below_min_value"),
        ({"prompt": [1] * 513}, "context_length_exceeded"),
        ({"prompt": [[1] * 513]}, "context_length_exceeded"),
        ({"prompt": ["a"] * 9}, "array_above_max_length"),
        ({"prompt": [{}] * 9}, "array_above_max_length"),
        ({"prompt": ["a"] * 3, "n": 3}, "number_above_max_value"),
        ({"prompt": ["a", 1]}, "invalid_type"),
        ({"max_tokens": 0}, "invalid_value"),
        ({"logprobs": 21}, "number_above_max_value"),
        ({"prompt_logprobs": 5, "stream": True}, "invalid_value"),
        ({"prompt_embeds": "gASV"}, "unrecognized_request_argument"),
        ({"suffix": "x"}, "unrecognized_request_argument"),
        ({"best_of": 5}, "unrecognized_request_argument"),
        ({"logit_bias": {"5": float("nan")}}, "invalid_value"),
    ],
)
def test_a_completion_request_is_refused(fields: dict[str, Any], code: str) -> None:
    assert refusal("/v1/completions", {**TEXT, **fields}).code == code


def test_tokens_outside_the_vocabulary_have_no_text() -> None:
    refused = refusal("/detokenize", {"model": "base", "tokens": [5, 1000]})
    assert "0 to 999" in refused.message


@pytest.mark.parametrize("body", [[], "x", None, 3])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    for route in CHECKED:
        assert refusal(route, body).status == 400


def test_the_model_may_choose_to_call_a_tool_where_its_calls_can_be_read() -> None:
    able = Engine(ENGINE.bounds, ServeSettings(tool_parser="hermes"))
    for fields in ({}, {"tool_choice": "auto"}):
        body = chat(tools=[TOOL], **fields)
        assert check_request("/v1/chat/completions", body, able) is None
        refused = refusal("/v1/chat/completions", body)
        assert "tool_parser" in refused.message


def test_a_tool_by_name_must_be_among_the_tools() -> None:
    named = {"type": "function", "function": {"name": "other"}}
    refused = refusal("/v1/chat/completions", chat(tools=[TOOL], tool_choice=named))
    assert refused.param == "tool_choice"


@pytest.mark.parametrize("parameters", [None, {}, {"properties": {"city": {"type": "string"}}}])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "find"}}])
def test_a_demanded_call_has_an_object_for_arguments(parameters: Any, choice: Any) -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": parameters}}
    body = chat(tools=[tool], tool_choice=choice)
    sent = check_request("/v1/chat/completions", body, ENGINE)
    assert sent is not None
    assert sent["tools"][0]["function"]["parameters"]["type"] == "object"
    assert tool["function"]["parameters"] == parameters, "the request itself is not changed"


def test_arguments_that_are_no_object_are_refused() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
    refused = refusal("/v1/chat/completions", chat(tools=[tool], tool_choice="required"))
    assert refused.code == "invalid_function_parameters"
    assert refused.param == "tools[0].function.parameters"


@pytest.mark.parametrize(
    "parameters",
    [
        {"anyOf": [{"type": "string"}]},
        {"type": "object", "oneOf": [{"type": "string"}]},
        {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"},
        {"enum": ["a"]},
        {"const": "a"},
    ],
)
def test_arguments_that_may_be_something_else_than_an_object_are_refused(parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    refused = refusal("/v1/chat/completions", chat(tools=[tool], tool_choice="required"))
    assert refused.code == "invalid_function_parameters"
    assert "not at its top" in refused.message


def test_all_tools_together_are_bounded() -> None:
    def tool(name: str) -> dict[str, Any]:
        parameters = {"type": "object", "description": "x" * 1500}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    assert check_request("/tokenize", chat(tools=[tool("a")]), ENGINE) is None
    both = chat(tools=[tool("a"), tool("b")])
    for route, body in [
        ("/tokenize", both),
        ("/v1/chat/completions", {**both, "tool_choice": "required"}),
        ("/v1/chat/completions", {**both, "tool_choice": "none"}),
    ]:
        refused = refusal(route, body)
        assert refused.code == "invalid_function_parameters"
        assert refused.param == "tools[1].function.parameters"


def test_what_a_request_holds_of_schemas_is_bounded_over_all_its_fields() -> None:
    def schema(first: int) -> dict[str, Any]:
        costly = {rf"(?:(?:\w{{8}}){{8}}){{3}}{number}": {} for number in range(first, first + 30)}
        return {"type": "object", "patternProperties": costly}

    tools = [{"type": "function", "function": {"name": "a", "parameters": schema(0)}}]
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema(100)}}
    one, other = chat(tools=tools, tool_choice="required"), chat(response_format=form)
    for body in (one, other):
        check_request("/v1/chat/completions", body, ENGINE)
    refused = refusal("/v1/chat/completions", {**one, **other})
    assert refused.param == "tools[0].function.parameters"
    assert "too many or too large" in refused.message


def test_tools_that_are_only_shown_may_look_as_they_did_in_training() -> None:
    odd = {"name": "get weather", "parameters": {"type": "dict", "properties": []}}
    body = chat(tools=[{"function": odd}])
    assert check_request("/tokenize", body, ENGINE) is None
    assert check_request("/v1/chat/completions", {**body, "tool_choice": "none"}, ENGINE) is None
    refused = refusal("/v1/chat/completions", {**body, "tool_choice": "required"})
    assert refused.code == "invalid_function_parameters"


def test_a_looping_schema_is_refused_wherever_it_is() -> None:
    loop = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    named = {"name": "x", "schema": loop}
    for fields, param in [
        ({"structured_outputs": {"json": loop}}, "structured_outputs.json"),
        (
            {"response_format": {"type": "json_schema", "json_schema": named}},
            "response_format.json_schema.schema",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": loop}}]},
            "tools[0].function.parameters",
        ),
    ]:
        assert refusal("/v1/chat/completions", chat(**fields)).param == param


def test_embeddings_are_refused_where_the_model_makes_none() -> None:
    body = {"model": "base", "input": "x"}
    refused = refusal("/v1/embeddings", body)
    assert (refused.status, refused.code) == (404, "unsupported_route")
    bounds = Bounds(lambda: ["base"], max_model_len=8, vocabulary=10, tasks=("embed",))
    embedder = Engine(bounds, ServeSettings())
    assert check_request("/v1/embeddings", body, embedder) is None
    assert refusal("/v1/embeddings", {**body, "input": [1] * 9}, embedder).code == (
        "context_length_exceeded"
    )
    refused = refusal("/v1/embeddings", {**body, "input": [[1]] * 2049}, embedder)
    assert (refused.param, refused.code) == ("input", "array_above_max_length")
    assert refusal("/v1/chat/completions", CHAT, embedder).status == 404


def test_logprobs_of_a_prompt_are_refused_beside_adapters() -> None:
    bounds = Bounds(lambda: ["base"], max_model_len=512, vocabulary=1000, has_adapters=True)
    engine = Engine(bounds, ServeSettings())
    chat, text = "/v1/chat/completions", "/v1/completions"
    for route, body in [
        (chat, {**CHAT, "prompt_logprobs": 0}),
        (chat, {**CHAT, "echo": True}),  # vLLM's top_logprobs is 0 if not given
        (text, {**TEXT, "prompt_logprobs": 1}),
        (text, {**TEXT, "echo": True, "logprobs": 0}),
    ]:
        assert refusal(route, body, engine).code == "unsupported_value"
        check_request(route, body, ENGINE)
    check_request(text, {**TEXT, "echo": True}, engine)
    check_request(chat, {**CHAT, "logprobs": True, "top_logprobs": 2}, engine)


def test_a_body_wrong_in_a_million_places_gives_one_short_error() -> None:
    body = from_json(b'{"model": "base", "prompt": [' + b"{}," * 200_000 + b"1]}")
    assert len(refusal("/v1/completions", body).message) < 200


@pytest.mark.parametrize(
    ("field", "wrap"),
    [("logit_bias", dict), ("metadata", dict), ("documents", lambda many: [many])],
)
def test_of_a_mapping_wrong_in_many_places_only_the_first_is_looked_at(
    field: str, wrap: Callable[[dict[str, Any]], Any]
) -> None:
    many = {f"k{number}": [] for number in range(1000)}
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate(chat(**{field: wrap(many)}))
    assert caught.value.error_count() < 5
