"""Calls that a request demands have an object for arguments, whatever the tool leaves open."""

from __future__ import annotations

from typing import Any


def with_object_arguments(body: dict[str, Any]) -> dict[str, Any] | None:
    """The body with ``type: object`` in every function's parameters; None if all have it.

    vLLM holds a required call to the parameters as they stand. A schema that names properties
    but no type lets a bare string through, and so do missing parameters: clients such as
    LangChain then fail on arguments that are no object.
    """
    tools = body.get("tools") or []
    amended = [_amended(tool) for tool in tools]
    return None if amended == tools else {**body, "tools": amended}


def _amended(tool: dict[str, Any]) -> dict[str, Any]:
    # Chat has the function in a field of its own, the responses API has it in the tool.
    function = tool.get("function", tool)
    parameters = function.get("parameters") or {"properties": {}}
    if "type" in parameters:
        return tool
    amended = {**function, "parameters": {"type": "object", **parameters}}
    return {**tool, "function": amended} if "function" in tool else amended
