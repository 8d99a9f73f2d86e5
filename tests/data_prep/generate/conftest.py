"""A scripted teacher, and what asks it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import openai
import pytest
from scripted_teacher import ScriptedTeacher, serving

from data_prep.generate.endpoint import Endpoint
from data_prep.generate.journal import Journal
from data_prep.generate.settings import TeacherConfig
from data_prep.generate.teacher import JournalTeacher

Open = Callable[..., AbstractAsyncContextManager[JournalTeacher]]


@pytest.fixture
def open_teacher(tmp_path: Path) -> Open:
    """Opens a teacher that asks a scripted one; `limits` and other settings by name."""

    @asynccontextmanager
    async def opened(
        scripted: ScriptedTeacher, journal: Path | None = None, **settings: object
    ) -> AsyncIterator[JournalTeacher]:
        with serving(scripted) as url, Journal(journal or tmp_path / "journal.jsonl") as kept:
            config = TeacherConfig.model_validate({"model": "m", "base_url": url} | settings)
            timeout = config.limits.timeout
            client = openai.AsyncOpenAI(
                base_url=url, api_key="none", max_retries=0, timeout=timeout
            )
            async with client, JournalTeacher(Endpoint(client, config), kept, config) as teacher:
                yield teacher

    return opened
