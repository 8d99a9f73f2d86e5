"""What a row says, as text: all of it, what is asked, what is answered."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from data_prep.rows import Completion, Labelled, Message, Preference, Row, Said, Text


def whole_text(row: Row) -> str:
    """All of a row: its turns with their roles, its calls and tools. Equal texts, equal rows."""
    # Lengths stand before contents, so that no content can pass for another turn.
    if isinstance(row, Completion):
        return f"{len(row.prompt)}:{row.prompt}{row.completion}"
    if isinstance(row, Text):
        return f"text:{row.text}"
    if isinstance(row, Labelled):
        return f"labelled{row.label:d}:{len(row.prompt)}:{whole_text(row.row)}"
    if isinstance(row, Preference):
        chosen, rejected = whole_text(row.chosen_row), whole_text(row.rejected_row)
        return f"preference{len(row.prompt)}:{len(chosen)}:{chosen}{rejected}"
    parts = [f"{m.role}{m.train:d}{len(m.content)}:{m.content}" for m in row.messages]
    extra = [row.tools, *(_calls(message) for message in row.messages)]
    if any(extra):
        parts.append(json.dumps(extra, ensure_ascii=False, sort_keys=True, default=str))
    return "".join(parts)


def opposite(row: Preference | Labelled) -> Preference | Labelled:
    """The row that contradicts a row: the same answers with the other one, or label, as the better.

    A row of which neither is the better says what its opposite says.
    """
    if isinstance(row, Labelled):
        return replace(row, label=not row.label)
    return replace(row, chosen=row.rejected, rejected=row.chosen)


def prompt_text(row: Row) -> str:
    """What everybody but the assistant says; of a preference, before the two answers."""
    if isinstance(row, Text):
        return ""
    if isinstance(row, Completion):
        return row.prompt
    if isinstance(row, Preference | Labelled):
        return row.prompt if isinstance(row.prompt, str) else _asked(row.prompt)
    return _asked(row.messages)


def response_text(row: Row) -> str:
    """What the assistant says, its calls included; of a preference, both answers."""
    if isinstance(row, Preference):
        return f"{answer_text(row.chosen)}\n{answer_text(row.rejected)}"
    return better_text(row)


def better_text(row: Row) -> str:
    """What the assistant should say; of a preference, the better answer."""
    if isinstance(row, Text):
        return row.text
    if isinstance(row, Completion):
        return row.completion
    if isinstance(row, Preference | Labelled):
        return answer_text(row.chosen if isinstance(row, Preference) else row.completion)
    return _answered(row.messages)


def text_of(row: Row, on: str) -> str:
    """The ``prompt``, the ``response``, or ``both``."""
    texts = {"prompt": prompt_text, "response": response_text}
    return texts[on](row) if on in texts else f"{prompt_text(row)}\n{response_text(row)}"


def answer_text(answer: Said) -> str:
    """What the assistant says in one answer of a preference, its calls included."""
    return answer if isinstance(answer, str) else _answered(answer)


def _asked(turns: Iterable[Message]) -> str:
    return "\n".join(m.content for m in turns if m.role != "assistant")


def _answered(turns: Iterable[Message]) -> str:
    return "\n".join(_said(m) for m in turns if m.role == "assistant")


def _calls(message: Message) -> list[Any]:
    """What a message calls; the calls' ids say nothing."""
    return [call["function"] for call in message.tool_calls]


def _said(message: Message) -> str:
    calls = [json.dumps(call, ensure_ascii=False, default=str) for call in _calls(message)]
    return "\n".join([message.content, *calls])
