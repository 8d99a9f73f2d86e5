"""``POST /v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serve.requests.shape import CacheSalt, Shape, Text, Tokens

MOST_INPUTS = 2048
"""Texts in one request, as OpenAI has it."""


class EmbeddingRequest(Shape):
    """Vectors for texts."""

    model: str
    input: (
        Text
        | Tokens
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS, fail_fast=True)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_INPUTS, fail_fast=True)]
    )
    """One text or several, as text or as tokens."""

    encoding_format: Literal["float", "base64"] = "float"
    """How the vectors are written."""

    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Length of the vectors, for models that can shorten them."""

    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    """Cuts texts to so many tokens; -1 to what fits the model."""

    truncation_side: Literal["left", "right"] | None = None
    """Where a text is cut."""

    add_special_tokens: bool = True
    """Whether the tokenizer adds its special tokens."""

    cache_salt: CacheSalt | None = None
    """Keeps cached prefixes apart from those of requests with another salt."""

    user: Annotated[str, Field(max_length=512)] | None = None
    """OpenAI's; taken and ignored."""
