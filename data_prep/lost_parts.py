"""Refuse rows of which a chat template drops a part: what is not rendered cannot be learned."""

from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.errors import RowError
from data_prep.rows import Conversation, Message
from data_prep.template_engine import to_json


def refuse_lost_parts(row: Conversation, whole: str) -> None:
    """Refuse a row whose messages do not all stand in its rendering, in order, with its tools.

    Raises:
        RowError: ``template loses a message`` or ``template loses the tools``.
    """
    end = 0
    for message in row.messages:
        said = message.content.strip()
        start = whole.find(said, end)
        if start < 0 and message.role == "tool":  # some templates write results as JSON text
            said = to_json(said)[1:-1]
            start = whole.find(said, end)
        if start < 0:
            raise RowError("template loses a message", f"what the {message.role} says is missing")
        end = start + len(said)
    calls = [call for message in row.messages for call in message.tool_calls]
    for entry in (*row.tools, *calls):
        name = entry["function"]["name"]
        if name not in whole:
            raise RowError("template loses the tools", f"{name!r} is not in the rendered text")


def refuse_lost_answer(message: Message, rendered: str) -> None:
    """Refuse when what would be learned is not what the answer says and calls.

    Raises:
        RowError: ``empty answer``, ``template loses a message`` or ``template loses the tools``.
    """
    if not rendered or rendered.isspace():
        raise RowError("empty answer", "the template writes nothing of what the assistant says")
    if message.content.strip() not in rendered:
        raise RowError("template loses a message", "what the assistant says is missing")
    for call in message.tool_calls:
        function = call["function"]
        for part in (function["name"], *_leaves(function["arguments"])):
            if str(part) not in rendered and to_json(part).strip('"') not in rendered:
                raise RowError("template loses the tools", f"{part!r} is not in the rendered call")


def _leaves(value: Any) -> Iterator[Any]:
    """The keys of an object and the plain values in it, however deep."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
