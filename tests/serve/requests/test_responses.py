"""What the body of `/v1/responses` may hold."""

from typing import Any

import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

from serve.requests.bounds import Bounds
from serve.requests.checks import check_request
from serve.requests.limits import Engine
from serve.requests.refusal import RequestRefused
from serve.settings import ServeSettings

ROUTE = "/v1/responses"
ENGINE = Engine(
    Bounds(lambda: ["base"], max_model_len=512, vocabulary=1000),
    ServeSettings(max_messages=20, max_choices=8, max_schema_chars=2000),
)
TOOL = {"type": "function", "name": "find", "parameters": {"type": "object"}}
SCHEMA = {"type": "json_schema", "name": "a", "schema": {"type": "object"}}


def check(**fields: Any) -> dict[str, Any] | None:
    return check_request(ROUTE, {"model": "base", "input": "Hi", **fields}, ENGINE)


def refusal(**fields: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        check(**fields)
    return caught.value


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"input": [{"role": "user", "content": "Hi"}], "instructions": "Be kind."},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]},
        {"text": {"format": SCHEMA}, "max_output_tokens": 512, "top_logprobs": 20},
        {"structured_outputs": {"choice": ["yes", "no"]}, "text": {"format": {"type": "text"}}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "find"}},
        {"tools": [TOOL], "tool_choice": "none"},
        {"store": None, "metadata": None, "previous_response_id": None},
    ],
)
def test_an_ordinary_request_goes_on_as_it_is(fields: dict[str, Any]) -> None:
    assert check(**fields) is None


def answered() -> list[dict[str, Any]]:
    """What the server answers, with every field of OpenAI's types, as its clients send it back."""
    call = ResponseFunctionToolCall(
        type="function_call", call_id="c", name="find", arguments="{}", id="fc_1"
    )
    said = ResponseOutputMessage.model_validate(
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "7", "annotations": [], "logprobs": None}],
        }
    )
    return [each.model_dump(mode="json", by_alias=True) for each in (said, call)]


def test_an_answer_can_be_sent_back_with_all_its_fields() -> None:
    asked = {"role": "user", "content": "Hi"}
    result = {"type": "function_call_output", "call_id": "c", "output": "7"}
    assert any(value is None for item in answered() for value in item.values())
    assert (
        check(input=[asked, *answered(), result, asked], tools=[TOOL], tool_choice="none") is None
    )


@pytest.mark.parametrize("place", [0, 1])
def test_an_unknown_field_of_an_answer_that_says_something_is_refused(place: int) -> None:
    items = answered()
    items[place]["made_up"] = 1
    refused = refusal(input=items)
    assert (refused.code, refused.param) == (
        "unrecognized_request_argument",
        f"input[{place}].made_up",
    )


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": "other"}, "model_not_found", "model"),
        ({"input": []}, "array_below_min_length", "input"),
        ({"input": [{"role": "boss", "content": "a"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"type": "x"}]}, "invalid_value", "input[0].type"),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
        ({"input": [{"type": "function_call"}]}, "missing_required_parameter", "input[0].call_id"),
        ({"max_output_tokens": 513}, "context_length_exceeded", "max_output_tokens"),
        ({"top_logprobs": 21}, "number_above_max_value", "top_logprobs"),
        ({"logit_bias": {"1000": 1}}, "invalid_value", "logit_bias"),
        ({"stop_token_ids": [1000]}, "invalid_value", "stop_token_ids"),
        ({"stop": ["a"] * 5}, "array_above_max_length", "stop"),
        ({"temperature": 2.1}, "number_above_max_value", "temperature"),
        (
            {"text": {"format": {**SCHEMA, "schema": {"$ref": "#"}}}},
            "invalid_json_schema",
            "text.format.schema",
        ),
        (
            {"text": {"format": {**SCHEMA, "schema": {"description": "x" * 2000}}}},
            "invalid_json_schema",
            "text.format.schema",
        ),
        ({"structured_outputs": {"regex": "(a+)+"}}, "invalid_regex", "structured_outputs.regex"),
        (
            {"structured_outputs": {"regex": "a"}, "text": {"format": SCHEMA}},
            "invalid_value",
            "structured_outputs",
        ),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tools": [TOOL]}, "unsupported_value", "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}},
            "invalid_value",
            "tool_choice",
        ),
        (
            {"tools": [{**TOOL, "parameters": {"type": "string"}}], "tool_choice": "required"},
            "invalid_function_parameters",
            "tools[0].parameters",
        ),
        ({"background": True}, "unrecognized_request_argument", "background"),
        ({"previous_response_id": "r"}, "unrecognized_request_argument", "previous_response_id"),
        ({"moderation": {}}, "unrecognized_request_argument", "moderation"),
        ({"made_up": 1}, "unrecognized_request_argument", "made_up"),
    ],
)
def test_a_request_is_refused_and_the_field_named(
    fields: dict[str, Any], code: str, param: str
) -> None:
    refused = refusal(**fields)
    assert (refused.code, refused.param) == (code, param)


def test_a_demanded_call_has_an_object_for_arguments() -> None:
    tool = {"type": "function", "name": "find", "parameters": {"properties": {}}}
    sent = check(tools=[tool], tool_choice="required", service_tier=None)
    assert sent is not None
    assert sent["tools"][0]["parameters"] == {"type": "object", "properties": {}}
    assert "service_tier" not in sent


def test_a_null_that_the_engine_does_not_take_is_left_out() -> None:
    assert check(service_tier=None, truncation=None) == {"model": "base", "input": "Hi"}
    body = {"model": "base", "prompt": "Hi", "n": None}
    assert check_request("/v1/completions", body, ENGINE) == {"model": "base", "prompt": "Hi"}
