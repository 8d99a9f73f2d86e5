r"""Rows -> tokens, and which of them are supervised.

Supervised are the tokens that the model must produce when it is served: the text of every
assistant turn and the stop token that ends it. Where a turn begins is measured, not guessed: the
server will render the turns before it with the generation prompt, and the ids of that rendering
are where the answer starts. Where it ends is the template's stop token.

    ids         <|im_start|> user \n Hi <|im_end|> \n <|im_start|> assistant \n Hello <|im_end|> \n
    supervised       .        .   .  .      .      .       .          .      .   x      x      .
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from data_prep.chat_templates import ChatTemplate
from data_prep.errors import RowError
from data_prep.formats.fields import NOT_FOR_SFT
from data_prep.rows import Completion, Conversation, Labelled, Message, Preference, Row, Text
from data_prep.template_engine import to_json
from data_prep.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row as tokens."""

    ids: list[int]
    supervised: list[bool]
    """Same length as ``ids``: True where the loss is taken."""
    prompt_tokens: int
    """Ids before the last supervised turn: what the server renders when it is asked for it."""
    stop_id: int = -1
    """The token that ends its answers."""


def render(rows: Sequence[Row], template: ChatTemplate) -> list[Rendered | RowError]:
    """Render rows to tokens and masks.

    Args:
        rows: conversations and completions, shape ``[rows]``.
        template: the chat template; completions use only its tokenizer.

    Returns:
        For every row its tokens, or why it cannot be trained on.
    """
    plans = [_attempt(lambda row=row: _plan(row, template)) for row in rows]  # type: ignore[misc]
    texts = [t for plan in plans if isinstance(plan, _Plan) for t in (plan.whole, *plan.tails)]
    ids = iter(template.tokenizer.encode(texts))
    answers: list[Rendered | RowError] = []
    for plan in plans:
        if isinstance(plan, RowError):
            answers.append(plan)
        else:
            whole = [*plan.prefix, *next(ids)]
            tails = [next(ids) for _ in plan.tails]
            answers.append(
                _attempt(lambda p=plan, w=whole, t=tails: _mask(p, w, t, template.tokenizer))  # type: ignore[misc]
            )
    return answers


@dataclass(frozen=True, slots=True)
class _Plan:
    """The texts of one row."""

    whole: str
    prompts: list[str]
    """What the server would render before each supervised turn; beginnings of ``whole``."""
    stop_id: int
    stop: str
    prefix: Sequence[int] = ()
    """Ids that come before each of them."""

    @property
    def tails(self) -> list[str]:
        """Each prompt from its last stop token on.

        Special tokens part a text before it is encoded, so what stands before one does not change
        what comes after. Encoding whole prompts would cost the square of the number of turns.
        """
        return [prompt[max(0, prompt.rfind(self.stop)) :] for prompt in self.prompts]


def _attempt(action: Callable[[], T]) -> T | RowError:
    try:
        return action()
    except RowError as error:
        return error


def _plan(row: Row, template: ChatTemplate) -> _Plan:
    if isinstance(row, Preference | Labelled):
        raise RowError("preference row", NOT_FOR_SFT)
    if isinstance(row, Text):
        row = Completion("", row.text)
    if isinstance(row, Completion):
        _refuse_markers([row.prompt, row.completion], template.tokenizer.markers)
        return _completion_plan(row, template)
    answers = supervised_turns(row)
    _refuse_markers([message.content for message in row.messages], template.markers)
    _refuse_markers(_tool_texts(row), template.markers)
    whole = template.text(row.as_dicts(), generation_prompt=False, tools=row.tools)
    _refuse_lost_parts(row, whole)
    prompts = [_prompt(row, turn, whole, template) for turn in answers]
    return _Plan(whole, prompts, template.stop_id, template.tokenizer.text_of(template.stop_id))


def supervised_turns(row: Conversation) -> list[int]:
    """Which messages the model learns to write: every answer that does not say otherwise.

    Raises:
        RowError: there is none.
    """
    answers = [turn for turn, message in enumerate(row.messages) if message.role == "assistant"]
    if not answers:
        raise RowError("no assistant turn", "there is nothing to learn from this row")
    supervised = [turn for turn in answers if row.messages[turn].train]
    if not supervised:
        raise RowError("nothing supervised", "every assistant turn is marked as not to be trained")
    return supervised


