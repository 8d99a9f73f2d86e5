"""The turns of a conversation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from serve.requests.shape import Name, Shape


class TextPart(Shape):
    """A piece of text. Images, audio and files are not taken: models here read text."""

    type: Literal["text"]
    text: str


class RefusalPart(Shape):
    """A model's refusal, as an earlier answer gave it."""

    type: Literal["refusal"]
    refusal: str


Content = str | Annotated[list[TextPart], Field(min_length=1, max_length=1024, fail_fast=True)]
Answered = TextPart | RefusalPart


class FunctionCall(Shape):
    """Which function an assistant called, and with what."""

    name: Name
    arguments: str | dict[str, Any]
    """JSON; as text in OpenAI's API, as an object in some training data."""


class ToolCall(Shape):
    """A call that an assistant made."""

    id: Annotated[str, Field(max_length=256)] | None = None
    type: Literal["function"] | None = None
    function: FunctionCall
    index: int | None = None
    """Left over where a client put a stream's chunks together."""


class SystemMessage(Shape):
    """What the model is told about its task."""

    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None


class UserMessage(Shape):
    """What is asked."""

    role: Literal["user"]
    content: Content
    name: Name | None = None


class AssistantMessage(Shape):
    """An earlier answer, with the fields in which clients send it back."""

    role: Literal["assistant"]
    content: (
        str | Annotated[list[Answered], Field(min_length=1, max_length=1024, fail_fast=True)] | None
    ) = None
    name: Name | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128, fail_fast=True)] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    annotations: list[Any] | None = None


class ToolMessage(Shape):
    """What a tool answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    name: Name | None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]
Messages = Annotated[list[Message], Field(min_length=1, fail_fast=True)]
