"""Where answers begin in a rendering, measured by rendering what the server will be asked with.

The server renders the turns before an answer; that text must be how the whole row's begins. For
every answer of a long conversation that would cost the square of its turns. So beyond ``WINDOW``
answers, an answer is measured together with the turns since one that was measured before:

    whole     |.......................... q7 |a7.. q8 |a8.. q9 |a9..
    window                    system, or not: q7 |a7.. q8 |

What the window has after its first prompt must be what the whole has after that same prompt. Where
it is not, and for the last answer, all turns are rendered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.chat_templates import ChatTemplate
from data_prep.errors import RowError
from data_prep.lost_parts import refuse_lost_answer
from data_prep.rows import Conversation

WINDOW = 32
"""Answers measured before a window moves on."""


def answer_starts(
    row: Conversation, turns: Sequence[int], whole: str, template: ChatTemplate
) -> list[int]:
    """Where some answers begin.

    Args:
        row: the conversation.
        turns: the indices of assistant messages, ascending.
        whole: the rendering of all messages.
        template: what rendered it.

    Returns:
        For each turn the length of its prompt, which is what ``whole`` begins with.

    Raises:
        RowError: the server would render a prompt otherwise, an answer has no stop token of its
            own, or something that it says is lost.
    """
    measuring = _Measuring(row, whole, template)
    starts: list[int] = []
    for index, turn in enumerate(turns):
        starts.append(measuring.start_of(turn, last=turn == turns[-1]))
        if index % WINDOW == WINDOW - 1:
            measuring.move_window(turn, starts[-1])
    return starts


@dataclass(slots=True)
class _Measuring:
    """One conversation while its answers are measured."""

    row: Conversation
    whole: str
    template: ChatTemplate
    messages: list[dict[str, Any]] = field(init=False)
    stop: str = field(init=False)
    before: list[dict[str, Any]] = field(init=False, default_factory=list)
    """What stands in the window before the turns from ``first`` on."""
    first: int = 0
    known: int = 0
    """How much of ``whole`` lies before what is measured in the window."""
    skipped: str = ""
    """What the window renders that is known."""

    def __post_init__(self) -> None:
        self.messages = self.row.as_dicts()
        self.stop = self.template.tokenizer.text_of(self.template.stop_id)

    def start_of(self, turn: int, *, last: bool) -> int:
        """The length of an answer's prompt, once it is sure where the answer ends."""
        if self.first and not last:
            try:
                return self._measured(turn, self.before, self.first, self.known, self.skipped)
            except RowError:  # the template writes these turns otherwise after others
                pass
        return self._measured(turn, [], 0, 0, "")

    def move_window(self, turn: int, start: int) -> None:
        """Measure what follows in a window that begins with the question to an answer."""
        if self.messages[turn - 1]["role"] != "user":
            return
        system = self.messages[:1] if self.messages[0]["role"] == "system" else []
        asked = [*system, *self.messages[turn - 1 : turn]]
        try:
            skipped = self._text(asked, generation_prompt=True)
        except RowError:
            return
        self.before, self.first, self.known, self.skipped = system, turn - 1, start, skipped

    def _measured(
        self, turn: int, before: list[dict[str, Any]], first: int, known: int, skipped: str
    ) -> int:
        shown = [*before, *self.messages[first : turn + 1]]
        prompt = self._text(shown[:-1], generation_prompt=True)
        if not (
            prompt.startswith(skipped) and self.whole.startswith(prompt[len(skipped) :], known)
        ):
            raise RowError(
                "template is not prefix-stable",
                "the server would render the turns before an answer to other text than training",
            )
        start = known + len(prompt) - len(skipped)
        found = self.whole.find(self.stop, start)
        end = found + len(self.stop)
        if found >= 0 and turn + 1 < len(self.messages):
            # The stop token found may be the end of a later turn: then this one has none.
            through = self._text(shown, generation_prompt=False)
            if not through.startswith(prompt + self.whole[start:end]):
                found = -1
        if found < 0:
            raise RowError("stop token missing", "an assistant turn does not end in it")
        refuse_lost_answer(self.row.messages[turn], self.whole[start:found])
        return start

    def _text(self, messages: list[dict[str, Any]], *, generation_prompt: bool) -> str:
        tools = self.row.tools
        return self.template.text(messages, generation_prompt=generation_prompt, tools=tools)
