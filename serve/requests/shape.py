"""What the models of request bodies have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.requests.not_offered import NOT_OFFERED

_MOST_FIELDS = 200
"""Fields in one object. Each that is none costs an error of its own."""


class Shape(BaseModel):
    """An object in a request: its fields, their types, and nothing besides.

    Strict, because what is tolerated here is interpreted once more by vLLM, and the two must
    not come to different ends.
    """

    null_is_absent: ClassVar[tuple[str, ...]] = ()
    """Fields whose null OpenAI's types allow and vLLM does not take: it is left out."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _sent(cls, given: Any) -> Any:
        """The fields that say something: clients that spell out every field send nulls too."""
        if not isinstance(given, dict):
            return given
        if len(given) > _MOST_FIELDS:
            raise ValueError(f"has {len(given)} fields; at most {_MOST_FIELDS} are looked at.")
        if None not in given.values():
            return given
        return {
            name: value
            for name, value in given.items()
            if value is not None or name not in NOT_OFFERED
        }


class HandedBack(Shape):
    """An object of an answer that is sent back as a part of the conversation.

    The server's answers spell out every field that OpenAI's have, and the newer of those are not
    read here: as nulls they say nothing.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "null"}})

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if not isinstance(given, dict) or None not in given.values():
            return given
        return {
            name: value
            for name, value in given.items()
            if value is not None or name in cls.model_fields
        }


TOKEN_ID = "token-id"

TokenId = Annotated[int, Field(ge=0, json_schema_extra={"format": TOKEN_ID})]
"""A token's number. That it is below the vocabulary's size is checked with the engine's facts."""

Text = Annotated[str, Field(min_length=1)]
Tokens = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
"""A prompt, or something to embed, as text and as tokens."""

Name = Annotated[str, Field(min_length=1, max_length=256)]

CacheSalt = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^@/\\\x00]+$")]

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16, fail_fast=True),
]
