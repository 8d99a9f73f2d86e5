"""Teachers that are ready to be asked: at an endpoint, or an engine in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import openai

from data_prep.generate.endpoint import Endpoint
from data_prep.generate.journal import Journal
from data_prep.generate.settings import TeacherConfig
from data_prep.generate.teacher import JournalTeacher
from llmkit.errors import UsageError
from serve.settings import ServeSettings

Progress = Callable[[str, int], None]
Say = Callable[[str], None]


@asynccontextmanager
async def open_teacher(
    config: TeacherConfig,
    journal: Journal,
    serve: ServeSettings | None,
    progress: Progress,
    say: Say,
) -> AsyncIterator[JournalTeacher]:
    """A teacher that answers until the block ends, and then finishes the calls under way.

    Raises:
        UsageError: the variable that holds the key is not set, or there is no such model.
        EngineFailed: the model could not be loaded.
    """
    async with AsyncExitStack() as stack:
        asked = config
        if config.base_url is None:
            client, name = await stack.enter_async_context(_engine_client(config, serve, say))
            asked = config.model_copy(update={"model": name})
        else:
            client = await stack.enter_async_context(_endpoint_client(config))
        endpoint = Endpoint(client, asked, say)
        teacher = JournalTeacher(endpoint, journal, config, progress)
        yield await stack.enter_async_context(teacher)


def _endpoint_client(config: TeacherConfig) -> openai.AsyncOpenAI:
    key = os.environ.get(config.api_key_env)
    if not key:
        if config.api_key_env != TeacherConfig.model_fields["api_key_env"].default:
            raise UsageError(
                f"teacher.api_key_env: the variable {config.api_key_env} is not set. Put the "
                f"endpoint's key there: export {config.api_key_env}=..."
            )
        key = "none"  # endpoints on this machine mostly want none
    most = config.limits.concurrency
    return openai.AsyncOpenAI(
        base_url=config.base_url,
        api_key=key,
        timeout=config.limits.timeout,
        max_retries=0,
        http_client=openai.DefaultAioHttpClient(  # half the CPU time of the other one
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            timeout=config.limits.timeout,
        ),
    )


@asynccontextmanager
async def _engine_client(
    config: TeacherConfig, serve: ServeSettings | None, say: Say
) -> AsyncIterator[tuple[openai.AsyncOpenAI, str]]:
    """A client of an engine that is loaded here, and the name that its model has there.

    It is the same API, without a server or a network.
    """
    from llmkit.serving import plain_model
    from serve.device import choose_device
    from serve.vllm_app import start_engine

    settings = serve or ServeSettings(log_level="warning")
    model = plain_model(config.model)
    say(f"loading {config.model} ...")
    engine = await asyncio.to_thread(start_engine, model, settings, choose_device(settings.device))
    try:
        async with engine.app() as ready:
            transport = httpx2.ASGITransport(app=ready.app)
            async with openai.AsyncOpenAI(
                base_url="http://engine/v1",
                api_key="none",
                max_retries=0,
                timeout=config.limits.timeout,
                http_client=httpx2.AsyncClient(transport=transport, timeout=config.limits.timeout),
            ) as client:
                yield client, model.name
    finally:
        await asyncio.to_thread(engine.shutdown)
