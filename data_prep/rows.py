"""The row types: what every format becomes before it is rendered."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from data_prep.errors import RowError

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """One of ``ROLES``."""
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Calls an assistant turn makes, as the OpenAI API spells them."""
    tool_call_id: str = ""
    """For a tool's turn: the call that it answers."""
    train: bool = True
    """For an assistant turn: whether it is supervised."""

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates and the OpenAI API take it."""
        plain: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            plain["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id:
            plain["tool_call_id"] = self.tool_call_id
        return plain


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that a chat template renders; assistant turns are supervised."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions offered to the assistant, as JSON schemas."""

    def as_dicts(self) -> list[dict[str, Any]]:
        """The messages as chat templates and the OpenAI API take them."""
        return [message.as_dict() for message in self.messages]


@dataclass(frozen=True, slots=True)
class Completion:
    """Text to continue, without a chat template; the completion is supervised."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, without a chat template; all of it is supervised."""

    text: str


Said = tuple[Message, ...] | str
"""Turns for a chat template, or plain text that is rendered without one."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One prompt and two answers to it, of which one is better: all turns, or all plain text."""

    prompt: Said
    chosen: Said
    """The better answer, without the prompt."""
    rejected: Said
    """The worse answer, without the prompt."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions offered to the assistant, as JSON schemas."""

    @property
    def chosen_row(self) -> Conversation | Completion:
        """The prompt with the better answer, which alone is supervised."""
        return answered(self.prompt, self.chosen, self.tools)

    @property
    def rejected_row(self) -> Conversation | Completion:
        """The prompt with the worse answer, which alone is supervised."""
        return answered(self.prompt, self.rejected, self.tools)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A prompt, an answer, and whether that is a good one: all turns, or all plain text."""

    prompt: Said
    completion: Said
    """The answer, without the prompt."""
    label: bool
    """True for a good answer, False for a bad one."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions offered to the assistant, as JSON schemas."""

    @property
    def row(self) -> Conversation | Completion:
        """The prompt with the answer, which alone is supervised."""
        return answered(self.prompt, self.completion, self.tools)


def answered(
    prompt: Said, answer: Said, tools: tuple[Mapping[str, Any], ...] = ()
) -> Conversation | Completion:
    """Join a prompt and an answer to a row of which the answer alone is supervised.

    Raises:
        TypeError: one is turns and the other is plain text.
    """
    if isinstance(prompt, str) and isinstance(answer, str):
        return Completion(prompt, answer)
    if isinstance(prompt, str) or isinstance(answer, str):
        raise TypeError("a prompt and its answers are all turns or all plain text")
    return Conversation((*(replace(turn, train=False) for turn in prompt), *answer), tools)


SftRow = Conversation | Completion | Text
"""What supervised fine-tuning learns from."""
Row = SftRow | Preference | Labelled


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row and the place it came from."""

    where: str
    row: Row


def merge_repeated_roles(row: Conversation) -> Conversation:
    """Join neighbouring messages of one role with an empty line between them.

    Answers of which only one is supervised stay apart.
    """
    return replace(row, messages=merge_turns(row.messages))


def merge_turns(turns: Iterable[Message]) -> tuple[Message, ...]:
    """Join neighbouring messages of one role, as `merge_repeated_roles` does."""
    merged: list[Message] = []
    for message in turns:
        last = merged[-1] if merged else None
        if last and last.role == message.role != "tool" and last.train == message.train:
            texts = [text for text in (last.content, message.content) if text.strip()]
            calls = last.tool_calls + message.tool_calls
            merged[-1] = replace(last, content="\n\n".join(texts), tool_calls=calls)
        else:
            merged.append(message)
    return tuple(merged)


def check_conversation(row: Conversation) -> None:
    """Refuse what would train silently wrong.

    Raises:
        RowError: ``no assistant turn``, ``empty answer``, ``empty prompt``, ``unknown role``, or
            ``role order`` (a system message that is not first, a first turn that is not the
            user's, two turns of one role in a row, an answer to nothing).
    """
    for message in row.messages:
        if message.role not in ROLES:
            raise RowError("unknown role", f"{message.role!r}; allowed: {', '.join(ROLES)}")
    if not any(message.role == "assistant" for message in row.messages):
        raise RowError("no assistant turn", "there is nothing to learn from this row")
    before = "start"
    for message in row.messages:
        if message.role not in _MAY_FOLLOW[before]:
            raise RowError("role order", f"{message.role!r} follows {before!r}")
        before = message.role
    for message in row.messages:
        if message.content.strip() or message.tool_calls:
            continue
        if message.role == "assistant":
            raise RowError("empty answer", "an assistant turn has no text")
        if message.role == "user":
            raise RowError("empty prompt", "a user turn has no text")


_MAY_FOLLOW = {
    "start": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
