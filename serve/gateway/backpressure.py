"""A bounded queue in front of the engine, fair between keys.

    request ──► a place at the engine free? ──► engine
                     │ no
                     ▼
            queue of its key (all queues together hold max_queue) ──► 429 when full
                     │ the keys take turns                            503 after queue_seconds
                     ▼
                  engine

The engine would queue for ever, and in order of arrival: one client's thousand requests would keep
everybody else waiting. Requests of low priority (of batches) get a place when no other waits,
however long that takes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.errors import send_error
from serve.gateway.exchange import Exchange, exchange_of

GENERATING = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"}
)
"""Routes whose requests take a place in the engine's batch."""
_RETRY_AFTER = "2"


class Backpressure:
    """Lets so many requests at once through to the engine; the others wait, or are refused."""

    def __init__(
        self, app: ASGIApp, max_running: int, max_queue: int, queue_seconds: float
    ) -> None:
        """Stand before ``app``.

        Args:
            app: the engine's side.
            max_running: requests that may be there at once.
            max_queue: requests that may wait.
            queue_seconds: how long one may wait.
        """
        self._app = app
        self._free = max_running
        self._max_queue = max_queue
        self._seconds = queue_seconds
        self._turns, self._low_turns = Turns(), Turns()
        self.interactive = 0
        """Requests in the queue or at the engine that are not of low priority."""

    @property
    def waiting(self) -> int:
        """Requests in the queue that are not of low priority."""
        return self._turns.waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on when there is a place for it."""
        if scope["path"] not in GENERATING:
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        low = exchange.priority > 0
        self.interactive += not low
        try:
            await self._pass(exchange, scope, receive, send)
        finally:
            self.interactive -= not low

    async def _pass(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        if self._free > 0:
            self._free -= 1
        else:
            if exchange.priority == 0 and self._turns.waiting >= self._max_queue:
                await send_overloaded(
                    exchange,
                    send,
                    429,
                    f"{self._max_queue} requests wait already; the queue is full.",
                )
                return
            waited = await self._wait(exchange, receive, send)
            if waited is None:
                return
            receive = waited
        try:
            await self._app(scope, receive, send)
        finally:
            self._leave()

    async def _wait(self, exchange: Exchange, receive: Receive, send: Send) -> Receive | None:
        """Wait for a place; what to receive from then on, or None if none was given."""
        began = perf_counter()
        low = exchange.priority > 0
        turns, seconds = (self._low_turns, None) if low else (self._turns, self._seconds)
        turn = turns.take(exchange.key.id if exchange.key else None)
        request = _Watched(receive)
        left = asyncio.ensure_future(request.disconnected())
        try:
            await asyncio.wait([turn, left], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            gone = left.done() and not left.cancelled()
            await request.stop(left)
        except BaseException:
            left.cancel()
            self._give_up(turn, turns)
            raise
        finally:
            exchange.queued = perf_counter() - began
        if turn.done() and not gone:
            return request.receive
        self._give_up(turn, turns)
        if not gone:
            await send_overloaded(
                exchange, send, 503, f"the request waited {self._seconds:g} s for its turn."
            )
        return None

    def _give_up(self, turn: asyncio.Future[None], turns: Turns) -> None:
        if turn.done() and not turn.cancelled():
            self._leave()
        else:
            turns.drop(turn)

    def _leave(self) -> None:
        """Hand the place to whose turn it is."""
        if not (self._turns.next() or self._low_turns.next()):
            self._free += 1


async def send_overloaded(
    exchange: Exchange,
    send: Send,
    status: int,
    why: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Refuse a request that is in order, for which there is no room.

    Args:
        exchange: the request.
        send: to its client.
        status: 429 for one that was not taken on, 503 for one that was and could not be done.
        why: what there is too much of.
        headers: what to send beside Retry-After.
    """
    exchange.rejected = "server_overloaded"
    await send_error(
        send,
        status,
        f"the server is overloaded: {why} Try again a little later, or send fewer at once.",
        kind="rate_limit_error" if status == 429 else "server_error",
        code="server_overloaded",
        headers={"retry-after": _RETRY_AFTER, **(headers or {})},
    )


class Turns:
    """Who waits, by key; the keys take turns, each in order of arrival."""

    def __init__(self) -> None:
        self._queues: dict[str | None, deque[asyncio.Future[None]]] = {}
        self._order: deque[str | None] = deque()
        self.waiting = 0
        """How many wait."""

    def take(self, key: str | None) -> asyncio.Future[None]:
        """A turn to wait for: done when it has come."""
        turn = asyncio.get_running_loop().create_future()
        if key not in self._queues:
            self._queues[key] = deque()
            self._order.append(key)
        self._queues[key].append(turn)
        self.waiting += 1
        return turn

    def drop(self, turn: asyncio.Future[None]) -> None:
        """Wait no longer."""
        for key, queue in self._queues.items():
            if turn in queue:
                queue.remove(turn)
                self.waiting -= 1
                if not queue:
                    del self._queues[key]
                    self._order.remove(key)
                return

    def next(self) -> bool:
        """Call the next one; False if no one waits."""
        if not self._order:
            return False
        key = self._order.popleft()
        queue = self._queues[key]
        turn = queue.popleft()
        self.waiting -= 1
        if queue:
            self._order.append(key)
        else:
            del self._queues[key]
        turn.set_result(None)
        return True


class _Watched:
    """A ``receive`` that notices a client that leaves, without losing what it sent."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()

    async def disconnected(self) -> None:
        """Return when the client has left. The request's body is kept for `receive`."""
        while True:
            message = await self._receive()
            self._kept.append(message)
            if message["type"] == "http.disconnect":
                return

    async def stop(self, watching: asyncio.Future[None]) -> None:
        """End `disconnected`; nothing that it received is lost."""
        watching.cancel()
        await asyncio.wait([watching])

    async def receive(self) -> Message:
        """What was kept, then what comes."""
        return self._kept.popleft() if self._kept else await self._receive()
