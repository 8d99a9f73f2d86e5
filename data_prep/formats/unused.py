"""Which fields of a record its row was made of, and which ones nothing was made of.

A format has variants, and reads other fields in each: of ``prompt`` and ``question``, the first is
the prompt, and the second is then left aside. So it is told of every record for itself.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.formats.fields import SYSTEM_FIELDS, VERDICT_FIELDS, holds, verdict
from data_prep.formats.preference import is_plain
from data_prep.formats.question_answer import PAIRS, pair_of
from data_prep.formats.sharegpt import read_turn
from data_prep.formats.tool_calls import EMPTY, offered, unused_in_tools

Fields = tuple[str, ...]

_ALPACA_PROMPT = ("instruction", "input", "history", *SYSTEM_FIELDS)

KNOWN_FIELDS = frozenset(
    (
        *(*_ALPACA_PROMPT, *VERDICT_FIELDS, "tools", "functions", "context", "instances", "text"),
        *("conversations", "messages", "prompt", "completion", "chosen", "rejected"),
        *(field for pair in PAIRS for field in pair),
    )
)
"""The fields that some format reads in some variant."""


def used_fields(record: Mapping[str, Any], format_name: str) -> Fields:
    """The fields that a format reads of a record, whether the record has them or not.

    Raises:
        RowError: the record cannot be read.
    """
    match format_name:
        case "alpaca":
            return (*_ALPACA_PROMPT, "output")
        case "sharegpt":
            return ("conversations", *SYSTEM_FIELDS, _tools(record))
        case "openai":
            return ("messages", *SYSTEM_FIELDS, _tools(record))
        case "completion":
            return _of_completion(record)
        case "guanaco":
            return ("input", "output") if "output" in record else ("text",)
        case "dolly":
            return ("instruction", "context", "response", *SYSTEM_FIELDS)
        case "qa":
            return (*(pair_of(record) or PAIRS[0]), "context", *SYSTEM_FIELDS)
        case "self_instruct":
            return ("instruction", "instances")
        case "text":
            return ("text",)
        case "preference":
            return _of_preference(record)
        case "kto":
            return _of_kto(record)
    raise ValueError(format_name)


def _tools(record: Mapping[str, Any]) -> str:
    return offered(record)[0]


def _of_completion(record: Mapping[str, Any]) -> Fields:
    both = ("prompt", "completion")
    if not any(isinstance(record.get(field), list) for field in both):
        return both
    return ("completion", *_stated_prompt(record), _tools(record))


def _stated_prompt(record: Mapping[str, Any]) -> Fields:
    """The fields of the first prompt that a record states."""
    for field in ("prompt", "conversations", "messages"):
        if holds(record, field):
            return (field, *SYSTEM_FIELDS)
    if holds(record, "instruction"):
        return _ALPACA_PROMPT
    return ("question", "context", *SYSTEM_FIELDS)


def _of_preference(record: Mapping[str, Any]) -> Fields:
    answers = ("chosen", "rejected")
    if is_plain(record) and all(isinstance(record.get(field), str) for field in answers):
        return (*answers, "prompt")
    if not _begins_with_prompt(record.get("chosen")):
        return (*answers, *_stated_prompt(record), _tools(record))
    said = [record.get(field) for field in (*answers, "prompt")]
    repeated = (field for field in ("messages", "conversations") if record.get(field) in said)
    return (*answers, "prompt", *repeated, *SYSTEM_FIELDS, _tools(record))


def _begins_with_prompt(answer: object) -> bool:
    first = next(_turns(answer), None)
    return first is not None and read_turn(first).role != "assistant"


def _of_kto(record: Mapping[str, Any]) -> Fields:
    found = verdict(record)
    label = found[0] if found else VERDICT_FIELDS[0]
    if holds(record, "completion"):
        if is_plain(record) and isinstance(record["completion"], str):
            return (label, "prompt", "completion")
        return (label, "completion", *_stated_prompt(record), _tools(record))
    for field in ("messages", "conversations"):
        if holds(record, field):
            return (label, field, *SYSTEM_FIELDS, _tools(record))
    return (label, *_ALPACA_PROMPT, "output", _tools(record))


def unused_fields(record: Mapping[str, Any], format_name: str) -> set[str]:
    """Names of fields that hold something and that a format makes nothing of.

    Raises:
        RowError: the record cannot be read.
    """
    used = used_fields(record, format_name)
    unused = {str(f) for f in record if f not in used and record[f] not in EMPTY}
    for field in (field for field in _TURNS if field in used):
        messages = field == "messages" and format_name in ("openai", "kto")
        for turn in _turns(record.get(field)):
            known = _MESSAGE if messages else _used_of_turn(turn)
            extra = (name for name in turn if name not in known and turn[name] not in EMPTY)
            unused |= {f"{field}[].{name}" for name in extra}
    if any(field in used for field in ("tools", "functions")):
        unused |= {f"{_tools(record)}[].{name}" for name in unused_in_tools(record)}
    return unused


_TURNS = ("conversations", "messages", "prompt", "completion", "chosen", "rejected")
"""Fields that may hold turns."""
_TRAINED = ("train", "weight")
_MESSAGE = ("role", "content", "tool_calls", "function_call", "tool_call_id", *_TRAINED)


def _used_of_turn(turn: Mapping[str, Any]) -> Fields:
    """What `read_turn` reads of a turn."""
    if turn.get("from") is not None or turn.get("role") is None:
        return ("from", "value", "content", *_TRAINED)  # the two say the same
    said = "value" if turn.get("content") is None else "content"
    if turn["role"] in ("function_call", "tool_call"):
        return ("role", said, *_TRAINED)
    return ("role", said, *_MESSAGE)


def _turns(value: object) -> Iterator[Mapping[str, Any]]:
    for turn in value if isinstance(value, list) else [value]:
        if isinstance(turn, Mapping):
            yield turn
