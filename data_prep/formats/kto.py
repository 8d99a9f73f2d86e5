"""KTO: a prompt, one answer, and whether that is a good one."""

from collections.abc import Mapping
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.alpaca import alpaca_prompt
from data_prep.formats.fields import VERDICT_FIELDS, holds, objects, system, text, verdict
from data_prep.formats.openai import read_message
from data_prep.formats.preference import (
    as_turns,
    is_plain,
    read_answer,
    stated_prompt,
    with_tools,
    written,
)
from data_prep.formats.refusals import wrong_kind
from data_prep.formats.sharegpt import read_turn
from data_prep.formats.tool_calls import tools, with_call_ids
from data_prep.rows import Labelled, Message, Row


def kto(record: Mapping[str, Any]) -> Labelled:
    """An answer with ``label``: true for a good one, false for a bad one.

    The answer is in ``completion``, text or turns, with ``prompt`` before it; or it is the last
    turn of ``messages`` or ``conversations``; or the ``output`` of an ``instruction``.
    """
    label = _label(record)
    if holds(record, "completion"):
        return _of_completion(record, label)
    turns = with_call_ids(_conversation(record))
    if not turns or turns[-1].role != "assistant":
        last = repr(turns[-1].role) if turns else "nothing"
        raise RowError("no assistant turn", f"the last turn is labelled, and it is {last}")
    return Labelled(turns[:-1], turns[-1:], label, tools(record))


def _label(record: Mapping[str, Any]) -> bool:
    found = verdict(record)
    if found is not None:
        return found[1]
    field = next((name for name in VERDICT_FIELDS if holds(record, name)), None)
    if field is None:
        raise RowError("missing field", "'label': whether the answer is a good one")
    value = record[field]
    raise RowError("wrong field", f"{field!r} wants true or false, found {value!r}")


def _of_completion(record: Mapping[str, Any], label: bool) -> Labelled:  # noqa: FBT001
    answer = read_answer(record, "completion")
    if is_plain(record) and isinstance(answer, str):
        return Labelled(text(record, "prompt"), answer, label)
    prompt = stated_prompt(record)
    if prompt is None:
        raise RowError("missing field", "'prompt': what the completion answers")
    turns = with_call_ids((*prompt, *as_turns(answer)))
    return Labelled(turns[: len(prompt)], turns[len(prompt) :], label, tools(record))


def _conversation(record: Mapping[str, Any]) -> list[Message]:
    """The turns of a record that are all of one conversation, the labelled answer last."""
    if holds(record, "messages"):
        return [*system(record), *map(read_message, objects(record, "messages"))]
    if holds(record, "conversations"):
        return [*system(record), *map(read_turn, objects(record, "conversations"))]
    if holds(record, "instruction"):
        return [*alpaca_prompt(record), Message("assistant", text(record, "output"))]
    raise RowError("missing field", "'completion', 'messages', 'conversations' or 'instruction'")


def write_kto(row: Row) -> dict[str, Any]:
    """``prompt`` and ``completion``, text or lists of OpenAI messages; ``label``; ``tools``."""
    if not isinstance(row, Labelled):
        raise wrong_kind(row, "kto")
    record = {"prompt": written(row.prompt), "completion": written(row.completion)}
    return with_tools({**record, "label": row.label}, row.tools)
