"""What is refused of each kind of row, because it would train silently wrong."""

from dataclasses import replace

from data_prep.errors import RowError
from data_prep.rows import (
    Completion,
    Conversation,
    Labelled,
    Preference,
    Row,
    Said,
    Text,
    check_conversation,
    merge_repeated_roles,
    merge_turns,
)

EQUAL_ANSWERS = "equal answers"
"""Why a pair goes that says the same twice."""


def check_row(row: Row) -> None:
    """Refuse what would train silently wrong.

    Raises:
        RowError: as `check_conversation` says; ``empty answer``; ``empty text``; of preferences
            and labelled answers also ``role order`` where a prompt does not end with what is to
            be answered, or an answer does not begin and end with the assistant; and
            ``equal answers`` where the better answer is the worse one.
    """
    if isinstance(row, Conversation):
        check_conversation(row)
    elif isinstance(row, Completion):
        if not row.completion.strip():
            raise RowError("empty answer", "'completion' has no text")
    elif isinstance(row, Text):
        if not row.text.strip():
            raise RowError("empty text", "there is nothing to learn from this row")
    elif isinstance(row, Labelled):
        _check_answer(row.prompt, row.completion, "completion")
        check_row(row.row)
    else:
        _check_preference(row)


def _check_preference(row: Preference) -> None:
    _check_answer(row.prompt, row.chosen, "chosen")
    _check_answer(row.prompt, row.rejected, "rejected")
    check_row(row.chosen_row)
    check_row(row.rejected_row)
    if _said(row.chosen) == _said(row.rejected):
        raise RowError(EQUAL_ANSWERS, "'chosen' says the same as 'rejected': neither is better")


def _check_answer(prompt: Said, answer: Said, name: str) -> None:
    if isinstance(prompt, str) or isinstance(answer, str):
        if not (isinstance(answer, str) and answer.strip()):
            raise RowError("empty answer", f"{name!r} has no text")
        return
    if not answer:
        raise RowError("empty answer", f"{name!r} has no turn")
    if not prompt:
        raise RowError("empty prompt", "no turn comes before the answer")
    if prompt[-1].role not in ("user", "tool"):
        raise RowError("role order", f"the prompt ends with {prompt[-1].role!r}, not with a user")
    for which, turn in (("begins", answer[0]), ("ends", answer[-1])):
        if turn.role != "assistant":
            raise RowError("role order", f"{name!r} {which} with {turn.role!r}, not 'assistant'")


def _said(answer: Said) -> object:
    """What an answer says and calls; the ends of its texts and whether it is trained do not count.

    Two answers that differ in white space at their ends alone are no choice.
    """
    if isinstance(answer, str):
        return answer.strip()
    return [
        (turn.role, turn.content.strip(), [call["function"] for call in turn.tool_calls])
        for turn in answer
    ]


def merge_roles(row: Row) -> Row:
    """Join neighbouring turns of one role, in every part of a row that has turns."""
    if isinstance(row, Conversation):
        return merge_repeated_roles(row)
    if isinstance(row, Preference):
        prompt, chosen, rejected = map(_merged, (row.prompt, row.chosen, row.rejected))
        return replace(row, prompt=prompt, chosen=chosen, rejected=rejected)
    if isinstance(row, Labelled):
        return replace(row, prompt=_merged(row.prompt), completion=_merged(row.completion))
    return row


def _merged(said: Said) -> Said:
    return said if isinstance(said, str) else merge_turns(said)
