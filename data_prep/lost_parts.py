"""Refuse rows of which a chat template drops a part: what is not rendered cannot be learned."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from data_prep.chat_templates import ChatTemplate
from data_prep.errors import RowError
from data_prep.rows import Conversation, Message
from data_prep.template_engine import to_json


def refuse_lost_parts(row: Conversation, whole: str, template: ChatTemplate) -> None:
    """Refuse a row whose messages do not all stand in its rendering, in order, with its tools.

    Args:
        row: the conversation.
        whole: the rendering of all of it.
        template: what rendered it.

    Raises:
        RowError: ``template loses a message`` or ``template loses the tools``.
    """
    end = 0
    said, ends = [], [0]
    for message in row.messages:
        words = message.content.strip()
        start = whole.find(words, end)
        if start < 0 and message.role == "tool":  # some templates write results as JSON text
            words = to_json(words)[1:-1]
            start = whole.find(words, end)
        if start < 0:
            raise RowError("template loses a message", f"what the {message.role} says is missing")
        end = start + len(words)
        said.append(words)
        ends.append(end)
    if row.tools:
        _refuse_lost_tools(row, whole, template)
    if any(message.tool_calls for message in row.messages):
        _refuse_lost_calls(row, whole, said, ends)


def _refuse_lost_calls(
    row: Conversation, whole: str, said: Sequence[str], ends: Sequence[int]
) -> None:
    """Refuse when a call is not written between what is said before it and after it.

    Args:
        row: the conversation.
        whole: its rendering.
        said: what each message says, as it stands there.
        ends: the first place where the words before each message may end, shape ``[messages+1]``.
    """
    # A result may say what the call says, so the next words are looked for from the end.
    start = len(whole)
    for index in range(len(row.messages) - 1, -1, -1):
        message = row.messages[index]
        for call in message.tool_calls:
            between = whole[ends[index] : max(start, ends[index + 1])]
            _refuse_lost_call(call, between, said[index])
        start = whole.rfind(said[index], 0, start)


def _refuse_lost_tools(row: Conversation, whole: str, template: ChatTemplate) -> None:
    """Refuse when tools add nothing of themselves to the rendering.

    Their words may be anyone's ("add", "city"), so they must stand there more often than in the
    rendering of the same turns without tools.
    """
    try:
        bare = template.text(row.as_dicts(), generation_prompt=False)
    except RowError:  # it renders no calls where no tools are offered
        bare = "\n".join(message.content for message in row.messages)
    for tool in row.tools:
        function = tool["function"]
        for name in (function["name"], *_parameters(function)):
            if not any(
                len(word.findall(whole)) > len(word.findall(bare)) for word in _as_words(name)
            ):
                raise RowError("template loses the tools", f"{name!r} is not in the rendered text")
        for line in (function.get("description") or "").split("\n"):
            if not _adds(whole, bare, line.strip()):
                raise RowError(
                    "template loses the tools",
                    f"the description of {function['name']!r} is not in the rendered text",
                )


def _parameters(function: Mapping[str, Any]) -> list[str]:
    properties = (function.get("parameters") or {}).get("properties")
    return list(properties) if isinstance(properties, Mapping) else []


@lru_cache(maxsize=4096)
def _as_words(name: str) -> tuple[re.Pattern[str], ...]:
    """What finds a name, and not what only has it as a part."""
    return tuple(re.compile(rf"(?<!\w){re.escape(each)}(?!\w)") for each in _spellings(name))


def _spellings(part: Any) -> tuple[str, ...]:
    """How templates write a value: as text, as JSON, or as Python does."""
    if not isinstance(part, str):
        return str(part), to_json(part)
    written = (to_json(part), to_json(part, ensure_ascii=True), repr(part))
    return tuple(dict.fromkeys((part, *(each[1:-1] for each in written))))


def _adds(text: str, others: str, part: Any) -> bool:
    """Whether a text has a part that is not only in what others say."""
    return part == "" or any(text.count(each) > others.count(each) for each in _spellings(part))


def refuse_lost_answer(message: Message, rendered: str) -> None:
    """Refuse when what would be learned is not what the answer says and calls.

    Raises:
        RowError: ``empty answer``, ``template loses a message`` or ``template loses the tools``.
    """
    if (not rendered or rendered.isspace()) and not message.tool_calls:
        raise RowError("empty answer", "the template writes nothing of what the assistant says")
    said = message.content.strip()
    if said not in rendered:
        raise RowError("template loses a message", "what the assistant says is missing")
    for call in message.tool_calls:
        _refuse_lost_call(call, rendered, said)


def _refuse_lost_call(call: Mapping[str, Any], rendered: str, said: str) -> None:
    """Refuse when a turn's rendering has no more of a call than what the turn says beside it."""
    function = call["function"]
    for part in (function["name"], *_leaves(function["arguments"])):
        if not _adds(rendered, said, part):
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
