"""The server's own description of itself."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.types import Message

from serve.gateway.exchange import Exchange, with_exchange
from serve.gateway.openapi import OpenApiRoute, document
from serve.gateway.routes import ROUTES
from serve.keys.key import Key
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

BOUNDS = Bounds(lambda: ["base", "support@3"], max_model_len=512, vocabulary=1000)
SETTINGS = ServeSettings(max_choices=8, adapters_folder=Path("a"), batches_folder=Path("b"))
DOCUMENT = document(BOUNDS, SETTINGS, models=BOUNDS.models(), locked=True)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_every_reference_leads_somewhere_in_the_document() -> None:
    references = {node["$ref"] for node in nodes(DOCUMENT) if "$ref" in node}
    assert references
    for reference in references:
        node: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    assert not [node for node in nodes(DOCUMENT) if "$defs" in node]


def test_every_route_that_is_offered_is_described() -> None:
    assert set(DOCUMENT["paths"]) == set(ROUTES) - {"/v1/embeddings"}
    for route, methods in DOCUMENT["paths"].items():
        assert set(methods) == {method.lower() for method in ROUTES[route]}


def test_what_is_off_is_not_described() -> None:
    paths = document(BOUNDS, ServeSettings(), models=BOUNDS.models(), locked=True)["paths"]
    off = {route for route in ROUTES if route.startswith(("/v1/adapters", "/v1/files"))}
    off |= {route for route in ROUTES if route.startswith("/v1/batches")}
    assert set(DOCUMENT["paths"]) - set(paths) == off


def test_every_post_says_what_it_takes() -> None:
    silent = {
        route
        for route, methods in DOCUMENT["paths"].items()
        if "post" in methods and "requestBody" not in methods["post"]
    }
    assert silent == {"/v1/adapters/{name}/rollback", "/v1/batches/{batch}/cancel"}
    assert "201" in DOCUMENT["paths"]["/v1/adapters"]["post"]["responses"]
    assert "requestBody" not in DOCUMENT["paths"]["/v1/adapters"]["get"]


def test_a_model_that_only_embeds_has_other_routes() -> None:
    bounds = Bounds(lambda: ["e"], max_model_len=8, vocabulary=9, tasks=("embed",))
    paths = document(bounds, ServeSettings(), models=bounds.models(), locked=True)["paths"]
    assert "/v1/embeddings" in paths
    assert "/v1/chat/completions" not in paths


def test_the_engines_facts_are_in_it() -> None:
    chat = DOCUMENT["components"]["schemas"]["ChatRequest"]
    assert chat["properties"]["model"]["enum"] == ["base", "support@3"]
    assert 512 in [node.get("maximum") for node in nodes(chat["properties"]["max_tokens"])]
    assert 8 in [node.get("maximum") for node in nodes(chat["properties"]["n"])]
    assert chat["additionalProperties"] is False
    ids = [node for node in nodes(DOCUMENT) if node.get("format") == "token-id"]
    assert {node["maximum"] for node in ids} == {999}


def test_only_liveness_and_readiness_are_open() -> None:
    assert DOCUMENT["security"] == [{"key": []}]
    unlocked = {
        route
        for route, methods in DOCUMENT["paths"].items()
        for operation in methods.values()
        if operation.get("security") == []
    }
    assert unlocked == {"/health", "/ready"}
    assert document(BOUNDS, ServeSettings(), models=BOUNDS.models(), locked=False)["security"] == []


def test_a_key_is_told_the_models_that_it_may_use() -> None:
    async def nobody(*_: object) -> None:
        raise AssertionError

    def asked(key: Key | None) -> list[str]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "path": "/openapi.json", "headers": []}
        asyncio.run(route(with_exchange(scope, Exchange(key=key)), nobody, send))
        made = json.loads(sent[1]["body"])["components"]["schemas"]
        names: list[str] = made["ChatRequest"]["properties"]["model"]["enum"]
        return names

    route = OpenApiRoute(nobody, BOUNDS, SETTINGS)
    assert asked(None) == ["base", "support@3"]
    assert asked(Key("a", "ann", models=("base",))) == ["base"]
    assert asked(Key("b", "bob")) == ["base", "support@3"]
