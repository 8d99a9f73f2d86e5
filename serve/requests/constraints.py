"""Schemas, patterns and grammars of a request, wherever in it they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from serve.requests.allowance import Allowance, SchemaRefused
from serve.requests.grammars import GrammarRefused, check_grammar
from serve.requests.refusal import RequestRefused
from serve.requests.responses import FunctionTool
from serve.requests.schemas import check_schema
from serve.requests.structured import ResponseFormat, SchemaFormat, StructuredOutputs
from serve.requests.tools import Function

_SCHEMA_CODE = "invalid_json_schema"


def check_response_format(form: ResponseFormat, field: str, allowance: Allowance) -> None:
    """Refuse a schema that the engine could not follow."""
    schema = getattr(form, "json_schema", None)
    if isinstance(schema, SchemaFormat):
        check_schema_in(schema.json_schema, f"{field}.json_schema.schema", allowance)


def check_structured_outputs(given: StructuredOutputs, allowance: Allowance) -> None:
    """Refuse a schema, pattern, choice or grammar that the engine could not follow."""
    field = "structured_outputs"
    if given.json_schema is not None:
        check_schema_in(_parsed(given.json_schema, f"{field}.json"), f"{field}.json", allowance)
    if given.regex is not None and (problem := allowance.problem_of(given.regex)):
        raise RequestRefused(
            f"'{field}.regex' {problem}", code="invalid_regex", param=f"{field}.regex"
        )
    if given.choice is not None:
        _take(given.choice, f"{field}.choice", allowance, "string_above_max_length")
    if given.grammar is not None:
        try:
            check_grammar(given.grammar)
        except GrammarRefused as error:
            raise RequestRefused(
                f"'{field}.grammar' {error}", code="invalid_grammar", param=f"{field}.grammar"
            ) from None


_NOT_AT_THE_TOP = ("anyOf", "oneOf", "allOf", "not", "enum", "const", "$ref")
"""With these a schema may let something else than an object through; OpenAI refuses them too."""


def check_functions(
    functions: Sequence[Function | FunctionTool],
    fields: Sequence[str],
    allowance: Allowance,
    *,
    called: bool,
) -> None:
    """Refuse parameters that the engine could not follow, or that are no object's schema.

    Functions that are only written into the prompt (``called`` is False) may look as they did in
    training; of them the size alone is bounded.
    """
    code = "invalid_function_parameters"
    for function, field in zip(functions, fields, strict=True):
        parameters = function.parameters
        if not parameters:
            continue
        if not called:
            _take(parameters, field, allowance, code)
            continue
        for key in _NOT_AT_THE_TOP:
            if key in parameters:
                raise RequestRefused(
                    f"'{field}' must have the type 'object', and {key!r} not at its top: a "
                    "function's arguments have names.",
                    code=code,
                    param=field,
                )
        if parameters.get("type", "object") == "object":
            check_schema_in(parameters, field, allowance, code)
        else:
            raise RequestRefused(
                f"'{field}' must have the type 'object': a function's arguments have names.",
                code=code,
                param=field,
            )


def _take(value: Any, field: str, allowance: Allowance, code: str) -> None:
    try:
        allowance.take(value)
    except SchemaRefused as error:
        raise RequestRefused(f"'{field}' {error}", code=code, param=field) from None


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
    schema: dict[str, Any], field: str, allowance: Allowance, code: str = _SCHEMA_CODE
) -> None:
    """Refuse the schema in a field that the engine could not follow."""
    try:
        check_schema(schema, allowance)
    except SchemaRefused as error:
        raise RequestRefused(f"'{field}' {error}", code=code, param=field) from None
