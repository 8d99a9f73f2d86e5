"""Special tokens and turn markers that somebody typed inside a row: found, refused or escaped.

Typed inside a message, ``<|im_end|>`` would end the turn and ``[INST]`` would look like another.
Escaping parts each one with a space, as in ``<| im_end|>``: it stays readable and is plain text.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from data_prep.chat_templates import ChatTemplate
from data_prep.errors import RowError
from data_prep.rows import (
    Completion,
    Conversation,
    Labelled,
    Message,
    Preference,
    Row,
    Said,
    SftRow,
    Text,
)
from data_prep.template_engine import to_json

REASON = "special token in the text"
_BETWEEN_TEXTS = "\0"


def markers_of(row: Row, template: ChatTemplate) -> tuple[str, ...]:
    """What must not be typed inside a row: of rows without turns, only special tokens."""
    turns = isinstance(row, Conversation)
    if isinstance(row, Preference | Labelled):
        turns = not isinstance(row.prompt, str)
    return template.markers if turns else template.tokenizer.markers


def refuse_markers(row: SftRow, markers: Sequence[str]) -> None:
    """Refuse a row inside which somebody typed a marker.

    Args:
        row: any row.
        markers: what `markers_of` says.

    Raises:
        RowError: ``special token in the text``.
    """
    search = _search(tuple(markers))
    texts = _texts(row)
    if not search.suspects(_BETWEEN_TEXTS.join(texts)):
        return
    for text in filter(search.finds, texts):
        marker = next(marker for marker in markers if marker in text)
        raise RowError(REASON, f"{marker!r} would become a real turn")


def escape_markers(row: Row, markers: Sequence[str]) -> tuple[Row, int]:
    """Change the text of a row so that no marker is left in it.

    Each marker is parted by a space where a sign meets a letter, else after its first character;
    a marker of one character is replaced by the space. Where a space makes another marker, an
    invisible character parts them instead. Escaping twice is escaping once.

    Args:
        row: any row. Of tools and calls, names, keys and values are escaped, JSON's own signs
            never: a marker that consists of them is left, and refused when the row is rendered.
        markers: what `markers_of` says.

    Returns:
        The row, the very same one when nothing had to be changed, and how often it was changed.

    Raises:
        RowError: two keys of one object become the same, or a marker begins in the plain prompt
            of two answers and ends in one of them alone.
    """
    search = _search(tuple(markers))
    if not search.suspects(_BETWEEN_TEXTS.join(_all_texts(row))):
        return row, 0
    escape = _Escape(search)
    if isinstance(row, Conversation):
        changed: Row = replace(
            row, messages=_escaped_turns(row.messages, escape), tools=_escaped_tools(row, escape)
        )
    elif isinstance(row, Preference):
        prompt, (chosen, rejected) = _escaped_answers(
            row.prompt, [row.chosen, row.rejected], escape
        )
        tools = _escaped_tools(row, escape)
        changed = Preference(prompt, chosen, rejected, tools)
    elif isinstance(row, Labelled):
        prompt, (completion,) = _escaped_answers(row.prompt, [row.completion], escape)
        tools = _escaped_tools(row, escape)
        changed = Labelled(prompt, completion, row.label, tools)
    elif isinstance(row, Completion):
        changed = Completion(*escape.texts([row.prompt, row.completion]))
    else:
        changed = Text(escape.text(row.text))
    return (changed, escape.count) if escape.count else (row, 0)


def _all_texts(row: Row) -> list[str]:
    """What a row writes into its rendering, or into both of them."""
    if isinstance(row, Preference):
        return _texts(row.chosen_row) + _texts(row.rejected_row)
    return _texts(row.row if isinstance(row, Labelled) else row)


def _texts(row: SftRow) -> list[str]:
    """What a row writes into its rendering."""
    if isinstance(row, Completion):
        return [row.prompt + row.completion]  # a marker may begin in one and end in the other
    if isinstance(row, Text):
        return [row.text]
    texts = [message.content for message in row.messages]
    texts += [message.tool_call_id for message in row.messages if message.tool_call_id]
    calls = [call for message in row.messages for call in message.tool_calls]
    texts += [to_json(entry) for entry in (*row.tools, *calls)]
    return texts


def _escaped_answers(
    prompt: Said, answers: list[Said], escape: "_Escape"
) -> tuple[Said, list[Said]]:
    """A prompt and what follows it, or the two that may.

    Raises:
        RowError: parting a marker that runs from a plain prompt into one answer would make one
            with the other.
    """
    if not isinstance(prompt, str):
        turns = [_escaped_turns(each, escape) for each in answers if not isinstance(each, str)]
        return _escaped_turns(prompt, escape), [*turns]
    plain: list[Said] = []
    for each in answers:
        prompt, answer = escape.texts([prompt, str(each)])
        plain.append(answer)
    if any(escape.search.finds(f"{prompt}{answer}") for answer in plain):
        raise RowError(REASON, "a marker begins in the prompt and ends in one answer alone")
    return prompt, plain


def _escaped_turns(turns: Iterable[Message], escape: "_Escape") -> tuple[Message, ...]:
    return tuple(_escaped_message(turn, escape) for turn in turns)


def _escaped_tools(
    row: Conversation | Preference | Labelled, escape: "_Escape"
) -> tuple[Mapping[str, Any], ...]:
    return tuple(escape.value(tool) for tool in row.tools)


def _escaped_message(message: Message, escape: "_Escape") -> Message:
    return replace(
        message,
        content=escape.text(message.content),
        tool_calls=tuple(escape.value(call) for call in message.tool_calls),
        tool_call_id=escape.text(message.tool_call_id),
    )


@dataclass(frozen=True, slots=True)
class _Search:
    """What finds markers quickly."""

    markers: tuple[str, ...]
    beginnings: tuple[str, ...]
    """How markers begin: most texts hold none of these few."""
    finds: Callable[[str], Any]
    hidden: str
    """An invisible character that is in no marker, so that inserting it can make none."""

    def suspects(self, text: str) -> bool:
        """Whether a text may hold a marker."""
        return any(beginning in text for beginning in self.beginnings)


@lru_cache(maxsize=64)
def _search(markers: tuple[str, ...]) -> _Search:
    beginnings = sorted({marker[:2] for marker in markers})
    pattern = re.compile("|".join(map(re.escape, markers)) if markers else "(?!)")
    invisible = (chr(code) for code in (0x200B, 0x2060, *range(0xE000, 0xF900)))
    hidden = next(sign for sign in invisible if not any(sign in marker for marker in markers))
    return _Search(markers, tuple(beginnings), pattern.search, hidden)


@dataclass(slots=True)
class _Escape:
    """Escapes one text after another, and counts."""

    search: _Search
    count: int = 0

    def text(self, text: str) -> str:
        """One text without markers."""
        return self.texts([text])[0]

    def texts(self, texts: list[str]) -> list[str]:
        """Texts that are written one right behind the other."""
        whole = "".join(texts)
        if not self.search.finds(whole):
            return texts
        cuts = _cuts(whole, self.search.markers)
        self.count += len(cuts)
        parted = _parted(texts, cuts, " ")
        if self.search.finds("".join(parted)):
            parted = _parted(texts, cuts, self.search.hidden)
        return parted

    def value(self, value: Any) -> Any:
        """A JSON value, however deep, in whose strings no marker is left."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            inner = {self.value(key): self.value(item) for key, item in value.items()}
            if len(inner) < len(value):
                raise RowError(REASON, "two keys of a tool or call differ in how it is typed only")
            return inner
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def _cuts(text: str, markers: Iterable[str]) -> dict[int, int]:
    """Where to part a text so that every marker in it is parted: position -> characters to drop."""
    spans = []
    for marker in markers:
        start = text.find(marker)
        while start >= 0:
            spans.append((start + len(marker), start, marker))
            start = text.find(marker, start + 1)
    cuts: dict[int, int] = {}
    last = -1
    for end, start, marker in sorted(spans):
        if len(marker) == 1:
            cuts[start] = 1
        elif not start < last < end:
            last = start + _middle(marker)
            cuts.setdefault(last, 0)
    return cuts


_SIGN_MEETS_LETTER = re.compile(r"(?<=[^\w\s])(?=[^\W_])|(?<=[^\W_])(?=[^\w\s])")


def _middle(marker: str) -> int:
    """Where to part a marker: ``<| im_end|>``, ``[ INST]``, ``### Human :``."""
    found = _SIGN_MEETS_LETTER.search(marker, 1)
    return found.start() if found else 1


def _parted(texts: list[str], cuts: Mapping[int, int], separator: str) -> list[str]:
    """Texts with the separator at every cut; one between two texts goes into the second."""
    parted = []
    begin = 0
    positions = sorted(cuts)
    whole = "".join(texts)
    for text in texts:
        end = begin + len(text)
        pieces = []
        at = begin
        for position in positions:
            if begin <= position < end:
                pieces += [whole[at:position], separator]
                at = position + cuts[position]
        parted.append("".join([*pieces, whole[at:end]]))
        begin = end
    return parted
