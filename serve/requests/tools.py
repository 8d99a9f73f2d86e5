"""The functions a model may call, and which of them it must."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from serve.requests.shape import Shape

FunctionName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\"\\]{1,128}$")]
"""Wider than OpenAI's, which takes letters, digits, _ and -: data sets name functions otherwise."""


class Function(Shape):
    """A function as the model is told of it."""

    name: FunctionName
    description: Annotated[str, Field(max_length=16384)] | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments, which are an object."""

    strict: bool | None = None


class Tool(Shape):
    """Something the model may use; functions only."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(Shape):
    """A function by its name."""

    name: FunctionName


class NamedTool(Shape):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


Tools = Annotated[list[Tool], Field(min_length=1, max_length=128, fail_fast=True)]
ToolChoice = Literal["none", "auto", "required"] | NamedTool
