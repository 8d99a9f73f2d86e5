r"""Rows -> tokens, and which of them are supervised.

Supervised are the tokens that the model must produce when it is served: the text of every
assistant turn and the stop token that ends it. Where a turn begins is measured, not guessed: the
server will render the turns before it with the generation prompt, and the ids of that rendering
are where the answer starts. Where it ends is the template's stop token.

    ids         <|im_start|> user \n Hi <|im_end|> \n <|im_start|> assistant \n Hello <|im_end|> \n
    answers          .        .   .  .      .      .       .          .      .   x      x      .
    all              .        x   x  x      x      x       x          x      x   x      x      x
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_prep.answer_starts import answer_starts
from data_prep.chat_templates import ChatTemplate
from data_prep.errors import RowError
from data_prep.formats.fields import FOR_PREFERENCES
from data_prep.lost_parts import refuse_lost_parts
from data_prep.markers import markers_of, refuse_markers
from data_prep.rows import Completion, Conversation, Labelled, Preference, Row, Text
from data_prep.template_engine import to_json
from data_prep.tokenizer import Tokenizer

T = TypeVar("T")

Supervise = Literal["answers", "last", "all"]
"""What carries loss.

- ``answers``: every assistant turn that does not say ``train: false``.
- ``last``: the last assistant turn alone; a row where it says ``train: false`` is refused.
- ``all``: every token but the first, which nothing precedes, and but the assistant turns that say
  ``train: false``.

