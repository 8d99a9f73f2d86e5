"""A conversation as formats see it that know only questions and answers."""

from dataclasses import dataclass

from data_prep.formats.refusals import a_conversation, refused
from data_prep.rows import Row


@dataclass(frozen=True, slots=True)
class Exchanges:
    """A conversation of nothing but questions and their answers."""

    system: str
    """Empty when there is none."""
    pairs: list[tuple[str, str]]
    """Each question with its answer; at least one."""

    @staticmethod
    def of(row: Row, format_name: str) -> "Exchanges":
        """Take a row apart.

        Raises:
            RowError: it holds what questions and answers cannot: it is no conversation, offers or
                calls tools, has a turn that is not supervised, or its turns are out of order.
        """
        conversation = a_conversation(row, format_name)
        turns = list(conversation.messages)
        if conversation.tools:
            raise refused(format_name, "the tools it offers would be lost")
        if any(turn.tool_calls or turn.role == "tool" for turn in turns):
            raise refused(format_name, "its tool calls and their results would be lost")
        if not all(turn.train for turn in turns):
            raise refused(format_name, "that a turn is not to be trained would be lost")
        system = turns.pop(0).content if turns and turns[0].role == "system" else ""
        roles = [turn.role for turn in turns]
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            raise refused(format_name, "its turns are not questions each with an answer")
        said = [turn.content for turn in turns]
        return Exchanges(system, list(zip(said[::2], said[1::2], strict=True)))

    def only(self, format_name: str) -> tuple[str, str]:
        """The question and the answer, where there is one of each.

        Raises:
            RowError: there are several turns.
        """
        if len(self.pairs) > 1:
            raise refused(format_name, "its turns before the last question would be lost")
        return self.pairs[0]
