"""When an answer's tokens went out, noted as the answer passes. Nothing is parsed or held back."""

from __future__ import annotations

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.exchange import exchange_of

_OBJECT, _NAMED = b"data: {", b"event: "
"""How a server-sent event with text starts; ``data: [DONE]`` and comments start otherwise. Only
the responses API names its events, and those with text end in ``.delta``."""
_NAME_ENDS = 80


class Account:
    """Fills in the exchange's token times; its token counts too, where no engine told them.

    The engine's own counts come from `serve.gateway.engine_tokens`. A streamed answer without
    them counts as many tokens as it had events.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note its answer's times."""
        exchange = exchange_of(scope)
        streams = False
        events = 0

        async def note(message: Message) -> None:
            nonlocal streams, events
            if streams:
                body = message.get("body", b"")
                if body.startswith(_OBJECT) or (
                    body.startswith(_NAMED) and b".delta\n" in body[:_NAME_ENDS]
                ):
                    now = perf_counter()
                    if not events:
                        exchange.first_token = now
                    exchange.last_token = now
                    events += 1
            elif message["type"] == "http.response.start":
                streams = _is_event_stream(message)
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            if events and not exchange.completion_tokens:
                exchange.completion_tokens = events


def _is_event_stream(start: Message) -> bool:
    return start["status"] == 200 and any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start["headers"]
    )
