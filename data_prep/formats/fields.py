"""Fields of a record, taken out with an error that says what is wrong with them."""

import json
from collections.abc import Mapping
from math import isnan
from typing import Any

from data_prep import strict_json
from data_prep.errors import RowError
from data_prep.rows import Message


def text(record: Mapping[str, Any], field: str) -> str:
    """A field that must hold text.

    Raises:
        RowError: it is missing, null, or holds something else.
    """
    value = record.get(field)
    if value is None and field in record:
        raise RowError("missing field", f"{field!r} is null")
    if value is None:
        fields = ", ".join(map(str, record)) or "none"
        raise RowError("missing field", f"{field!r}; the row has: {fields}")
    if not isinstance(value, str):
        raise RowError("wrong field", f"{field!r} wants text, found {kind(value)}")
    return value


def optional_text(record: Mapping[str, Any], field: str) -> str:
    """A field that may be missing or null, and then counts as empty."""
    return "" if record.get(field) is None else text(record, field)


def system(record: Mapping[str, Any]) -> list[Message]:
    """The system message that a record keeps in a field of its own, if there is one.

    Raises:
        RowError: it keeps two.
    """
    said = {text for field in SYSTEM_FIELDS if (text := optional_text(record, field))}
    if len(said) > 1:
        raise RowError("wrong field", "'system' and 'system_prompt' say different things")
    return [Message("system", each) for each in said]


SYSTEM_FIELDS = ("system", "system_prompt")
"""What data sets call the field of a system message."""


def objects(record: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """A field that must hold a list of objects: the turns of a conversation."""
    value = record.get(field)
    if not isinstance(value, list):
        hint = "; if it is JSON, write the list itself instead" if isinstance(value, str) else ""
        raise RowError(
            "wrong field", f"{field!r} wants a list of objects, found {kind(value)}{hint}"
        )
    for number, item in enumerate(value, 1):
        if not isinstance(item, Mapping):
            raise RowError(
                "wrong field",
                f"{field!r} wants a list of objects, found {kind(item)} as number {number}",
            )
    return value


def json_or(written: str, problem: str) -> Any:
    """What JSON text stands for.

    Raises:
        RowError: it is not JSON; the message begins with the problem.
    """
    try:
        return strict_json.loads(written)
    except (ValueError, RecursionError) as error:
        raise RowError("wrong field", f"{problem}: {error}") from None


def as_json(value: Any) -> str:
    """A value as JSON text.

    Raises:
        RowError: it holds what JSON cannot.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError("cannot be written as JSON", str(error)) from None


def holds(record: Mapping[str, Any], *fields: str) -> bool:
    """Whether each of the fields is there and not null."""
    return all(record.get(field) is not None for field in fields)


def kind(value: object) -> str:
    """What a value is, as an error names it."""
    name = strict_json.json_kind(value)
    empty = isinstance(value, float) and isnan(value)
    return f"{name} (NaN: an empty cell of a table?)" if empty else name


_VERDICTS = {
    **dict.fromkeys(("true", "1", "1.0", "desirable", "chosen"), True),
    **dict.fromkeys(("false", "0", "0.0", "undesirable", "rejected"), False),
}
"""Labels that say whether an answer is good; another ``label`` is somebody's category."""
VERDICT_FIELDS = ("label", "kto_tag")


def verdict(record: Mapping[str, Any]) -> tuple[str, bool] | None:
    """The field that says whether a record's answer is good, and what it says."""
    for field in VERDICT_FIELDS:
        said = _VERDICTS.get(str(record.get(field)).lower())
        if said is not None:
            return field, said
    return None


FOR_PREFERENCES = (
    "chosen/rejected or label: such rows are for preference training: training.method=dpo, orpo or "
    "reward learns from chosen/rejected, kto from a label; sft, pretrain and distill would teach "
    "every answer as a good one"
)
"""What is said of a row that tells good answers from bad where every answer would be taught."""
