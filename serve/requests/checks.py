"""What a request must fit, by its route: the shape first, then the engine's facts.

body ──► the route's model ──► ids, lengths, counts ──► schemas, patterns, grammars
         (pydantic)            (`Bounds`, settings)     (`constraints`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from serve.requests.allowance import Allowance
from serve.requests.bounds import Bounds
from serve.requests.chat import ChatRequest
from serve.requests.completions import CompletionRequest
from serve.requests.constraints import (
    check_functions,
    check_response_format,
    check_schema_in,
    check_structured_outputs,
)
from serve.requests.embeddings import MOST_INPUTS, EmbeddingRequest
from serve.requests.limits import Engine, at_most, check_model, fits_model, in_vocabulary
from serve.requests.refusal import RequestRefused, refusal_of, shown
from serve.requests.required_tools import with_object_arguments
from serve.requests.responses import NamedFunctionTool, ResponsesRequest, SchemaText
from serve.requests.sampling import Sampling
from serve.requests.shape import Shape
from serve.requests.tokens import DetokenizeRequest, TokenizeChat, TokenizeText
from serve.requests.tools import NamedTool

_AnyShape = TypeVar("_AnyShape", bound=Shape)


def check_request(route: str, body: Any, engine: Engine) -> dict[str, Any] | None:
    """Check a body for one of the routes in `CHECKED`.

    Args:
        route: the path.
        body: the parsed JSON.
        engine: what the engine can take, and what its owner allows.

    Returns:
        The body to send on in place of the given one, where the engine would take it for
        something else than it says; None where it goes on as it is.

    Raises:
        RequestRefused: with the reason, the code and the field.
    """
    if not isinstance(body, dict):
        raise RequestRefused(f"the body must be a JSON object, but is {shown(body)}.")
    return CHECKED[route](body, engine)


def _read(shape: type[_AnyShape], body: dict[str, Any], engine: Engine) -> _AnyShape:
    try:
        request = shape.model_validate(body)
    except ValidationError as error:
        raise refusal_of(error, body) from None
    check_model(body["model"], engine.bounds)
    return request


def _few(field: str, body: dict[str, Any], most: int) -> None:
    """Refuse too many turns or prompts before any of them is looked at."""
    given = body.get(field)
    if isinstance(given, list) and given and not isinstance(given[0], int):
        at_most(field, len(given), most, "items")


def _chat(body: dict[str, Any], engine: Engine) -> dict[str, Any] | None:
    _few("messages", body, engine.settings.max_messages)
    request = _read(ChatRequest, body, engine)
    bounds = engine.bounds
    _generates("/v1/chat/completions", engine)
    at_most("n", request.n or 1, engine.settings.max_choices)
    fits_model("max_tokens", request.max_tokens, bounds)
    fits_model("max_completion_tokens", request.max_completion_tokens, bounds)
    if request.top_logprobs:
        at_most("top_logprobs", request.top_logprobs, bounds.max_logprobs)
        _needs("top_logprobs", "logprobs: true", holds=bool(request.logprobs))
    if request.logprob_token_ids:
        _needs("logprob_token_ids", "logprobs: true", holds=bool(request.logprobs))
    if request.echo and bounds.has_adapters:
        raise _no_prompt_logprobs("echo")
    _final_message(opened=request.add_generation_prompt, continued=request.continue_final_message)
    allowance = Allowance(engine.settings.max_schema_chars)
    _sampling(request, engine, allowance)
    if not (request.tools or request.tool_choice):
        return None
    return _tools(request, body, engine, allowance)


def _tools(
    request: ChatRequest, body: dict[str, Any], engine: Engine, allowance: Allowance
) -> dict[str, Any] | None:
    functions = [tool.function for tool in request.tools or ()]
    fields = [f"tools[{place}].function.parameters" for place in range(len(functions))]
    called = request.tool_choice != "none"
    check_functions(functions, fields, allowance, called=called)
    choice = request.tool_choice
    named = choice.function.name if isinstance(choice, NamedTool) else None
    demanded = _demanded(choice, named, {function.name for function in functions}, engine)
    return with_object_arguments(body) if demanded else None


def _demanded(choice: object, named: str | None, names: set[str], engine: Engine) -> bool:
    """Whether a tool must be called."""
    if choice == "none":
        return False
    _needs("tool_choice", "tools", holds=bool(names))
    if choice in (None, "auto"):
        if engine.settings.tool_parser is None:
            raise RequestRefused(
                "'tool_choice' auto, which is the default with tools, needs a server started "
                "with a tool_parser; ask for 'required', one function by name, or 'none'.",
                code="unsupported_value",
                param="tool_choice",
            )
        return False
    if named is not None and named not in names:
        raise RequestRefused(
            f"'tool_choice' names {shown(named)}, which is none of the tools.", param="tool_choice"
        )
    return True


def _responses(body: dict[str, Any], engine: Engine) -> dict[str, Any] | None:
    _generates("/v1/responses", engine)
    _few("input", body, engine.settings.max_messages)
    request = _read(ResponsesRequest, body, engine)
    bounds, settings = engine.bounds, engine.settings
    fits_model("max_output_tokens", request.max_output_tokens, bounds)
    at_most("top_logprobs", request.top_logprobs or 0, bounds.max_logprobs)
    _biases(request.logit_bias, bounds)
    in_vocabulary("stop_token_ids", request.stop_token_ids, bounds)
    allowance = Allowance(settings.max_schema_chars)
    form = request.text.format if request.text is not None else None
    if isinstance(form, SchemaText):
        check_schema_in(form.json_schema, "text.format.schema", allowance)
    if request.structured_outputs is not None:
        check_structured_outputs(request.structured_outputs, allowance)
        free = form is None or form.type == "text"
        _needs("structured_outputs", "no text.format beside it", holds=free)
    functions = request.tools or []
    fields = [f"tools[{place}].parameters" for place in range(len(functions))]
    called = request.tool_choice != "none"
    check_functions(functions, fields, allowance, called=called)
    choice = request.tool_choice
    amended = _without_nulls(body, ResponsesRequest)
    if not functions and choice in (None, "auto", "none"):
        return amended
    named = choice.name if isinstance(choice, NamedFunctionTool) else None
    if not _demanded(choice, named, {function.name for function in functions}, engine):
        return amended
    return with_object_arguments(amended or body) or amended


def _without_nulls(body: dict[str, Any], shape: type[Shape]) -> dict[str, Any] | None:
    """The body without nulls that vLLM does not take; None if it has none."""
    absent = shape.null_is_absent
    said = {name: value for name, value in body.items() if value is not None or name not in absent}
    return said if len(said) < len(body) else None


def _completion(body: dict[str, Any], engine: Engine) -> dict[str, Any] | None:
    _few("prompt", body, engine.settings.max_choices)
    request = _read(CompletionRequest, body, engine)
    bounds = engine.bounds
    _generates("/v1/completions", engine)
    prompt = request.prompt
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    prompts = len(prompt) if several else 1
    at_most("prompt" if several else "n", prompts * (request.n or 1), engine.settings.max_choices)
    _token_prompts("prompt", prompt, bounds.max_model_len, engine)
    fits_model("max_tokens", request.max_tokens, bounds)
    if request.max_tokens == 0:
        _needs("max_tokens", "to be at least 1, or echo: true", holds=bool(request.echo))
    if request.logprobs:
        at_most("logprobs", request.logprobs, bounds.max_logprobs)
    if request.echo and request.logprobs is not None and bounds.has_adapters:
        raise _no_prompt_logprobs("echo")
    if request.logprob_token_ids:
        _needs("logprob_token_ids", "logprobs", holds=request.logprobs is not None)
    _sampling(request, engine, Allowance(engine.settings.max_schema_chars))
    return _without_nulls(body, CompletionRequest)


def _sampling(request: Sampling, engine: Engine, allowance: Allowance) -> None:
    """Fields that chat and plain completions share."""
    bounds = engine.bounds
    given = request.model_fields_set
    _biases(request.logit_bias, bounds)
    for field in ("stop_token_ids", "allowed_token_ids", "logprob_token_ids"):
        if field in given:
            ids = getattr(request, field)
            at_most(field, len(ids or ()), bounds.vocabulary, "ids")
            in_vocabulary(field, ids, bounds)
    fits_model("truncate_prompt_tokens", request.truncate_prompt_tokens, bounds)
    fits_model("min_tokens", request.min_tokens, bounds)
    if request.prompt_logprobs is not None:
        if bounds.has_adapters:
            raise _no_prompt_logprobs("prompt_logprobs")
        at_most("prompt_logprobs", request.prompt_logprobs, bounds.max_logprobs)
        _needs("prompt_logprobs", "stream: false", holds=not request.stream)
    if request.stream_options is not None:
        _needs("stream_options", "stream: true", holds=bool(request.stream))
    if request.response_format is not None:
        check_response_format(request.response_format, "response_format", allowance)
    if request.structured_outputs is not None:
        check_structured_outputs(request.structured_outputs, allowance)
        free = request.response_format is None or request.response_format.type == "text"
        _needs("structured_outputs", "no response_format beside it", holds=free)


def _no_prompt_logprobs(field: str) -> RequestRefused:
    return RequestRefused(
        f"'{field}' asks for logprobs of the prompt, which a server of adapters does not offer; "
        "ask a server of the merged model, or of the base alone.",
        code="unsupported_value",
        param=field,
    )


def _biases(biases: Mapping[str, float] | None, bounds: Bounds) -> None:
    if biases:
        in_vocabulary("logit_bias", [int(token) for token in biases], bounds)


def _tokenize(body: dict[str, Any], engine: Engine) -> None:
    if "messages" not in body:
        _read(TokenizeText, body, engine)
        return
    _few("messages", body, engine.settings.max_messages)
    request = _read(TokenizeChat, body, engine)
    _final_message(opened=request.add_generation_prompt, continued=request.continue_final_message)
    functions = [tool.function for tool in request.tools or ()]
    fields = [f"tools[{place}].function.parameters" for place in range(len(functions))]
    check_functions(functions, fields, Allowance(engine.settings.max_schema_chars), called=False)


def _detokenize(body: dict[str, Any], engine: Engine) -> None:
    request = _read(DetokenizeRequest, body, engine)
    in_vocabulary("tokens", request.tokens, engine.bounds)


def _embedding(body: dict[str, Any], engine: Engine) -> None:
    if "embed" not in engine.bounds.tasks:
        raise _not_able("/v1/embeddings", "this model makes no embeddings")
    _few("input", body, MOST_INPUTS)
    request = _read(EmbeddingRequest, body, engine)
    _token_prompts("input", request.input, engine.bounds.max_model_len, engine)
    fits_model("truncate_prompt_tokens", request.truncate_prompt_tokens, engine.bounds)


def _token_prompts(
    field: str, prompts: str | list[int] | list[str] | list[list[int]], most: int, engine: Engine
) -> None:
    """Check prompts that are given as token ids."""
    if isinstance(prompts, str):
        return
    for prompt in [prompts] if isinstance(prompts[0], int) else prompts:
        if not isinstance(prompt, list):
            return
        if len(prompt) > most:
            raise RequestRefused(
                f"this model's maximum context length is {most} tokens, but '{field}' has "
                f"{len(prompt)}.",
                code="context_length_exceeded",
                param=field,
            )
        in_vocabulary(field, prompt, engine.bounds)


def _final_message(*, opened: bool, continued: bool) -> None:
    # vLLM's default opens a turn of the assistant, which then is no continuation.
    if continued:
        _needs("continue_final_message", "add_generation_prompt: false", holds=not opened)


def _needs(field: str, what: str, *, holds: bool) -> None:
    if not holds:
        raise RequestRefused(f"'{field}' needs {what}.", param=field)


def _generates(route: str, engine: Engine) -> None:
    if "generate" not in engine.bounds.tasks:
        raise _not_able(route, "this model writes no text")


def _not_able(route: str, why: str) -> RequestRefused:
    return RequestRefused(f"{route} is not offered: {why}.", code="unsupported_route", status=404)


CHECKED: Mapping[str, Callable[[dict[str, Any], Engine], dict[str, Any] | None]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/responses": _responses,
    "/v1/embeddings": _embedding,
    "/tokenize": _tokenize,
    "/detokenize": _detokenize,
}
"""The checks by route."""
