"""How adapters get into vLLM's engine and out of it, with a client that only notes."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve.adapters.refusal import AdapterRefused
from serve.errors import EngineFailed
from serve.vllm_app import _LoadedAdapters

pytest.importorskip("vllm")


class NotingClient:
    """A client of an engine in which an adapter may come back after it was removed."""

    def __init__(self, returns: int = 0, refuses: bool = False) -> None:
        self.inside: dict[int, str] = {}
        self.added: list[Any] = []
        self.removals = 0
        self.errored = False
        self._returns, self._refuses = returns, refuses

    async def add_lora(self, request: Any) -> bool:
        self.added.append(request)
        self.inside[request.lora_int_id] = request.lora_path
        if self._refuses:
            raise RuntimeError(f"cannot load {request.lora_path}")
        return True

    async def remove_lora(self, lora_id: int) -> bool:
        self.removals += 1
        if self._returns:
            self._returns -= 1
            return True
        return self.inside.pop(lora_id, None) is not None

    async def list_loras(self) -> set[int]:
        return set(self.inside)


def loaded(client: NotingClient) -> tuple[_LoadedAdapters, dict[str, Any]]:
    from vllm.utils.counter import AtomicCounter

    models = SimpleNamespace(lora_requests={}, lora_id_counter=AtomicCounter(0))
    return _LoadedAdapters(client, models), models.lora_requests  # type: ignore[arg-type]


def test_every_load_has_an_id_of_its_own() -> None:
    async def scenario() -> None:
        client = NotingClient()
        adapters, named = loaded(client)
        for _ in range(3):
            await adapters.load("a@1", Path("/store/x"))
            assert named["a@1"].lora_path == "/store/x"
            await adapters.unload("a@1")
        assert [request.lora_int_id for request in client.added] == [1, 2, 3]
        assert (client.inside, named) == ({}, {})

    asyncio.run(scenario())


def test_an_adapter_that_a_last_step_loads_again_is_removed_again() -> None:
    async def scenario() -> None:
        client = NotingClient(returns=2)
        adapters, _ = loaded(client)
        await adapters.load("a@1", Path("/store/x"))
        await adapters.unload("a@1")
        assert (client.inside, client.removals) == ({}, 3)

    asyncio.run(scenario())


def test_a_refused_adapter_leaves_no_name_no_slot_and_no_path() -> None:
    async def scenario() -> None:
        client = NotingClient(refuses=True)
        adapters, named = loaded(client)
        with pytest.raises(AdapterRefused) as caught:
            await adapters.load("a@1", Path("/store/x"))
        assert "/store" not in str(caught.value)
        assert (client.inside, named) == ({}, {})
        client.errored = True
        with pytest.raises(EngineFailed):
            await adapters.load("a@1", Path("/store/x"))

    asyncio.run(scenario())


def test_prefixes_of_adapters_are_told_apart_by_name_and_folder() -> None:
    """What copies in folders named by their content rest on; see `serve.adapters.store`."""
    from vllm.lora.request import LoRARequest
    from vllm.v1.core.kv_cache_utils import _gen_lora_extra_hash_keys

    def key(name: str, number: int, path: str) -> Any:
        request: Any = SimpleNamespace(lora_request=LoRARequest(name, number, path))
        return _gen_lora_extra_hash_keys(request)

    assert key("a@1", 1, "/x") != key("a@1", 1, "/y")
    assert key("a@1", 1, "/x") != key("a@2", 1, "/x")
