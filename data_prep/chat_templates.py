r"""Render a conversation, and say which tokens are supervised.

Supervised are the tokens that the model must produce when it is served: the text of every
assistant turn and the stop token that ends it. Where a turn begins is measured, not guessed: the
server will render the turns before it with the generation prompt, and the ids of that rendering
are where the answer starts. Where it ends is the template's stop token.

    ids         <|im_start|> user \n Hi <|im_end|> \n <|im_start|> assistant \n Hello <|im_end|> \n
    supervised       .        .   .  .      .      .       .          .      .   x      x      .
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from data_prep.errors import DataError, RowError
from data_prep.rows import Completion, Conversation, Row
from data_prep.tokenizer import Tokenizer, read_template

TEMPLATES = Path(__file__).parent / "templates"

T = TypeVar("T")


class TemplateError(DataError):
    """The chat template is missing, broken, or would train something else than is served."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row as tokens."""

    ids: list[int]
    supervised: list[bool]
    """Same length as ``ids``: True where the loss is taken."""
    prompt_tokens: int
    """Ids before the last supervised turn: what the server renders when it is asked for it."""


class _Generation(jinja2.ext.Extension):
    """Accept ``{% generation %}`` blocks, which some templates carry, and render what they hold."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own interface)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 (as transformers defines the filter)
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment


@dataclass(frozen=True)
class ChatTemplate:
    """A template bound to the tokenizer whose special tokens it uses."""

    name: str
    source: str
    tokenizer: Tokenizer
    stop_id: int
    """The token that ends an assistant turn, measured on a probe conversation."""
    _compiled: jinja2.Template

    @property
    def stop_token(self) -> str:
        """The text of the token that ends an assistant turn."""
        return self.tokenizer.decode([self.stop_id])

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """Texts that would become real turns if they were typed inside a message.

        The tokenizer's special tokens, and what this template writes around turns as plain text:
        ``[INST]``, ``### Human:``.
        """
        return (*self.tokenizer.markers, *_written_markers(self._compiled, self.tokenizer))

    def text(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        generation_prompt: bool,
        tools: Sequence[Any] = (),
    ) -> str:
        """Render messages to text, as the server does.

        Raises:
            RowError: the template refused these messages.
        """
        return _render(self._compiled, self.tokenizer, messages, generation_prompt, tools)


def _render(
    compiled: jinja2.Template,
    tokenizer: Tokenizer,
    messages: Sequence[dict[str, Any]],
    generation_prompt: bool,  # noqa: FBT001 (the templates' own word)
    tools: Sequence[Any] = (),
) -> str:
    try:
        return compiled.render(
            messages=messages,
            tools=list(tools) or None,
            documents=None,
            add_generation_prompt=generation_prompt,
            **tokenizer.special,
        )
    except jinja2.TemplateError as error:
        raise RowError("refused by the chat template", str(error)) from None
    except Exception as error:  # a template is a program of its own: anything may come out of it
        raise RowError("refused by the chat template", f"{type(error).__name__}: {error}") from None


def known_templates() -> list[str]:
    """Names of the templates that come with llmkit."""
    return sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def load_template(choice: str, tokenizer: Tokenizer) -> ChatTemplate:
    """Find a template, compile it, and measure that it can be trained and served with.

    Args:
        choice: ``keep`` for the one the tokenizer carries, a known name, or a .jinja file.
        tokenizer: the tokenizer of the base model.

    Raises:
        TemplateError: there is none, it does not compile, it adds the beginning-of-text token
            twice, it has no generation prompt though it begins an answer with text of its own,
            or an assistant turn does not end in one special token of this tokenizer: then the
            stop token could never be learned.
    """
    source = _find_source(choice, tokenizer)
    try:
        compiled = _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"chat template {choice!r}, line {error.lineno}: {error}") from None
    probe = _TURNS[-2:]
    try:
        text = _render(compiled, tokenizer, probe, generation_prompt=False)
        prompt = _render(compiled, tokenizer, probe[:1], generation_prompt=True)
        question = _render(compiled, tokenizer, probe[:1], generation_prompt=False)
    except RowError as error:
        raise TemplateError(
            f"chat template {choice!r} cannot render a plain turn: {error}"
        ) from None
    for message in probe:
        if message["content"] not in text:
            raise TemplateError(f"chat template {choice!r} drops what a turn says: {text!r}")
    if not text.startswith(prompt):
        raise TemplateError(
            f"chat template {choice!r} is not prefix-stable: the server would render the prompt "
            f"as\n  {prompt!r}\nbut training would see\n  {text!r}"
        )
    header = text[len(prompt) : text.rindex(probe[1]["content"])].strip()
    if header and prompt == question:
        raise TemplateError(
            f"chat template {choice!r} begins an answer with {header!r} but has no generation "
            "prompt, so the served model would have to write that itself. Add "
            "'{% if add_generation_prompt %}' with this text to the template."
        )
    if _doubles_bos(tokenizer.encode([text])[0], tokenizer):
        raise TemplateError(
            f"chat template {choice!r} writes the beginning-of-text token "
            f"{tokenizer.special['bos_token']!r} twice. Remove one from the template."
        )
    return ChatTemplate(choice, source, tokenizer, _stop_id(choice, text, tokenizer), compiled)


_TURNS = [
    {"role": "system", "content": "what-is-ordered"},
    {"role": "user", "content": "what-was-asked"},
    {"role": "assistant", "content": "what-was-answered"},
    {"role": "user", "content": "what-is-asked"},
    {"role": "assistant", "content": "what-is-answered"},
]
"""A conversation to measure templates on."""


def _written_markers(compiled: jinja2.Template, tokenizer: Tokenizer) -> list[str]:
    """What a template writes around turns, special tokens apart, where it looks like a marker."""
    contents = [message["content"] for message in _TURNS]
    known = sorted([*contents, *tokenizer.markers], key=len, reverse=True)
    between = re.compile("|".join(map(re.escape, known)))
    found: set[str] = set()
    for messages in (_TURNS, _TURNS[1:], _TURNS[3:]):
        try:
            text = _render(compiled, tokenizer, messages, generation_prompt=False)
        except RowError:  # it renders no system message, or one turn only
            continue
        found |= {piece.strip() for piece in between.split(text)}
    return sorted(piece for piece in found if _MARKER.fullmatch(piece) and len(piece) <= 40)


_MARKER = re.compile(r"(?=.*[^\W\d_])(?:[^\w\s].*|.*[^\w\s])")
"""A line with a letter that begins or ends in a sign: ``[INST]``, ``USER:``; not ``assistant``."""


def _find_source(choice: str, tokenizer: Tokenizer) -> str:
    if choice == "keep":
        if tokenizer.chat_template is None:
            raise TemplateError(
                f"{tokenizer.folder}: the model carries no chat template. Set model.chat_template "
                f"to a known name ({', '.join(known_templates())}) or to a .jinja file."
            )
        return tokenizer.chat_template
    for path in (TEMPLATES / f"{choice}.jinja", Path(choice)):
        if path.is_file():
            return read_template(path)
    raise TemplateError(
        f"chat template {choice!r}: neither a known name ({', '.join(known_templates())}), "
        f"nor a file, nor 'keep'."
    )


def _doubles_bos(ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    bos = tokenizer.id_of(tokenizer.special.get("bos_token", ""))
    return bos is not None and list(ids[:2]) == [bos, bos]


def _stop_id(choice: str, text: str, tokenizer: Tokenizer) -> int:
    answer = _TURNS[-1]["content"]
    ending = text[text.rindex(answer) + len(answer) :]
    ids = tokenizer.encode([ending])[0] if ending.strip() else []
    # Tokenizers of the SentencePiece family put a word-start mark before any text they encode.
    # The text is compared because a token that is not in the vocabulary becomes <unk>.
    special = (index for index in ids[:2] if index in tokenizer.special_ids)
    stop = next((i for i in special if ending.lstrip().startswith(tokenizer.text_of(i))), None)
    if stop is None:
        raise TemplateError(
            f"chat template {choice!r} ends an assistant turn with {ending!r}, which does not "
            f"begin with a special token of this tokenizer ({', '.join(tokenizer.markers[:8])} "
            "...). The model would never learn to stop. Choose a template made for this model, or "
            "a base model that has the token."
        )
    return stop


def render(rows: Sequence[Row], template: ChatTemplate) -> list[Rendered | RowError]:
    """Render rows to tokens and masks.

    Args:
        rows: conversations and completions, shape ``[rows]``.
        template: the chat template; completions use only its tokenizer.

    Returns:
        For every row its tokens, or why it cannot be trained on.
    """
    plans = [_attempt(lambda row=row: _plan(row, template)) for row in rows]  # type: ignore[misc]
    texts = [text for plan in plans if isinstance(plan, _Plan) for text in plan.texts]
    ids = iter(template.tokenizer.encode(texts))
    answers: list[Rendered | RowError] = []
    for plan in plans:
        if isinstance(plan, RowError):
            answers.append(plan)
        else:
            encoded = [next(ids) for _ in plan.texts]
            answers.append(
                _attempt(lambda p=plan, e=encoded: _mask(p, e, template.tokenizer))  # type: ignore[misc]
            )
    return answers


@dataclass(frozen=True, slots=True)
class _Plan:
    """The texts of one row: each prompt that the server would render, then the whole."""

    texts: list[str]
    stop_id: int


def _attempt(action: Callable[[], T]) -> T | RowError:
    try:
        return action()
    except RowError as error:
        return error


def _plan(row: Row, template: ChatTemplate) -> _Plan:
    if isinstance(row, Completion):
        _refuse_markers([row.prompt, row.completion], template.tokenizer.markers)
        return _completion_plan(row, template)
    answers = [turn for turn, message in enumerate(row.messages) if message.role == "assistant"]
    if not answers:
        raise RowError("no assistant turn", "there is nothing to learn from this row")
    _refuse_markers([message.content for message in row.messages], template.markers)
    _refuse_markers(_tool_texts(row), template.markers)
    whole = template.text(row.as_dicts(), generation_prompt=False, tools=row.tools)
    _refuse_lost_parts(row, whole)
    prompts = [_prompt(row, turn, whole, template) for turn in answers]
    return _Plan([*prompts, whole], template.stop_id)


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
    return prompt


def _completion_plan(row: Completion, template: ChatTemplate) -> _Plan:
    tokenizer = template.tokenizer
    eos = tokenizer.special.get("eos_token", "")
    eos_id = tokenizer.id_of(eos)
    if eos_id is None:
        raise RowError("no end-of-text token", "the tokenizer names none, so nothing would stop")
    prompt = tokenizer.text_prefix + row.prompt
    return _Plan([prompt, prompt + row.completion + eos], eos_id)


def _refuse_markers(contents: Sequence[str], markers: Sequence[str]) -> None:
    for content in contents:
        for marker in markers:
            if marker in content:
                raise RowError("special token in the text", f"{marker!r} would become a real turn")


def _refuse_lost_parts(row: Conversation, whole: str) -> None:
    end = 0
    for message in row.messages:
        said = message.content.strip()
        start = whole.find(said, end)
        if start < 0 and message.role == "tool":  # some templates write results as JSON text
            said = _tojson(said)[1:-1]
            start = whole.find(said, end)
        if start < 0:
            raise RowError("template loses a message", f"what the {message.role} says is missing")
        end = start + len(said)
    for name in _tool_names(row):
        if name not in whole:
            raise RowError("template loses the tools", f"{name!r} is not in the rendered text")


def _tool_names(row: Conversation) -> list[str]:
    """The functions that are offered and called, and the arguments that calls give them."""
    calls = [call["function"] for message in row.messages for call in message.tool_calls]
    offered = [tool.get("function", tool)["name"] for tool in row.tools]
    called = [name for call in calls for name in (call["name"], *call["arguments"])]
    return offered + called


def _tool_texts(row: Conversation) -> list[str]:
    calls = [call for message in row.messages for call in message.tool_calls]
    return [_tojson(entry) for entry in (*row.tools, *calls)]


def _mask(plan: _Plan, encoded: list[list[int]], tokenizer: Tokenizer) -> Rendered:
    *prompts, ids = encoded
    if _doubles_bos(ids, tokenizer):
        raise RowError("doubled beginning-of-text token", "the template writes it twice")
    supervised = [False] * len(ids)
    for prompt in prompts:
        start = len(prompt)
        if not start:
            raise RowError("empty prompt", "nothing comes before the first token to be learned")
        if ids[:start] != prompt:
            raise RowError(
                "answer runs into its prompt",
                "its first characters and the prompt's last ones are one token; the server would "
                "never render that. Leave out the white space an answer begins with",
            )
        try:
            stop = ids.index(plan.stop_id, start)
        except ValueError:
            raise RowError("stop token missing", "an assistant turn does not end in it") from None
        supervised[start : stop + 1] = [True] * (stop + 1 - start)
    return Rendered(ids, supervised, prompt_tokens=len(prompts[-1]))


def as_messages(row: Row) -> list[dict[str, Any]]:
    """The messages to ask a server with so that it answers the row's last turn again."""
    if isinstance(row, Completion):
        return []
    last = max(i for i, message in enumerate(row.messages) if message.role == "assistant")
    asked = [message.as_dict() for message in row.messages[:last]]
    for message in asked:
        for number, call in enumerate(message.get("tool_calls", ())):
            # Over HTTP, arguments travel as JSON text and every call has an id.
            arguments = _tojson(call["function"]["arguments"])
            call["function"] = call["function"] | {"arguments": arguments}
            call.setdefault("id", f"call_{number}")
    return asked
