"""Why a request is refused, in the words and codes of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from serve.requests.not_offered import NOT_OFFERED

_MOST_SHOWN = 60

_CODES: Mapping[str, str] = {
    "missing": "missing_required_parameter",
    "union_tag_not_found": "missing_required_parameter",
    "extra_forbidden": "unrecognized_request_argument",
    "too_long": "array_above_max_length",
    "too_short": "array_below_min_length",
    "string_too_long": "string_above_max_length",
    "string_too_short": "string_below_min_length",
    "greater_than": "number_below_min_value",
    "greater_than_equal": "number_below_min_value",
    "less_than": "number_above_max_value",
    "less_than_equal": "number_above_max_value",
}
"""OpenAI's codes by pydantic's types; every type that ends in _type is ``invalid_type``."""

_WANTED: Mapping[str, str] = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "literal_error": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "too_long": "of at most {max_length} items",
    "too_short": "of at least {min_length} items",
    "string_too_long": "of at most {max_length} characters",
    "string_too_short": "of at least {min_length} characters",
    "string_pattern_mismatch": "text that fits {pattern}",
}
"""What a value should have been, by pydantic's types."""


class RequestRefused(Exception):
    """A request that does not go to the engine, and what its sender is told."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "invalid_value",
        param: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.code = code
        """The error's short name."""
        self.param = param
        """The field at fault, such as ``messages[0].content``."""
        self.status = status
        """The HTTP status, a 4xx."""

    @property
    def message(self) -> str:
        """What was wrong and what to do."""
        return str(self)

    @property
    def kind(self) -> str:
        """OpenAI's ``type``."""
        return "invalid_request_error"


def refusal_of(error: ValidationError, body: Any) -> RequestRefused:
    """The one problem among pydantic's that helps most.

    Of a union's branches the one that got furthest is the one that was meant.
    """
    found = error.errors(include_url=False, include_context=True, include_input=True)
    placed = [(_path(problem, body), problem) for problem in found]
    deepest = max(len(path) for path, _ in placed)
    path = next(path for path, _ in placed if len(path) == deepest)
    here = [problem for other, problem in placed if other == path]
    # A branch of a union that had the right type says more than those that had not.
    right_type = [problem for problem in here if not problem["type"].endswith("_type")]
    return _worded(path, right_type or here)


def _path(problem: ErrorDetails, body: Any) -> tuple[int | str, ...]:
    """Where the problem is, without what pydantic adds for the branches of unions."""
    names_a_field = problem["type"] in ("missing", "extra_forbidden")
    path: list[int | str] = []
    node = body
    for position, part in enumerate(problem["loc"]):
        last = position == len(problem["loc"]) - 1
        if isinstance(part, int) and isinstance(node, list) and part < len(node):
            node = node[part]
        elif isinstance(node, dict) and (part in node or (last and names_a_field)):
            node = node.get(part)
        else:
            continue
        path.append(part)
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        # A field in quotes; or, where it may be left out, a function called after it.
        path.append(str(problem["ctx"]["discriminator"]).strip("'_()"))
    return tuple(path)


def _worded(path: tuple[int | str, ...], problems: Sequence[ErrorDetails]) -> RequestRefused:
    first = problems[0]
    kind, param = first["type"], spell(path)
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    given = first["input"]
    if kind == "extra_forbidden":
        why = NOT_OFFERED.get(str(path[-1]))
        told = f"is not offered: {why}" if why else "is not a field of this request; leave it out."
    elif code == "missing_required_parameter":
        told = "is required."
    elif kind == "value_error":
        # Ours; it says all there is to say.
        told = first["msg"].removeprefix("Value error, ")
    else:
        given = first["ctx"]["tag"] if kind == "union_tag_invalid" else given
        wanted = dict.fromkeys(_wanted(problem) for problem in problems)
        told = f"must be {' or '.join(wanted)}, but is {shown(given)}."
    return RequestRefused(f"{_quoted(param)} {told}", code=code, param=param)


def _wanted(problem: ErrorDetails) -> str:
    """What a value should have been, without pydantic's and Python's own words."""
    text = _WANTED.get(problem["type"])
    if text is None:
        return problem["msg"].removeprefix("Input should be ")
    return text.format(**problem.get("ctx", {}))


def spell(path: Sequence[int | str]) -> str | None:
    """A path as OpenAI's errors spell it: ``messages[0].content``."""
    spelled = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    cut = spelled.removeprefix(".")
    return (cut if len(cut) <= 4 * _MOST_SHOWN else cut[: 4 * _MOST_SHOWN] + "...") or None


def shown(value: Any) -> str:
    """A value from a request, short enough for an error, and never a whole list or object."""
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, str):
        cut = value if len(value) <= _MOST_SHOWN else value[:_MOST_SHOWN] + "..."
        return repr(cut)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    # An int may have thousands of digits, more than Python is willing to print.
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of very many digits"
    return str(value)


def _quoted(param: str | None) -> str:
    return f"'{param}'" if param else "the body"
