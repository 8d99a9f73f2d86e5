"""``/v1/adapters``: what is loaded, and loading, naming and unloading it. For administrators.

GET    /v1/adapters                   the versions, their aliases, the slots
POST   /v1/adapters                   load one: name, path, and if wanted version, alias
POST   /v1/adapters/NAME/alias        let NAME mean a version
POST   /v1/adapters/NAME/rollback     let NAME mean what it meant before
DELETE /v1/adapters/NAME@VERSION      unload, once its requests are done
DELETE /v1/adapters/NAME              remove the alias
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.adapters.names import Version, read_version
from serve.adapters.refusal import AdapterRefused
from serve.adapters.registry import AdapterRegistry, Wanted
from serve.gateway.adapter_requests import AdapterRequests
from serve.gateway.body import is_json
from serve.gateway.errors import send_error, send_json
from serve.gateway.exchange import exchange_of

PREFIX = "/v1/adapters"
_log = logging.getLogger(__name__)


class LoadRequest(BaseModel):
    """An adapter to load."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    name: str
    """What requests will call it."""

    path: str
    """A run directory, or a folder that PEFT saved, relative to the server's adapters_folder."""

    version: int | None = Field(default=None, ge=1, lt=10**9)
    """Its number; the next if not given."""

    unverified: bool = False
    """Load it although no record says that it was trained on this base and template."""

    alias: bool | None = None
    """Whether the name alone is to mean it; not given: if the name means nothing yet."""


class AliasRequest(BaseModel):
    """What an alias is to mean."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    version: int = Field(ge=1, lt=10**9)
    """The version's number."""


_Body = TypeVar("_Body", bound=BaseModel)


class AdaptersRoute:
    """Answers requests below ``/v1/adapters``; passes every other on."""

    def __init__(self, app: ASGIApp, registry: AdapterRegistry, requests: AdapterRequests) -> None:
        self._app = app
        self._registry = registry
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http" or not _is_ours(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            status, body = await self._answer(scope)
        except AdapterRefused as refused:
            exchange_of(scope).rejected = refused.code
            kind = "permission_error" if refused.status == 403 else "invalid_request_error"
            await send_error(
                send,
                refused.status,
                str(refused),
                kind=kind,
                code=refused.code,
                param=refused.param,
            )
        except Exception:
            # The reason may hold paths of this machine, which are the log's to know.
            _log.exception("an adapter could not be changed")
            await send_error(
                send,
                500,
                "the server could not do this; its log says why.",
                kind="server_error",
                code="adapter_error",
            )
        else:
            await send_json(send, status, body)

    async def _answer(self, scope: Scope) -> tuple[int, dict[str, Any]]:
        key = exchange_of(scope).key
        if key is not None and not key.admin:
            raise AdapterRefused(
                403,
                "admin_required",
                "adapters are for administrators; use a key with admin scope.",
            )
        name, _, action = scope["path"].removeprefix(PREFIX).removeprefix("/").partition("/")
        match scope["method"], name, action:
            case "GET", "", "":
                return 200, self._list()
            case "POST", "", "":
                return 201, await self._load(_read(LoadRequest, scope))
            case "POST", _, "alias":
                version = Version(name, _read(AliasRequest, scope).version)
                await self._registry.point(version)
                return 200, self._described(version)
            case "POST", _, "rollback":
                _refuse_other_types(scope)
                return 200, self._described(await self._registry.roll_back(name))
            case "DELETE", _, "" if name:
                return 200, await self._delete(name)
        raise AdapterRefused(
            404, "unknown_url", f"unknown URL: {scope['method']} {scope['path'][:200]}."
        )

    async def _load(self, asked: LoadRequest) -> dict[str, Any]:
        version = await self._registry.load(
            Wanted(asked.name, asked.path, asked.version, asked.unverified, asked.alias)
        )
        return self._described(version)

    async def _delete(self, name: str) -> dict[str, Any]:
        answer = {"id": name, "object": "adapter.deleted", "deleted": True}
        version = read_version(name)
        if version is None:
            await self._registry.drop_alias(name)
            return answer
        ended = await self._registry.unload(version, self._requests.drain)
        return answer | {"requests_ended": ended}

    def _list(self) -> dict[str, Any]:
        registry = self._registry
        served = [self._described(version) for version in registry.state.served()]
        draining = [self._described(version) for version in sorted(registry.draining)]
        slots = {"total": registry.room.slots, "used": len(served) + len(draining)}
        return {"object": "list", "data": [*served, *draining], "slots": slots}

    def _described(self, version: Version) -> dict[str, Any]:
        entry = self._registry.state.names[version.name]
        record = entry.versions[version.number]
        return {
            "id": str(version),
            "object": "adapter",
            "name": version.name,
            "version": version.number,
            "alias": version.name if entry.current == version.number else None,
            "status": "served" if record.served else "draining",
            "base": self._registry.room.base,
            "path": record.path,
            "sha256": record.sha256,
            "rank": record.rank,
            "verified": record.verified,
            "loaded_at": record.loaded_at,
            "requests": self._requests.under_way(version),
        }


def _is_ours(path: str) -> bool:
    return path == PREFIX or path.startswith(PREFIX + "/")


def _read(kind: type[_Body], scope: Scope) -> _Body:
    """The request's body, which `CheckBody` parsed.

    Raises:
        AdapterRefused: it is not what it should be.
    """
    _refuse_other_types(scope)
    try:
        return kind.model_validate(exchange_of(scope).body or {})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, problem["loc"])) or None
        told = f"{field}: {problem['msg']}" if field else problem["msg"]
        fields = ", ".join(kind.model_fields)
        raise AdapterRefused(
            400, "invalid_body", f"{told[:300]}. Fields: {fields}.", param=field and field[:80]
        ) from None


def _refuse_other_types(scope: Scope) -> None:
    """Refuse what a page of another site could send through an administrator's browser."""
    if not is_json(scope):
        raise AdapterRefused(
            400,
            "invalid_content_type",
            "the body must be JSON, uncompressed; send Content-Type: application/json.",
        )
