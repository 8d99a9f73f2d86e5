"""Schemas, patterns and grammars of a request, wherever in it they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from serve.requests.grammars import GrammarRefused, check_grammar
from serve.requests.patterns import problem_of_pattern
from serve.requests.refusal import RequestRefused
from serve.requests.responses import FunctionTool
from serve.requests.schemas import SchemaRefused, check_schema, measure
from serve.requests.structured import ResponseFormat, SchemaFormat, StructuredOutputs
from serve.requests.tools import Function

_SCHEMA_CODE = "invalid_json_schema"


def check_response_format(form: ResponseFormat, field: str, largest: int) -> None:
    """Refuse a schema that the engine could not follow."""
    schema = getattr(form, "json_schema", None)
    if isinstance(schema, SchemaFormat):
        check_schema_in(schema.json_schema, f"{field}.json_schema.schema", largest)


def check_structured_outputs(given: StructuredOutputs, largest: int) -> None:
    """Refuse a schema, pattern, choice or grammar that the engine could not follow."""
    field = "structured_outputs"
    if given.json_schema is not None:
        check_schema_in(_parsed(given.json_schema, f"{field}.json"), f"{field}.json", largest)
    if given.regex is not None and (problem := problem_of_pattern(given.regex)):
        raise RequestRefused(
            f"'{field}.regex' {problem}", code="invalid_regex", param=f"{field}.regex"
        )
    if given.choice is not None and sum(map(len, given.choice)) > largest:
        raise RequestRefused(
            f"'{field}.choice' has more than {largest} characters.",
            code="string_above_max_length",
            param=f"{field}.choice",
        )
    if given.grammar is not None:
        try:
            check_grammar(given.grammar)
        except GrammarRefused as error:
            raise RequestRefused(
                f"'{field}.grammar' {error}", code="invalid_grammar", param=f"{field}.grammar"
            ) from None


def check_functions(
    functions: Sequence[Function | FunctionTool],
    fields: Sequence[str],
    largest: int,
    *,
    called: bool,
) -> None:
    """Refuse parameters that the engine could not follow, or that are no object's schema.

    Functions that are only written into the prompt (``called`` is False) may look as they did in
    training; of them the size alone is bounded.
    """
    left = largest
    for function, field in zip(functions, fields, strict=True):
        parameters = function.parameters
        if not parameters:
            continue
        if called and parameters.get("type", "object") != "object":
            raise RequestRefused(
                f"'{field}' must have the type 'object': a function's arguments have names.",
                code="invalid_function_parameters",
                param=field,
            )
        if called:
            check_schema_in(parameters, field, left, "invalid_function_parameters")
        left -= _size(parameters, field, left)


def _size(parameters: dict[str, Any], field: str, most: int) -> int:
    try:
        size = measure(parameters, most)
    except SchemaRefused as error:
        problem = str(error)
    else:
        if size <= most:
            return size
        problem = "is too large, with the tools before it."
    raise RequestRefused(f"'{field}' {problem}", code="invalid_function_parameters", param=field)


def _parsed(given: dict[str, Any] | str, field: str) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    try:
        schema = from_json(given, allow_inf_nan=False)
    except ValueError as error:
        raise RequestRefused(
            f"'{field}' is not JSON: {error}.", code=_SCHEMA_CODE, param=field
        ) from None
    if not isinstance(schema, dict):
        raise RequestRefused(f"'{field}' is not a JSON object.", code=_SCHEMA_CODE, param=field)
    return schema


def check_schema_in(
    schema: dict[str, Any], field: str, largest: int, code: str = _SCHEMA_CODE
) -> None:
    """Refuse the schema in a field that the engine could not follow."""
    try:
        check_schema(schema, largest)
    except SchemaRefused as error:
        raise RequestRefused(f"'{field}' {error}", code=code, param=field) from None
