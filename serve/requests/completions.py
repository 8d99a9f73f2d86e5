"""``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from serve.requests.sampling import Sampling
from serve.requests.shape import Text, Tokens


class CompletionRequest(Sampling):
    """Text that goes on from a prompt, without a chat template."""

    null_is_absent = ("n",)

    prompt: (
        Text
        | Tokens
        | Annotated[list[Text], Field(min_length=1, fail_fast=True)]
        | Annotated[list[Tokens], Field(min_length=1, fail_fast=True)]
    )
    """One prompt or several, as text or as tokens."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """Most tokens of an answer; 16 if not given. 0 only with echo."""

    n: Annotated[int, Field(ge=1)] | None = None
    """Answers to make for each prompt; 1 if not given."""

    add_special_tokens: bool = True
    """Whether the tokenizer adds its special tokens to the prompt."""

    echo: bool | None = None
    """Whether the answer begins with the prompt."""

    logprobs: Annotated[int, Field(ge=0)] | None = None
    """Alternatives to give for each token."""
