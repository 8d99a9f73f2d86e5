"""That what is checked here is what the installed vLLM reads."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from serve.requests.chat import ChatRequest
from serve.requests.completions import CompletionRequest
from serve.requests.embeddings import EmbeddingRequest
from serve.requests.not_offered import NOT_OFFERED
from serve.requests.responses import ResponsesRequest
from serve.requests.shape import Shape
from serve.requests.tokens import DetokenizeRequest, TokenizeChat, TokenizeText

IGNORED = {
    *("metadata", "store", "service_tier", "modalities", "safety_identifier", "verbosity"),
    *("prompt_cache_key", "prompt_cache_retention", "prediction", "stream_options"),
}
"""Fields of OpenAI's that are taken and that vLLM does not know on every route."""


def vllm_models() -> list[tuple[type[Shape], Any]]:
    from vllm.entrypoints.openai.chat_completion import protocol as chat
    from vllm.entrypoints.openai.completion import protocol as completion
    from vllm.entrypoints.openai.responses import protocol as responses
    from vllm.entrypoints.pooling.embed import protocol as embed
    from vllm.entrypoints.serve.tokenize import protocol as tokenize

    return [
        (ChatRequest, chat.ChatCompletionRequest),
        (CompletionRequest, completion.CompletionRequest),
        (ResponsesRequest, responses.ResponsesRequest),
        (EmbeddingRequest, embed.EmbeddingCompletionRequest),
        (TokenizeText, tokenize.TokenizeCompletionRequest),
        (TokenizeChat, tokenize.TokenizeChatRequest),
        (DetokenizeRequest, tokenize.DetokenizeRequest),
    ]


def takes_null(model: Any, field: str) -> bool:
    info = model.model_fields[field]
    annotation = info.rebuild_annotation()
    try:
        TypeAdapter(annotation, config=None).validate_python(None)
    except ValidationError:
        return False
    except Exception:
        return True
    return True


def test_vllm_knows_every_field_that_is_taken() -> None:
    for ours, theirs in vllm_models():
        unknown = set(ours.model_fields) - set(theirs.model_fields) - IGNORED
        assert not unknown, f"{theirs.__name__} has no {unknown}"


def test_every_field_of_vllms_is_taken_or_has_a_reason_why_not() -> None:
    for ours, theirs in vllm_models():
        left = set(theirs.model_fields) - set(ours.model_fields) - set(NOT_OFFERED)
        assert not left, f"{theirs.__name__}: {left}"


def test_null_is_taken_only_where_vllm_takes_it() -> None:
    for ours, theirs in vllm_models():
        for field in set(ours.model_fields) & set(theirs.model_fields):
            if takes_null(ours, field) and field not in ours.null_is_absent:
                assert takes_null(theirs, field), f"{theirs.__name__}.{field}"


def test_vllm_can_say_back_every_null_of_a_responses_request() -> None:
    from vllm.entrypoints.openai.responses import protocol

    absent = {"model", "input", *ResponsesRequest.null_is_absent}
    for field in set(ResponsesRequest.model_fields) - absent:
        if takes_null(ResponsesRequest, field):
            body = {"model": "m", "input": "x", field: None}
            request = protocol.ResponsesRequest.model_validate(body)
            protocol.ResponsesResponse.from_request(
                request,
                request.to_sampling_params(10),
                model_name="m",
                created_time=1,
                output=[],
                status="in_progress",
                usage=None,
            )


@pytest.mark.parametrize("name", ["hermes", "llama3_json"])
def test_the_tool_parsers_that_the_settings_name_exist(name: str) -> None:
    from vllm.tool_parsers import ToolParserManager

    assert name in ToolParserManager.list_registered()