def _prompt(row: Conversation, turn: int, whole: str, template: ChatTemplate) -> str:
    """What the server would render before an answer, once it is sure where the answer ends."""
    messages = row.as_dicts()
    prompt = template.text(messages[:turn], generation_prompt=True, tools=row.tools)
    if not whole.startswith(prompt):
        raise RowError(
            "template is not prefix-stable",
            "the server would render the turns before an answer to other text than training",
        )
    stop = template.tokenizer.text_of(template.stop_id)
    found = whole.find(stop, len(prompt))
    through = whole
    if turn + 1 < len(messages):
        through = template.text(messages[: turn + 1], generation_prompt=False, tools=row.tools)
    # The stop token found may be the end of a later turn: then this one has none of its own.
    if found < 0 or not through.startswith(whole[: found + len(stop)]):
        raise RowError("stop token missing", "an assistant turn does not end in it")
    _refuse_lost_answer(row.messages[turn], whole[len(prompt) : found])
    return prompt


def _refuse_lost_answer(message: Message, rendered: str) -> None:
    """Refuse when what would be learned is not what the answer says and calls."""
    if not rendered.strip():
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


def _completion_plan(row: Completion, template: ChatTemplate) -> _Plan:
    tokenizer = template.tokenizer
    eos = tokenizer.special.get("eos_token", "")
    eos_id = tokenizer.id_of(eos)
    if eos_id is None:
        raise RowError("no end-of-text token", "the tokenizer names none, so nothing would stop")
    prefix = tokenizer.text_prefix_ids
    return _Plan(row.prompt + row.completion + eos, [row.prompt], eos_id, eos, prefix)


def _refuse_markers(contents: Sequence[str], markers: Sequence[str]) -> None:
    beginnings = {marker[:2] for marker in markers}
    for content in contents:
        if not any(beginning in content for beginning in beginnings):
            continue
        for marker in markers:
            if marker in content:
                raise RowError("special token in the text", f"{marker!r} would become a real turn")


def _refuse_lost_parts(row: Conversation, whole: str) -> None:
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


def _tool_texts(row: Conversation) -> list[str]:
    calls = [call for message in row.messages for call in message.tool_calls]
    return [to_json(entry) for entry in (*row.tools, *calls)]


def _mask(plan: _Plan, ids: list[int], tails: list[list[int]], tokenizer: Tokenizer) -> Rendered:
    if tokenizer.doubles_bos(ids):
        raise RowError("doubled beginning-of-text token", "the template writes it twice")
    supervised = [False] * len(ids)
    stops = [index for index, token in enumerate(ids) if token == plan.stop_id]
    start = 0
    for prompt, tail in zip(plan.prompts, tails, strict=True):
        start = _start_of_answer(plan, prompt, tail, ids, stops, tokenizer)
        if not start:
            raise RowError("empty prompt", "nothing comes before the first token to be learned")
        after = bisect_left(stops, start)
        if after == len(stops):
            raise RowError("stop token missing", "an assistant turn does not end in it")
        stop = stops[after]
        supervised[start : stop + 1] = [True] * (stop + 1 - start)
    return Rendered(ids, supervised, start, plan.stop_id)


def _start_of_answer(
    plan: _Plan,
    prompt: str,
    tail: list[int],
    ids: list[int],
    stops: list[int],
    tokenizer: Tokenizer,
) -> int:
    """Where the ids of a prompt end in those of the whole.

    Raises:
        RowError: nowhere: the whole does not begin with the prompt's ids.
    """
    before = prompt.count(plan.stop)
    begin = stops[before - 1] if 0 < before <= len(stops) else len(plan.prefix)
    if ids[begin : begin + len(tail)] == tail:
        return begin + len(tail)
    # Tokenizers that put a mark before any text they encode have put one before the tail.
    (alone,) = tokenizer.encode([prompt])
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
    """The messages to ask a server with so that it gives the row's last supervised answer again."""
    if not isinstance(row, Conversation):
        return []
    asked = [message.as_dict() for message in row.messages[: supervised_turns(row)[-1]]]
    for message in asked:
        for call in message.get("tool_calls", ()):
            # Over HTTP, arguments travel as JSON text.
            arguments = to_json(call["function"]["arguments"])
            call["function"] = call["function"] | {"arguments": arguments}
    return asked
