"""Asking for one line until it has an answer that will not change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp

from serve.keys.key import Key
from serve.offline.call import Answer, ask
from serve.offline.gate import Gate
from serve.offline.lines import Line

_MOST_FAILURES = 3
"""Times that the server may fail on a line before the line is taken to be at fault."""
_PAUSE = 2.0
"""Seconds until asking again where the answer does not say. Longer than it takes to notice that an
engine died: its lines are not at fault, and run when the server was started anew."""
_LONG = 10.0
"""Seconds to wait from which on a batch lets others go before it."""


class KeyHoldsNoMore(Exception):
    """The key of a batch was revoked or has expired, or may not call the endpoint any more."""


class Attempts:
    """Asks for the lines of one batch, within the limits of its key."""

    def __init__(
        self, app: ASGIApp, endpoint: str, gate: Gate, key: Callable[[], Key | None]
    ) -> None:
        """Ask ``app``.

        Args:
            app: the gateway's layers from the body's check on.
            endpoint: the path.
            gate: gives places.
            key: the key as it is now; raises `KeyHoldsNoMore`.
        """
        self._app = app
        self._endpoint = endpoint
        self._gate = gate
        self._key = key
        self._not_before = 0.0
        self.put_off = False
        """Whether it takes long until a line can be asked again: see `allowed`."""

    async def ask(self, line: Line) -> Answer | None:
        """The answer, whichever it is; None if the line is to be asked later.

        Past the key's limits (429), and while the server is overloaded (503), all lines of the
        batch wait. If that takes long, they are all put off. A month's quota that is used up is
        an answer.

        Raises:
            KeyHoldsNoMore: there is no one to charge it to.
        """
        failures = 0
        while not self.put_off:
            await self._pause()
            await self._gate.enter()
            try:
                answer = await ask(self._app, self._endpoint, line.body, self._key())
            finally:
                self._gate.leave()
            if answer.status in (429, 503) and not answer.hopeless:
                wait = answer.wait or _PAUSE
                self._not_before = max(self._not_before, time.monotonic() + wait)
                self.put_off |= wait >= _LONG
            elif answer.status >= 500 and failures + 1 < _MOST_FAILURES:
                failures += 1
                await asyncio.sleep(failures * _PAUSE)
            else:
                return answer
        return None

    async def allowed(self) -> None:
        """Wait until lines that were put off can be asked again."""
        self.put_off = False
        await self._pause()

    async def _pause(self) -> None:
        while not self.put_off and (left := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left)


def result_of(result: str, line: Line, answer: Answer) -> dict[str, Any]:
    """The line of the output or error file, as OpenAI's."""
    return {
        "id": result,
        "custom_id": line.custom_id,
        "response": {
            "status_code": answer.status,
            "request_id": answer.request_id,
            "body": answer.body,
        },
        "error": None,
    }


def not_run(result: str, line: Line) -> dict[str, Any]:
    """Likewise, of a line for which the time was over."""
    return {
        "id": result,
        "custom_id": line.custom_id,
        "response": None,
        "error": {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        },
    }
