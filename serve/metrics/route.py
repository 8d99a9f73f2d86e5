"""``/metrics``: ours and vLLM's in one exposition."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send


class Merged(Collector):
    """Several registries as one; a family that two of them have is taken from the first."""

    def __init__(self, registries: Sequence[Collector]) -> None:
        self._registries = registries

    def collect(self) -> Iterable[Metric]:
        """Every family once: Prometheus rejects a whole exposition over one that comes twice."""
        seen: set[str] = set()
        for registry in self._registries:
            for family in registry.collect():
                if family.name not in seen:
                    seen.add(family.name)
                    yield family


class MetricsRoute:
    """Answers ``/metrics``; passes every other request on."""

    def __init__(self, app: ASGIApp, registries: Sequence[Collector]) -> None:
        self._app = app
        self._merged = Merged(registries)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["path"] != "/metrics":
            await self._app(scope, receive, send)
            return
        # Some milliseconds of work: streams go on meanwhile.
        content = await asyncio.to_thread(generate_latest, self._merged)
        headers = [
            (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()),
            (b"content-length", str(len(content)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})
