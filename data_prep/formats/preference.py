"""Preference: a prompt, stated or implied, with a better and a worse answer.

The answers are text or turns. Where the prompt is not stated, or turns repeat it, it is what both
answers begin with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.alpaca import alpaca_prompt, asked
from data_prep.formats.fields import (
    SYSTEM_FIELDS,
    holds,
    kind,
    objects,
    optional_text,
    system,
    text,
)
from data_prep.formats.openai import write_message
from data_prep.formats.refusals import wrong_kind
from data_prep.formats.sharegpt import read_turn
from data_prep.formats.tool_calls import tools, with_call_ids
from data_prep.rows import Message, Preference, Row, Said

Turns = tuple[Message, ...]


def preference(record: Mapping[str, Any]) -> Preference:
    """``chosen`` and ``rejected``, each text, a turn or a list of turns.

    The prompt is in ``prompt`` (text or turns), ``conversations``, ``messages``, ``instruction``
    with ``input``, or ``question``; or both answers begin with it. All of it as plain text is a
    row without a chat template; ``system`` makes turns of it.
    """
    chosen, rejected = read_answer(record, "chosen"), read_answer(record, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowError("wrong field", "one of 'chosen' and 'rejected' is text, the other is turns")
    if is_plain(record) and isinstance(chosen, str) and isinstance(rejected, str):
        return _of_texts(record, chosen, rejected)
    return _of_turns(record, as_turns(chosen), as_turns(rejected))


def is_plain(record: Mapping[str, Any]) -> bool:
    """Whether a record's prompt is plain text or not stated, not something with turns."""
    others = any(holds(record, field) for field in (*_PROMPT_FIELDS, *SYSTEM_FIELDS))
    return not others and isinstance(record.get("prompt"), str | None)


_PROMPT_FIELDS = ("conversations", "messages", "instruction", "question")


def read_answer(record: Mapping[str, Any], field: str) -> Said:
    """An answer as it stands: text, or the turns in it, calls without ids."""
    value = record.get(field)
    if isinstance(value, Mapping):
        return (read_turn(value),)
    if isinstance(value, list):
        return tuple(map(read_turn, objects(record, field)))
    if value is not None and not isinstance(value, str):
        raise RowError("wrong field", f"{field!r} wants text or turns, found {kind(value)}")
    return text(record, field)


def as_turns(answer: Said) -> Turns:
    """An answer as turns: text is one turn of the assistant."""
    return (Message("assistant", answer),) if isinstance(answer, str) else answer


def stated_prompt(record: Mapping[str, Any]) -> Turns | None:
    """The turns that a record gives as its prompt; None where it gives none."""
    if holds(record, "prompt"):
        prompt = read_answer(record, "prompt")
        turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        return (*system(record), *turns)
    for field in ("conversations", "messages"):
        if holds(record, field):
            return (*system(record), *map(read_turn, objects(record, field)))
    if holds(record, "instruction"):
        return alpaca_prompt(record)
    if holds(record, "question"):
        question = asked(text(record, "question"), optional_text(record, "context"))
        return (*system(record), question)
    return None


def _of_texts(record: Mapping[str, Any], chosen: str, rejected: str) -> Preference:
    if holds(record, "prompt"):
        return Preference(text(record, "prompt"), chosen, rejected)
    end = _end_of_common_words(chosen, rejected)
    return Preference(chosen[:end], chosen[end:], rejected[end:])


def _end_of_common_words(one: str, other: str) -> int:
    """How many characters two texts begin with in common, up to where a word ends.

    A prompt that ended inside a word would be other tokens than the same text whole. A space
    before the first different word belongs to the answers, as tokenizers join the two.

    Raises:
        RowError: the texts are equal.
    """
    if one == other:
        raise RowError("equal answers", "'chosen' says the same as 'rejected': neither is better")
    most = max(0, min(len(one), len(other)) - 1)
    end = next((i for i in range(most) if one[i] != other[i]), most)
    while end > 0 and not (one[end - 1].isspace() or ord(one[end - 1]) >= _WITHOUT_SPACES):
        end -= 1
    return end - 1 if end > 0 and one[end - 1] == " " else end


_WITHOUT_SPACES = 0x2E80
"""From here on come the scripts whose words no spaces part: Chinese, Japanese."""


def _of_turns(record: Mapping[str, Any], chosen: Turns, rejected: Turns) -> Preference:
    repeats = [bool(turns) and turns[0].role != "assistant" for turns in (chosen, rejected)]
    if all(repeats):
        end = _end_of_prompt(record, chosen, rejected)
        prompt = (*system(record), *chosen[:end])
        chosen, rejected = chosen[end:], rejected[end:]
    elif any(repeats):
        raise RowError(
            "wrong field", "one of 'chosen' and 'rejected' begins with the prompt, the other not"
        )
    else:
        found = stated_prompt(record)
        if found is None:
            raise RowError("missing field", "'prompt': the answers do not begin with it either")
        prompt = found
    return Preference(
        with_call_ids(prompt),
        with_call_ids((*prompt, *chosen))[len(prompt) :],
        with_call_ids((*prompt, *rejected))[len(prompt) :],
        tools(record),
    )


def _end_of_prompt(record: Mapping[str, Any], chosen: Turns, rejected: Turns) -> int:
    """How many turns of two conversations are their prompt: the last before an answer of each.

    Raises:
        RowError: they begin differently, or not with the prompt that is stated beside them.
    """
    most = min(len(chosen), len(rejected)) - 1
    end = next((i for i in range(most) if not _equal(chosen[i : i + 1], rejected[i : i + 1])), most)
    while end and not chosen[end].role == rejected[end].role == "assistant":
        end -= 1
    if not end:
        raise RowError("empty prompt", "'chosen' and 'rejected' do not begin with the same turns")
    stated = record.get("prompt")
    if isinstance(stated, str):
        if all(turn.content.strip() != stated.strip() for turn in chosen[:end]):
            raise RowError("wrong field", "'prompt' is not what a turn before the answers says")
    elif stated is not None:
        turns = read_answer(record, "prompt")
        length = len(turns)
        if not _equal(as_turns(turns), chosen[:length]) or length > end:
            raise RowError("wrong field", "'chosen' and 'rejected' do not begin with 'prompt'")
        return length
    return end


def _equal(some: Sequence[Message], others: Sequence[Message]) -> bool:
    """Whether turns are the same; whether they are trained does not count in a prompt."""
    return [replace(m, train=True) for m in some] == [replace(m, train=True) for m in others]


def write_preference(row: Row) -> dict[str, Any]:
    """``prompt``, ``chosen`` and ``rejected``: text, or lists of OpenAI messages; ``tools``."""
    if not isinstance(row, Preference):
        raise wrong_kind(row, "preference")
    sides = {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
    return with_tools({name: written(said) for name, said in sides.items()}, row.tools)


def written(said: Said) -> str | list[dict[str, Any]]:
    """Text as it is, turns as OpenAI messages."""
    return said if isinstance(said, str) else [write_message(turn) for turn in said]


def with_tools(record: dict[str, Any], offered: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    """The record with the tools it offers, if any."""
    return record | {"tools": [dict(tool) for tool in offered]} if offered else record
