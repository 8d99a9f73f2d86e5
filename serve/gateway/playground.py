"""The page at ``/``: static files from memory, under a policy that lets nothing else in."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error
from serve.gateway.exchange import exchange_of
from serve.playground import FOLDER, PAGE, Asset, assets

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Only this server's own files and API; no inline code, no text turned into markup."""

_HEADERS = {
    "cache-control": "no-cache",  # keep it, but ask whether it changed
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Playground:
    """Answers for the page and its files; passes every other request on.

    The files hold nothing secret and are sent without a key. What the page then asks of the API
    needs the key that its reader enters.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._assets = assets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        asset = self._assets.get(scope["path"]) if scope["type"] == "http" else None
        if asset is None:
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        exchange.route = PAGE if scope["path"] == PAGE else FOLDER + "{file}"
        if scope["method"] in ("GET", "HEAD"):
            await _send_asset(asset, scope, send)
            return
        exchange.rejected = "method_not_allowed"
        await send_error(
            send,
            405,
            f"{scope['path']} takes GET or HEAD, not {scope['method']}.",
            kind="invalid_request_error",
            code="method_not_allowed",
            headers={"allow": "GET, HEAD"},
        )


async def _send_asset(asset: Asset, scope: Scope, send: Send) -> None:
    known = _is_known(asset.etag, scope)
    headers = {**_HEADERS, "etag": asset.etag}
    if not known:
        headers |= {"content-type": asset.media_type, "content-length": str(len(asset.content))}
    await send(
        {
            "type": "http.response.start",
            "status": 304 if known else 200,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    body = b"" if known or scope["method"] == "HEAD" else asset.content
    await send({"type": "http.response.body", "body": body})


def _is_known(etag: str, scope: Scope) -> bool:
    """Whether the client's copy is this one (``If-None-Match``, RFC 9110, weak comparison)."""
    given = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
    tags = {tag.strip().removeprefix("W/") for tag in given.decode("latin-1").split(",")}
    return etag in tags or "*" in tags
