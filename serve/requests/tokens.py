"""``POST /tokenize`` and ``POST /detokenize``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from serve.requests.messages import Messages
from serve.requests.shape import Shape, TokenId
from serve.requests.tools import Tools


class TokenizeText(Shape):
    """Text as the model reads it."""

    model: str
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = None


class TokenizeChat(Shape):
    """A conversation as the model reads it, through its chat template."""

    model: str
    messages: Messages
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    return_token_strs: bool | None = None
    tools: Tools | None = None


class DetokenizeRequest(Shape):
    """The text of tokens."""

    model: str
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]
