"""Answers that are data: asked for with a schema, mended where they nearly fit, or asked again."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from json import JSONDecoder
from typing import Any, TypeVar

from json_repair import repair_json
from pydantic import BaseModel

from data_prep.generate.asking import Ask, Teacher, seed_of

Answer = TypeVar("Answer", bound=BaseModel)

ATTEMPTS = 3
"""How often a question is asked before it counts as unanswered."""


@cache
def schema_of(model: type[BaseModel]) -> Mapping[str, Any]:
    """The JSON schema of an answer, as servers enforce it: every field there, and no others."""
    schema = model.model_json_schema()
    schema["required"] = sorted(schema["properties"])
    schema["additionalProperties"] = False
    return schema


async def ask_for(teacher: Teacher, ask: Ask, model: type[Answer]) -> Answer | None:
    """Ask until the answer fits.

    Args:
        teacher: who is asked.
        ask: the question, which says in words too what is wanted; its schema is set here.
        model: what the answer must fit.

    Returns:
        The answer; None when none of `ATTEMPTS` could be read, or the endpoint refused.
    """
    ask = replace(ask, schema=schema_of(model))
    for attempt in range(ATTEMPTS):
        seed = ask.seed if not attempt else seed_of(ask.seed, attempt)
        reply = await teacher.ask(replace(ask, seed=seed))
        if reply.finish_reason == "refused":
            return None
        found = parse(reply.text, model)
        if found is not None:
            return found
    return None


def parse(text: str, model: type[Answer]) -> Answer | None:
    """Read an answer: the first object in it, amid words or in a fence, with slips mended."""
    start = text.find("{")
    if start < 0:
        return None
    for read in (_first_object, repair_json):
        try:
            return model.model_validate_json(read(text[start : start + _MOST]))
        except (ValueError, RecursionError):  # pydantic's are of the first kind too
            continue
    return None


_MOST = 2_000
"""Characters of an answer that are read: no answer to a schema here is longer."""


def _first_object(text: str) -> str:
    _, end = JSONDecoder().raw_decode(text)
    return text[:end]
