"""JSON schemas that the engine can turn into a grammar without running away or looping."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

from serve.requests.allowance import Allowance, SchemaRefused

MOST_SUBSCHEMAS = 2_000
MOST_VALUES = 2_000
"""Values in all enums together."""
LARGEST_COUNT = 10_000
"""For minLength, maxItems and the like, which grammars write out."""

_OF_ONE = (
    "items",
    "additionalProperties",
    "additionalItems",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_OF_ONE_HERE = ("not", "if", "then", "else")
_OF_MANY_HERE = ("allOf", "anyOf", "oneOf")
_OF_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_COUNTS = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
)
_PLACE = re.compile("0|[1-9][0-9]{0,8}")
"""Of an array's item, in a JSON pointer."""
_NOT_OFFERED = ("$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor")


def check_schema(schema: Mapping[str, Any], allowance: Allowance) -> None:
    """Refuse a schema that is too large, or loops, or holds a pattern that is refused.

    Args:
        schema: the JSON schema.
        allowance: what is left of its request's.

    Raises:
        SchemaRefused: with the reason.
    """
    allowance.take(schema)
    walk = _Walk(schema, allowance)
    walk.run()
    try:
        TopologicalSorter(walk.here).prepare()
    except CycleError:
        raise SchemaRefused(
            "has a $ref that leads back to itself without going into a property or an item, "
            "so it describes nothing."
        ) from None


class _Walk:
    """Goes through every subschema once, and notes which lie on the same value (``here``)."""

    def __init__(self, root: Mapping[str, Any], allowance: Allowance) -> None:
        self._root = root
        self._allowance = allowance
        self._seen: dict[int, Any] = {}
        self._values = 0
        self.here: dict[int, set[int]] = {}

    def run(self) -> None:
        todo: list[Any] = [self._root]
        while todo:
            schema = todo.pop()
            if isinstance(schema, bool) or id(schema) in self._seen:
                continue
            if not isinstance(schema, dict):
                raise SchemaRefused("has something other than an object where a schema belongs.")
            self._seen[id(schema)] = schema
            if len(self._seen) > MOST_SUBSCHEMAS:
                raise SchemaRefused(f"has more than {MOST_SUBSCHEMAS} subschemas.")
            self._check_values(schema)
            same = list(self._same_value(schema))
            self.here[id(schema)] = {id(other) for other in same if isinstance(other, dict)}
            todo += same
            todo += _inside(schema)

    def _check_values(self, schema: Mapping[str, Any]) -> None:
        for name in _NOT_OFFERED:
            if name in schema:
                raise SchemaRefused(f"uses {name}, which is not offered; use $ref.")
        for name in _COUNTS:
            count = schema.get(name)
            if isinstance(count, int | float) and not 0 <= count <= LARGEST_COUNT:
                raise SchemaRefused(f"has a {name} that is not between 0 and {LARGEST_COUNT}.")
        if isinstance(options := schema.get("enum"), list):
            self._values += len(options)
            if self._values > MOST_VALUES:
                raise SchemaRefused(f"has more than {MOST_VALUES} values in its enums.")
        patterns = [schema["pattern"]] if "pattern" in schema else []
        if isinstance(named := schema.get("patternProperties"), dict):
            patterns += named
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise SchemaRefused("has a pattern that is not a string.")
            if problem := self._allowance.problem_of(pattern):
                raise SchemaRefused(f"has a pattern that {problem}")

    def _same_value(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        if "$ref" in schema:
            yield self._resolve(schema["$ref"])
        for name in _OF_ONE_HERE:
            if name in schema:
                yield schema[name]
        for name in _OF_MANY_HERE:
            if name in schema:
                if not isinstance(schema[name], list):
                    raise SchemaRefused(f"has an {name} that is not an array.")
                yield from schema[name]

    def _resolve(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise SchemaRefused(
                "has a $ref that does not begin with '#/': only definitions within the schema "
                "are looked up."
            )
        node: Any = self._root
        for part in reference.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and _PLACE.fullmatch(name) and int(name) < len(node):
                node = node[int(name)]
            else:
                raise SchemaRefused(f"has a $ref to {reference[:60]!r}, which is not there.")
        return node


def _inside(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Subschemas of values within this one's value, and definitions."""
    for name in _OF_ONE:
        value = schema.get(name)
        if isinstance(value, list):
            yield from value
        elif value is not None:
            yield value
    if isinstance(items := schema.get("prefixItems"), list):
        yield from items
    for name in _OF_NAMED:
        if name in schema:
            if not isinstance(schema[name], dict):
                raise SchemaRefused(f"has {name} that are not an object.")
            yield from schema[name].values()
