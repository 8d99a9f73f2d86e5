"""The forms that an answer can be made to take."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from serve.requests.shape import Shape

Choice = Annotated[str, Field(min_length=1, max_length=4096)]


class SchemaFormat(Shape):
    """A named JSON schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    """What the schema is called."""

    description: Annotated[str, Field(max_length=4096)] | None = None
    """What the schema is for."""

    # Not called `schema`: pydantic's models have a method of that name.
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    """The JSON schema that the answer fits."""

    strict: bool | None = None
    """Taken and ignored: the answer always fits."""


class TextFormat(Shape):
    """Text in any form."""

    type: Literal["text"]


class JsonFormat(Shape):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Shape):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: SchemaFormat


ResponseFormat = Annotated[TextFormat | JsonFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Shape):
    """One constraint on the answer, in vLLM's terms."""

    # Not called `json`: pydantic's models have a method of that name.
    json_schema: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    """A JSON schema, as an object or as text."""

    regex: str | None = None
    """A regular expression that the whole answer fits."""

    choice: Annotated[list[Choice], Field(min_length=1, max_length=1024, fail_fast=True)] | None = (
        None
    )
    """Texts of which the answer is one."""

    grammar: str | None = None
    """A grammar in EBNF (``root ::= ...``)."""

    json_object: Literal[True] | None = None
    """Any JSON object."""

    disable_any_whitespace: bool | None = None
    """Whether JSON comes without spaces and line ends."""

    disable_additional_properties: bool | None = None
    """Whether objects hold the schema's properties alone."""

    @model_validator(mode="after")
    def _one_constraint(self) -> Self:
        constraints = (self.json_schema, self.regex, self.choice, self.grammar, self.json_object)
        if sum(constraint is not None for constraint in constraints) != 1:
            raise ValueError("needs exactly one of json, regex, choice, grammar and json_object.")
        return self
