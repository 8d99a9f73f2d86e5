"""``/openapi.json``: what this server takes and answers, as it is checked, for this model.

vLLM's own document has its internal routes, references that lead nowhere and no bounds. This one
is made of the models that requests are checked with, with the facts of the engine filled in, and
has the routes that this server answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway import adapters_route, batches_route, files_route
from serve.gateway.adapters_route import AliasRequest, LoadRequest
from serve.gateway.batches_route import BatchRequest
from serve.gateway.errors import send_json
from serve.gateway.exchange import exchange_of
from serve.gateway.routes import ROUTES
from serve.keys.key import Key
from serve.keys.opening import Keys
from serve.requests.bounds import Bounds
from serve.requests.chat import ChatRequest
from serve.requests.completions import CompletionRequest
from serve.requests.embeddings import EmbeddingRequest
from serve.requests.responses import ResponsesRequest
from serve.requests.shape import TOKEN_ID
from serve.requests.tokens import DetokenizeRequest, TokenizeChat, TokenizeText
from serve.settings import ServeSettings

_REFERENCE = "#/components/schemas/{model}"
_TAKES: Mapping[str, tuple[type[BaseModel], ...]] = {
    "/v1/chat/completions": (ChatRequest,),
    "/v1/completions": (CompletionRequest,),
    "/v1/responses": (ResponsesRequest,),
    "/v1/embeddings": (EmbeddingRequest,),
    "/tokenize": (TokenizeText, TokenizeChat),
    "/detokenize": (DetokenizeRequest,),
    "/v1/adapters": (LoadRequest,),
    "/v1/adapters/{name}/alias": (AliasRequest,),
    "/v1/batches": (BatchRequest,),
}
"""JSON that a POST to a route has."""
_STREAMS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
_OF_TASK = {
    "/v1/chat/completions": "generate",
    "/v1/completions": "generate",
    "/v1/responses": "generate",
    "/v1/embeddings": "embed",
}
_IN_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")
_IN_LOGPROBS = ("top_logprobs", "logprobs", "prompt_logprobs")

_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"const": "batch"},
        "expires_after[anchor]": {"const": "created_at"},
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": files_route.SHORTEST_KEPT,
            "maximum": files_route.LONGEST_KEPT,
        },
    },
}
"""The form of ``POST /v1/files``."""

_QUERIES: Mapping[str, dict[str, Any]] = {
    files_route.PREFIX: {
        "limit": {"type": "integer", "minimum": 1, "maximum": files_route.LONGEST_PAGE},
        "after": {"type": "string"},
        "order": {"enum": ["asc", "desc"]},
        "purpose": {"type": "string"},
    },
    batches_route.PREFIX: {
        "limit": {"type": "integer", "minimum": 1, "maximum": batches_route.LONGEST_PAGE},
        "after": {"type": "string"},
    },
}
"""What lists may be asked with."""

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
        self._made: dict[tuple[tuple[str, ...], bool], dict[str, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["path"] == "/openapi.json":
            await send_json(send, 200, self._document(exchange_of(scope).key))
        else:
            await self._app(scope, receive, send)

    def _document(self, key: Key | None) -> dict[str, Any]:
        """The document for a key, which must not name models that the key may not use."""
        served = self._bounds.models()
        names = tuple(name for name in served if key is None or key.allows_model(name))
        wanted = names, self._keys.required
        if wanted not in self._made:
            if len(self._made) >= _DOCUMENTS_KEPT:
                self._made.clear()
            self._made[wanted] = document(
                self._bounds, self._settings, models=names, locked=self._keys.required
            )
        return self._made[wanted]


_DOCUMENTS_KEPT = 16
"""One for each set of models that keys may use; each takes some 30 ms to make."""


def document(
    bounds: Bounds, settings: ServeSettings, *, models: Sequence[str], locked: bool
) -> dict[str, Any]:
    """The OpenAPI 3.1 document for an engine.

    Args:
        bounds: what the engine can take; routes that it cannot serve are left out.
        settings: what its owner allows.
        models: the names that requests may give.
        locked: whether requests need a key.
    """
    offered = [route for route in ROUTES if _is_offered(route, bounds, settings)]
    takes = {route: shapes for route, shapes in _TAKES.items() if route in offered}
    asked = [shape for shapes in takes.values() for shape in shapes]
    _, made = models_json_schema(
        [(shape, "validation") for shape in asked], ref_template=_REFERENCE
    )
    schemas = made["$defs"]
    for shape in asked:
        if "model" in shape.model_fields:
            _fill_in(schemas[shape.__name__]["properties"], bounds, settings, models)
    for node in _nodes(schemas):
        if node.get("format") == TOKEN_ID:
            node["maximum"] = bounds.vocabulary - 1
    schemas["Error"] = _ERROR
    answers = {of: _answer(of, schemas) for of in _ANSWERS if of[1] in offered}
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmkit", "version": version("llmkit")},
        "security": [{"key": []}] if locked else [],
        "paths": {
            route: {
                method.lower(): _operation(
                    route, method, takes.get(route, ()) if method == "POST" else (), answers
                )
                for method in ROUTES[route]
            }
            for route in offered
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _is_offered(route: str, bounds: Bounds, settings: ServeSettings) -> bool:
    """Whether it can answer anything but that it is not offered."""
    if route.startswith(adapters_route.PREFIX):
        return settings.adapters_folder is not None
    if route.startswith((batches_route.PREFIX, files_route.PREFIX)):
        return settings.batches_folder is not None
    return _OF_TASK.get(route, "") in ("", *bounds.tasks)


def _operation(
    route: str,
    method: str,
    takes: tuple[type[BaseModel], ...],
    answers: Mapping[tuple[str, str], dict[str, Any]],
) -> dict[str, Any]:
    error = {
        "description": "The error",
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}},
    }
    done: dict[str, Any] = {"description": "The answer"}
    if (answer := answers.get((method, route))) is not None:
        done["content"] = {"application/json": {"schema": answer}}
        if route in _STREAMS:
            done["content"]["text/event-stream"] = {}
    status = "201" if (route, method) == (adapters_route.PREFIX, "POST") else "200"
    operation: dict[str, Any] = {"responses": {status: done, "4XX": error, "5XX": error}}
    if route in ("/health", "/ready"):
        operation |= {"security": [], "responses": {"200": done, "503": {"description": "Not yet"}}}
    names = [part[1:-1] for part in route.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    if method == "GET":
        parameters += [
            {"name": name, "in": "query", "schema": schema}
            for name, schema in _QUERIES.get(route, {}).items()
        ]
    if parameters:
        operation["parameters"] = parameters
    if (route, method) == (files_route.PREFIX, "POST"):
        form = {"multipart/form-data": {"schema": _UPLOAD}}
        operation["requestBody"] = {"required": True, "content": form}
    if takes:
        operation["summary"] = (takes[0].__doc__ or "").partition("\n")[0]
        bodies = [{"$ref": _REFERENCE.format(model=shape.__name__)} for shape in takes]
        schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
    operation["operationId"] = f"{method.lower()}{route.replace('/', '_')}"
    return operation


def _fill_in(
    fields: dict[str, Any], bounds: Bounds, settings: ServeSettings, models: Sequence[str]
) -> None:
    """The engine's facts in place of what only it knows."""
    fields["model"] = {"enum": list(models), "description": "See /v1/models."}
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


def _answer(of: tuple[str, str], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of an operation's answer: OpenAI's own types, which vLLM's answers fit."""
    model = _ANSWERS[of]()
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


def _file() -> Any:
    from openai.types import FileObject

    return FileObject


def _batch() -> Any:
    from openai.types import Batch

    return Batch


_ANSWERS: Mapping[tuple[str, str], Callable[[], Any]] = {
    ("POST", "/v1/chat/completions"): _chat,
    ("POST", "/v1/completions"): _completion,
    ("POST", "/v1/responses"): _response,
    ("POST", "/v1/embeddings"): _embedding,
    ("POST", "/tokenize"): _tokens,
    ("POST", "/detokenize"): _text,
    ("POST", "/v1/files"): _file,
    ("GET", "/v1/files/{file}"): _file,
    ("POST", "/v1/batches"): _batch,
    ("GET", "/v1/batches/{batch}"): _batch,
    ("POST", "/v1/batches/{batch}/cancel"): _batch,
}
