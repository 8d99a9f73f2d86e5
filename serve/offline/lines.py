"""The lines of a batch's input file: read within bounds, and checked before any is run."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from serve.keys.key import Key
from serve.offline.records import LineProblem

_AROUND = 4096
"""Bytes of a line beside the request's body."""
_MOST_PROBLEMS = 100
"""Problems that are reported; after so many it is clear that the file is another kind of file."""
_LONGEST_ID = 512
_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True)
class Line:
    """One request of a batch."""

    number: int
    """In the file, from 1."""
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """What lines must keep to."""

    endpoint: str
    models: Collection[str]
    """Models that are served."""
    key: Key | None
    """Whose requests they are."""
    most: int
    """Lines."""
    longest_body: int
    """Bytes."""


@dataclass(frozen=True)
class Checked:
    """What the check of a file found."""

    total: int
    problems: list[LineProblem]


def check_file(path: Path, rules: Rules) -> Checked:
    """Check every line for what can be known before it is run. Blocks.

    What a request may not ask (`serve.requests`) is found when it is run, and is its own failure:
    it does not hold up the others.
    """
    problems: list[LineProblem] = []
    first_use: dict[bytes, int] = {}
    total = 0
    for number, text in _texts(path, rules.longest_body + _AROUND):
        if number > rules.most:
            problem = LineProblem(
                code="too_many_requests",
                message=f"the file has more than {rules.most} lines, blank ones too "
                "(max_batch_lines); split it into several.",
            )
            return Checked(total, [problem])
        if _is_blank(text):
            continue
        total += 1
        try:
            line = _line(number, text, rules)
            digest = blake2b(line.custom_id.encode(), digest_size=16).digest()
            first = first_use.setdefault(digest, number)
            if first != number:
                raise _Wrong(
                    "duplicate_custom_id",
                    f"the custom_id {_shown(line.custom_id)} is that of line {first} too.",
                    "custom_id",
                )
        except _Wrong as wrong:
            problems.append(
                LineProblem(code=wrong.code, message=str(wrong), line=number, param=wrong.param)
            )
            if len(problems) == _MOST_PROBLEMS:
                break
    if not total:
        problems.append(LineProblem(code="empty_file", message="the file has no requests."))
    return Checked(total, problems)


def read_lines(path: Path, done: Container[int]) -> Iterator[Line]:
    """The lines of a file that was checked, but for those that are done. Blocks."""
    for number, text in _texts(path, sys.maxsize - 1):
        if number not in done and text is not None and not _is_blank(text):
            value = from_json(text, allow_inf_nan=False)
            yield Line(number, value["custom_id"], value["body"])


class _Wrong(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


def _texts(path: Path, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Line numbers and lines; None for a line that is too long."""
    with path.open("rb") as file:
        number = 0
        while text := file.readline(longest + 1):
            number += 1
            too_long = len(text) > longest and not text.endswith(b"\n")
            while too_long and text and not text.endswith(b"\n"):
                text = file.readline(longest)
            if number == 1:
                text = text.removeprefix(b"\xef\xbb\xbf")
            yield number, None if too_long else text


def _is_blank(text: bytes | None) -> bool:
    return text is not None and not text.strip()


def _line(number: int, text: bytes | None, rules: Rules) -> Line:
    if text is None:
        raise _Wrong(
            "line_too_long",
            f"the line is longer than {rules.longest_body + _AROUND} bytes (max_body_bytes).",
        )
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise _Wrong("invalid_json_line", f"the line is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise _Wrong("invalid_json_line", "the line must be a JSON object.")
    for name in _FIELDS:
        if name not in value:
            raise _Wrong("missing_required_parameter", f"{name!r} is required.", name)
    for name in value:
        if name not in _FIELDS:
            raise _Wrong(
                "unrecognized_request_argument",
                f"{_shown(name)} is not a field of a line; they are {', '.join(_FIELDS)}.",
                name[:100],
            )
    custom_id, body = value["custom_id"], value["body"]
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _LONGEST_ID:
        raise _Wrong(
            "invalid_custom_id",
            f"'custom_id' must be a string of 1 to {_LONGEST_ID} characters.",
            "custom_id",
        )
    if value["method"] != "POST":
        raise _Wrong("invalid_method", "'method' must be 'POST'.", "method")
    if value["url"] != rules.endpoint:
        raise _Wrong(
            "invalid_url",
            f"'url' is {_shown(value['url'])}, but the batch's endpoint is {rules.endpoint}.",
            "url",
        )
    if not isinstance(body, dict):
        raise _Wrong("invalid_type", "'body' must be an object.", "body")
    if body.get("stream"):
        raise _Wrong("invalid_value", "'stream' is not for batches; leave it out.", "body.stream")
    _check_model(body.get("model"), rules)
    return Line(number, custom_id, body)


def _check_model(model: object, rules: Rules) -> None:
    if not isinstance(model, str):
        raise _Wrong("missing_required_parameter", "'model' is required.", "body.model")
    allowed = [name for name in rules.models if rules.key is None or rules.key.allows_model(name)]
    if model not in allowed:
        raise _Wrong(
            "model_not_found",
            f"the model {_shown(model)} does not exist or this API key may not use it. "
            f"It may use: {', '.join(allowed[:20])}.",
            "body.model",
        )


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