Of a completion, the first two learn the completion, the last one its prompt too. Plain text is
learned as a whole.
"""

BATCH = 1024
"""Rows encoded at once: enough to keep every core busy, few enough to keep memory small."""


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One row as tokens."""

    ids: NDArray[np.int32]
    """Shape ``[tokens]``."""
    supervised: NDArray[np.bool_]
    """Shape ``[tokens]``: True where the loss is taken."""
    prompt_tokens: int
    """Ids before the last learned answer: what the server renders when it is asked for it. Of
    plain text, what the tokenizer puts before it."""
    stop_id: int = -1
    """The token that ends its answers."""
    answer_stops: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Where its answers end: places of stop tokens in ``ids``, ascending. Answers that are not
    learned count under ``all`` alone."""


def render(
    rows: Sequence[Row], template: ChatTemplate, supervise: Supervise = "answers"
) -> list[Rendered | RowError]:
    """Render rows to tokens and masks.

    Args:
        rows: shape ``[rows]``.
        template: the chat template; completions and plain text use only its tokenizer.
        supervise: what carries loss.

    Returns:
        For every row its tokens, or why it cannot be trained on.
    """
    answers: list[Rendered | RowError] = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        plans = [_attempt(_plan, row, template, supervise) for row in batch]
        made = [plan for plan in plans if isinstance(plan, _Plan)]
        # Many rows have the same tail: a template's own words between two turns.
        tails = dict.fromkeys(tail for plan in made for tail in plan.tails)
        texts = [*tails, *(plan.whole for plan in made)]
        encoded = iter(template.tokenizer.encode(texts))
        tail_ids = {tail: next(encoded) for tail in tails}
        answers += [
            plan
            if isinstance(plan, RowError)
            else _attempt(_mask, plan, next(encoded), tail_ids, template.tokenizer)
            for plan in plans
        ]
    return answers


@dataclass(frozen=True, slots=True)
class _Plan:
    """The texts of one row."""

    whole: str
    starts: list[int]
    """Where each measured answer begins in ``whole``: after what the server would render."""
    learned: list[bool]
    """For each of them, whether it is supervised."""
    stop_id: int
    stop: str
    context: bool
    """Whether what is no answer is supervised too."""
    prefix: tuple[int, ...] = ()
    """Ids that come before the whole."""

    @property
    def tails(self) -> list[str]:
        """Each prompt from its last stop token on.

        Special tokens part a text before it is encoded, so what stands before one does not change
        what comes after. Encoding whole prompts would cost the square of the number of turns.
        """
        begins = (max(0, self.whole.rfind(self.stop, 0, start)) for start in self.starts)
        return [self.whole[begin:start] for begin, start in zip(begins, self.starts, strict=True)]


def _attempt(action: Callable[..., T], *arguments: Any) -> T | RowError:
    try:
        return action(*arguments)
    except RowError as error:
        return error


NOT_PLAIN = (
    "pre-training learns plain text, all of it. Leave the row out, learn its answers with "
    'training.method=sft, or write it as text: {"text": ...}'
)


def _plan(row: Row, template: ChatTemplate, supervise: Supervise) -> _Plan:
    if not template.turns and not isinstance(row, Text):
        raise RowError(f"{_KINDS.get(type(row), 'preference')} row", NOT_PLAIN)
    if isinstance(row, Preference | Labelled):
        raise RowError("preference row", FOR_PREFERENCES)
    if isinstance(row, Conversation):
        return _conversation_plan(row, template, supervise)
    refuse_markers(row, markers_of(row, template))
    tokenizer = template.tokenizer
    eos = tokenizer.special.get("eos_token", "")
    eos_id = tokenizer.id_of(eos)
    if eos_id is None:
        raise RowError("no end-of-text token", "the tokenizer names none, so nothing would stop")
    prefix = tokenizer.text_prefix_ids
    if isinstance(row, Completion):
        whole = row.prompt + row.completion + eos
        context = supervise == "all"
        return _Plan(whole, [len(row.prompt)], [True], eos_id, eos, context=context, prefix=prefix)
    if not row.text.strip():
        raise RowError("empty answer", "there is no text to learn")
    return _Plan(row.text + eos, [], [], eos_id, eos, context=True, prefix=prefix)


_KINDS: dict[type, str] = {Conversation: "chat", Completion: "prompt with completion"}


def _conversation_plan(row: Conversation, template: ChatTemplate, supervise: Supervise) -> _Plan:
    learned = supervised_turns(row, supervise)
    # Under ``all``, the other answers are measured too, to leave them out.
    turns = _answers(row) if supervise == "all" else learned
    refuse_markers(row, markers_of(row, template))
    whole = template.text(row.as_dicts(), generation_prompt=False, tools=row.tools)
    refuse_lost_parts(row, whole, template)
    stop = template.tokenizer.text_of(template.stop_id)
    starts = answer_starts(row, turns, whole, template)
    flags = [turn in learned for turn in turns]
    context = supervise == "all"
    return _Plan(whole, starts, flags, template.stop_id, stop, context=context)


def _answers(row: Conversation) -> list[int]:
    return [turn for turn, message in enumerate(row.messages) if message.role == "assistant"]


def supervised_turns(row: Conversation, supervise: Supervise = "answers") -> list[int]:
    """Which messages the model learns to write.

    Raises:
        RowError: there is none.
    """
    answers = _answers(row)
    if not answers:
        raise RowError("no assistant turn", "there is nothing to learn from this row")
    if supervise == "last":
        if not row.messages[answers[-1]].train:
            raise RowError(
                "nothing supervised", "the last assistant turn is marked as not to be trained"
            )
        return answers[-1:]
    supervised = [turn for turn in answers if row.messages[turn].train]
    if not supervised:
        raise RowError("nothing supervised", "every assistant turn is marked as not to be trained")
    return supervised


def _mask(
    plan: _Plan, ids: list[int], tail_ids: Mapping[str, list[int]], tokenizer: Tokenizer
) -> Rendered:
    ids = [*plan.prefix, *ids] if plan.prefix else ids
    if tokenizer.doubles_bos(ids):
        raise RowError("doubled beginning-of-text token", "the template writes it twice")
    supervised = np.full(len(ids), plan.context)
    supervised[0] = False
    stops = list(_positions(plan.stop_id, ids))
    written = [match.end() for match in re.finditer(re.escape(plan.stop), plan.whole)]
    prompt_tokens = len(plan.prefix)
    answer_stops = []
    for end, tail, learned in zip(plan.starts, plan.tails, plan.learned, strict=True):
        before = bisect_right(written, end)
        begin = stops[before - 1] if 0 < before <= len(stops) else len(plan.prefix)
        start = _start_of_answer(plan, end, tail_ids[tail], ids, begin, tokenizer)
        if not start:
            raise RowError("empty prompt", "nothing comes before the first token to be learned")
        after = bisect_left(stops, start)
        if after == len(stops):
            raise RowError("stop token missing", "an assistant turn does not end in it")
        stop = stops[after]
        answer_stops.append(stop)
        supervised[start : stop + 1] = learned
        prompt_tokens = start if learned else prompt_tokens
    if (
        not supervised.any()
    ):  # a tokenizer without bytes may have no token for anything that it says
        raise RowError("nothing supervised", "the tokenizer makes no token of what it says")
    return Rendered(
        np.array(ids, np.int32),
        supervised,
        prompt_tokens,
        plan.stop_id,
        np.array(answer_stops, np.int64),
    )


def _positions(token: int, ids: list[int]) -> Iterator[int]:
    at = -1
    try:
        while True:
            at = ids.index(token, at + 1)
            yield at
    except ValueError:
        return


def _start_of_answer(
    plan: _Plan, end: int, tail: list[int], ids: list[int], begin: int, tokenizer: Tokenizer
) -> int:
    """Where the ids of a prompt end in those of the whole.

    Args:
        plan: of the row.
        end: where the prompt ends in the text.
        tail: the ids of its tail.
        ids: of the whole.
        begin: where the tail begins among them.
        tokenizer: what encoded them.

    Raises:
        RowError: nowhere: the whole does not begin with the prompt's ids.
    """
    if ids[begin : begin + len(tail)] == tail:
        return begin + len(tail)
    # Tokenizers that put a mark before any text they encode have put one before the tail.
    (alone,) = tokenizer.encode([plan.whole[:end]])
    found = [*plan.prefix, *alone]
    if ids[: len(found)] != found:
        raise RowError(
            "answer runs into its prompt",
            "its first characters and the prompt's last ones are one token; the server would "
            "never render that. Leave out the white space that the answer begins with, or that "
            "a completion's prompt ends with",
        )
    return len(found)


def as_messages(row: Row) -> list[dict[str, Any]]:
    """The messages to ask a server with so that it gives the row's last learned answer again."""
    if not isinstance(row, Conversation):
        return []
    asked = [message.as_dict() for message in row.messages[: supervised_turns(row)[-1]]]
    for message in asked:
        for call in message.get("tool_calls", ()):
            # Over HTTP, arguments travel as JSON text.
            arguments = to_json(call["function"]["arguments"])
            call["function"] = call["function"] | {"arguments": arguments}
    return asked
