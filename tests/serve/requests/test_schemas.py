from typing import Any

import pytest

from serve.requests.allowance import Allowance, SchemaRefused
from serve.requests.schemas import check_schema

TREE = {
    "type": "object",
    "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        TREE,
        {"type": "object", "properties": {"pattern": {"type": "string"}, "$ref": {}}},
        {"$defs": {"a/b": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a~1b"}}},
        {"type": "string", "pattern": "^[a-z]+$", "maxLength": 100},
        {"anyOf": [{"$ref": "#/anyOf/1"}, {"type": "null"}]},
        {"additionalProperties": False, "items": True, "enum": [1, None, "a", {"$ref": 3}]},
        {"prefixItems": [{"type": "string"}], "const": {"pattern": "("}},
    ],
)
def test_an_ordinary_schema_is_taken(schema: dict[str, Any]) -> None:
    check_schema(schema, Allowance(10_000))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"properties": {"x": {"allOf": [{"$ref": "#/properties/x"}]}}},
        {"anyOf": [{"oneOf": [{"$ref": "#"}]}]},
        {"$defs": {"unused": {"not": {"$ref": "#/$defs/unused"}}}},
        {"unknown": {"$ref": "#/unknown"}, "items": {"$ref": "#/unknown"}},
    ],
)
def test_a_reference_that_leads_back_to_itself_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaRefused, match="leads back to itself"):
        check_schema(schema, Allowance(10_000))


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (nested(90), "deep"),
        ({"properties": {f"p{i}": {} for i in range(2500)}}, "subschemas"),
        ({"enum": ["x" * 50_000]}, "too large"),
        ({"enum": list(range(3000))}, "enums"),
        ({"description": "x" * 50_000}, "too large"),
        ({"maxItems": 10**9}, "maxItems"),
        ({"minLength": -1}, "minLength"),
        ({"pattern": "(a+)+"}, "pattern"),
        ({"patternProperties": {"(a|a)*": {}}}, "pattern"),
        ({"pattern": 3}, "pattern"),
        ({"$ref": "http://example.com/schema"}, "#/"),
        ({"$ref": "#/nothing"}, "not there"),
        ({"$ref": "#/anyOf/" + "1" * 5000, "anyOf": [{}]}, "not there"),
        ({"$ref": "#/anyOf/1", "anyOf": [{}]}, "not there"),
        ({"$dynamicRef": "#a"}, "dynamicRef"),
        ({"items": "string"}, "belongs"),
        ({"anyOf": {}}, "anyOf"),
        ({"properties": []}, "properties"),
    ],
)
def test_a_schema_that_is_too_much_or_none_is_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(SchemaRefused, match=why):
        check_schema(schema, Allowance(40_000))


def test_all_patterns_of_a_request_are_judged_for_one_price() -> None:
    costly: dict[str, Any] = {rf"(?:(?:\w{{8}}){{8}}){{3}}{number}": {} for number in range(100)}
    with pytest.raises(SchemaRefused, match="too many or too large"):
        check_schema({"patternProperties": costly}, Allowance(40_000))
    with pytest.raises(SchemaRefused, match="too many or too large"):
        check_schema({"items": [{"pattern": pattern} for pattern in costly]}, Allowance(40_000))
    allowance = Allowance(40_000)
    for number in range(1, 101):
        check_schema({"pattern": f"^[a-z]+-[0-9]{{1,{number}}}$"}, allowance)


def test_a_pattern_that_is_used_often_is_paid_once() -> None:
    fields = {f"p{number}": {"pattern": r"(?:\w{8}){8}"} for number in range(1000)}
    check_schema({"properties": fields}, Allowance(40_000))
