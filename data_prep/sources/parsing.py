"""RawRecord -> Record: pure, so that worker processes can do it."""

import json

from data_prep.sources.blocks import not_utf8
from data_prep.sources.records import BadRecord, RawRecord, Record
from data_prep.strict_json import find_problem, json_kind, parse


def parse_record(raw: RawRecord) -> Record | BadRecord:
    """Make a record of what a scan found; what cannot be one is answered, never raised."""
    where, content, kind = raw
    if kind == "value":
        return Record(where, content)
    if kind == "problem":
        return BadRecord(where, content)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return BadRecord(where, not_utf8(error, f" at byte {error.start}"))
    return _json_record(where, text) if kind == "json" else _text_record(where, text)


def _json_record(where: str, text: str) -> Record | BadRecord:
    try:
        value, suspect = parse(text)
    except json.JSONDecodeError as error:
        hint = _OVER_LINES if text.strip() in ("[", "{") else ""
        return BadRecord(where, f"not JSON: {error.msg} (column {error.colno}){hint}")
    except (ValueError, RecursionError) as error:
        return BadRecord(where, f"not JSON: {error}")
    problem = json_problem(value, suspect=suspect)
    if problem and isinstance(value, list):
        problem += _ARRAY
    return BadRecord(where, problem) if problem else Record(where, value)


_OVER_LINES = "; a file that is one value over many lines wants the ending .json"
_ARRAY = "; a file that is one array wants the ending .json"


def json_problem(value: object, *, suspect: bool) -> str | None:
    """Why a parsed JSON value is no record; None when it is one."""
    problem = find_problem(value) if suspect else None
    if problem:
        return f"not JSON: {problem.text}"
    return None if isinstance(value, dict) else f"not a JSON object but {json_kind(value)}"


def _text_record(where: str, text: str) -> Record | BadRecord:
    if "\0" in text:
        return BadRecord(where, f"not text: a NUL character at character {text.index(chr(0))}")
    return Record(where, {"text": text})
