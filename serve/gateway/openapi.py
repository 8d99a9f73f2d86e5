"""``/openapi.json``: what this server takes and answers, as it is checked, for this model.

vLLM's own document has its internal routes, references that lead nowhere and no bounds. This one
is made of the models that requests are checked with, with the facts of the engine filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_json
from serve.gateway.routes import ROUTES
from serve.keys.opening import Keys
from serve.requests.bounds import Bounds
from serve.requests.chat import ChatRequest
from serve.requests.completions import CompletionRequest
from serve.requests.embeddings import EmbeddingRequest
from serve.requests.responses import ResponsesRequest
from serve.requests.shape import TOKEN_ID, Shape
from serve.requests.tokens import DetokenizeRequest, TokenizeChat, TokenizeText
from serve.settings import ServeSettings

_REFERENCE = "#/components/schemas/{model}"
_TAKES: Mapping[str, tuple[type[Shape], ...]] = {
    "/v1/chat/completions": (ChatRequest,),
    "/v1/completions": (CompletionRequest,),
    "/v1/responses": (ResponsesRequest,),
    "/v1/embeddings": (EmbeddingRequest,),
    "/tokenize": (TokenizeText, TokenizeChat),
    "/detokenize": (DetokenizeRequest,),
}
_STREAMS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
_OF_TASK = {
    "/v1/chat/completions": "generate",
    "/v1/completions": "generate",
    "/v1/responses": "generate",
    "/v1/embeddings": "embed",
}
_IN_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")
_IN_LOGPROBS = ("top_logprobs", "logprobs", "prompt_logprobs")

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


class OpenApiRoute:
    """Answers ``/openapi.json``; passes every other request on."""

    def __init__(
        self, app: ASGIApp, bounds: Bounds, settings: ServeSettings, keys: Keys | None = None
    ) -> None:
        self._app = app
        self._bounds = bounds
        self._settings = settings
        self._keys = keys or Keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["path"] == "/openapi.json":
            await send_json(
                send, 200, document(self._bounds, self._settings, locked=self._keys.required)
            )
        else:
            await self._app(scope, receive, send)


def document(bounds: Bounds, settings: ServeSettings, *, locked: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document for an engine.

    Args:
        bounds: what the engine can take; routes that it cannot serve are left out.
        settings: what its owner allows.
        locked: whether requests need a key.
    """
    takes = {
        route: shapes
        for route, shapes in _TAKES.items()
        if _OF_TASK.get(route, "") in ("", *bounds.tasks)
    }
    asked = [shape for shapes in takes.values() for shape in shapes]
    _, made = models_json_schema(
        [(shape, "validation") for shape in asked], ref_template=_REFERENCE
    )
    schemas = made["$defs"]
    for shape in asked:
        _fill_in(schemas[shape.__name__]["properties"], bounds, settings)
    for node in _nodes(schemas):
        if node.get("format") == TOKEN_ID:
            node["maximum"] = bounds.vocabulary - 1
    schemas["Error"] = _ERROR
    answers = {route: _answer(route, schemas) for route in takes}
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmkit", "version": version("llmkit")},
        "security": [{"key": []}] if locked else [],
        "paths": {
            route: {
                method.lower(): _operation(route, method, takes.get(route, ()), answers.get(route))
                for method in methods
            }
            for route, methods in ROUTES.items()
            if route in takes or route not in _TAKES
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    route: str, method: str, takes: tuple[type[Shape], ...], answer: dict[str, Any] | None
) -> dict[str, Any]:
    error = {
        "description": "The error",
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}},
    }
    done: dict[str, Any] = {"description": "The answer"}
    if answer is not None:
        done["content"] = {"application/json": {"schema": answer}}
        if route in _STREAMS:
            done["content"]["text/event-stream"] = {}
    operation: dict[str, Any] = {"responses": {"200": done, "4XX": error, "5XX": error}}
    if route in ("/health", "/ready"):
        operation |= {"security": [], "responses": {"200": done, "503": {"description": "Not yet"}}}
    names = [part[1:-1] for part in route.split("/") if part.startswith("{")]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if takes:
        operation["summary"] = (takes[0].__doc__ or "").partition("\n")[0]
        bodies = [{"$ref": _REFERENCE.format(model=shape.__name__)} for shape in takes]
        schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
    operation["operationId"] = f"{method.lower()}{route.replace('/', '_')}"
    return operation


def _fill_in(fields: dict[str, Any], bounds: Bounds, settings: ServeSettings) -> None:
    """The engine's facts in place of what only it knows."""
    fields["model"] = {"enum": list(bounds.models()), "description": "See /v1/models."}
    most = dict.fromkeys((*_IN_TOKENS, "truncate_prompt_tokens"), bounds.max_model_len)
    most |= dict.fromkeys(_IN_LOGPROBS, bounds.max_logprobs)
    most |= {"n": settings.max_choices}
    for name, largest in most.items():
        for node in _nodes(fields.get(name, {})):
            if node.get("type") == "integer":
                node["maximum"] = largest
    if "messages" in fields:
        fields["messages"]["maxItems"] = settings.max_messages


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _answer(route: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a route's answer: OpenAI's own types, which vLLM's answers fit."""
    model = _ANSWERS[route]()
    if isinstance(model, dict):
        return model
    schema: dict[str, Any] = model.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/" + model.__name__ + "_{model}"
    )
    for name, part in schema.pop("$defs", {}).items():
        schemas[f"{model.__name__}_{name}"] = part
        if name == "ChatCompletionMessage":
            # Without add_generation_prompt, vLLM gives the last message's role.
            part["properties"]["role"] = {"type": "string"}
    schemas[model.__name__] = schema
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _chat() -> Any:
    from openai.types.chat import ChatCompletion

    return ChatCompletion


def _completion() -> Any:
    from openai.types import Completion

    return Completion


def _embedding() -> Any:
    # Not openai's type: it has no embeddings in base64, which its client decodes.
    vector = {"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]}
    item = {"type": "object", "required": ["embedding"], "properties": {"embedding": vector}}
    return {
        "type": "object",
        "required": ["data", "model", "usage"],
        "properties": {"data": {"type": "array", "items": item}},
    }


def _response() -> Any:
    # openai's own has some hundred types of tools that do not exist here.
    return {
        "type": "object",
        "required": ["id", "object", "created_at", "model", "output", "status"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "response"},
            "created_at": {"type": "number"},
            "model": {"type": "string"},
            "output": {"type": "array", "items": {"type": "object"}},
            "status": {"type": "string"},
        },
    }


def _tokens() -> Any:
    ids = {"type": "array", "items": {"type": "integer"}}
    return {
        "type": "object",
        "required": ["count", "max_model_len", "tokens"],
        "properties": {"count": {"type": "integer"}, "tokens": ids},
    }


def _text() -> Any:
    return {
        "type": "object",
        "required": ["prompt"],
        "properties": {"prompt": {"type": "string"}},
    }


_ANSWERS: Mapping[str, Callable[[], Any]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/responses": _response,
    "/v1/embeddings": _embedding,
    "/tokenize": _tokens,
    "/detokenize": _text,
}
