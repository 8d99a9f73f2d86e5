"""Why a row cannot be written in a format."""

from data_prep.errors import RowError
from data_prep.rows import Completion, Conversation, Labelled, Preference, Row, Text


def refused(format_name: str, what: str) -> RowError:
    """The error for a row that a format has no place for: what would be lost."""
    return RowError(f"cannot be written as {format_name}", what)


def wrong_kind(row: Row, format_name: str) -> RowError:
    """The error for a row of a kind that a format does not hold."""
    if isinstance(row, Preference):
        return refused(format_name, "which answer is the better one would be lost")
    if isinstance(row, Labelled):
        return refused(format_name, "whether its answer is a good one would be lost")
    if format_name == "preference":
        return refused(format_name, "it has no worse answer")
    if format_name == "kto":
        return refused(format_name, "nothing says whether its answer is a good one")
    if isinstance(row, Conversation):
        return refused(format_name, "its turns would be lost")
    if isinstance(row, Completion) and format_name == "text":
        return refused(format_name, "which part of it is the prompt would be lost")
    if isinstance(row, Text) and format_name == "completion":
        return refused(format_name, "it has no prompt")
    return refused(format_name, "it is plain text without turns")


def a_conversation(row: Row, format_name: str) -> Conversation:
    """The row, if it is a conversation.

    Raises:
        RowError: it is of another kind.
    """
    if isinstance(row, Conversation):
        return row
    raise wrong_kind(row, format_name)
