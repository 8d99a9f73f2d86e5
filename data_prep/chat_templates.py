"""Find a chat template, and measure that it can be trained and served with."""

import datetime
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from data_prep.errors import DataError, RowError
from data_prep.template_engine import compile_template, dates_written, run_template, with_date
from data_prep.tokenizer import Tokenizer, read_template

TEMPLATES = Path(__file__).parent / "templates"


class TemplateError(DataError):
    """The chat template is missing, broken, or would train something else than is served."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template bound to the tokenizer whose special tokens it uses."""

    name: str
    source: str
    tokenizer: Tokenizer
    stop_id: int
    """The token that ends an assistant turn, measured on a probe conversation; without turns, the
    one that ends a text."""
    _compiled: jinja2.Template
    turns: bool = True
    """Whether rows may have turns; if not, they are plain text and this is only carried along."""

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: compiled templates do not travel, their source does."""
        return {key: value for key, value in self.__dict__.items() if key != "_compiled"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _compiled=compile_template(state["source"]))

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
        return run_template(self._compiled, self.tokenizer, messages, generation_prompt, tools)


def known_templates() -> list[str]:
    """Names of the templates that come with llmkit."""
    return sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def load_template(
    choice: str, tokenizer: Tokenizer, date: datetime.date | None = None
) -> ChatTemplate:
    """Find a template, compile it, and measure that it can be trained and served with.

    Args:
        choice: ``keep`` for the one the tokenizer carries, a known name, or a .jinja file.
        tokenizer: the tokenizer of the base model.
        date: what a template that writes today's date writes instead, in training and serving.

    Raises:
        TemplateError: there is none, it does not compile, it adds the beginning-of-text token
            twice, it writes today's date and ``date`` is None, it has no generation prompt though
            it begins an answer with text of its own, or an assistant turn does not end in one
            special token of this tokenizer: then the stop token could never be learned.
    """
    source = _find_source(choice, tokenizer)
    try:
        source = _fix_date(choice, source, date)
        compiled = compile_template(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"chat template {choice!r}, line {error.lineno}: {error}") from None
    probe = _TURNS[-2:]
    try:
        text = run_template(compiled, tokenizer, probe, generation_prompt=False)
        prompt = run_template(compiled, tokenizer, probe[:1], generation_prompt=True)
        question = run_template(compiled, tokenizer, probe[:1], generation_prompt=False)
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
    if tokenizer.doubles_bos(tokenizer.encode([text])[0]):
        raise TemplateError(
            f"chat template {choice!r} writes the beginning-of-text token "
            f"{tokenizer.special['bos_token']!r} twice. Remove one from the template."
        )
    return ChatTemplate(choice, source, tokenizer, _stop_id(choice, text, tokenizer), compiled)


def without_turns(
    choice: str, tokenizer: Tokenizer, date: datetime.date | None = None
) -> ChatTemplate:
    """What stands in a template's place where all rows are plain text.

    A model need not have a template for that. One that it carries is passed on as it is, unmeasured
    and unused; one that is named is measured as ever.

    Args:
        choice: as for `load_template`; with ``keep`` there may be none, and the source is empty.
        tokenizer: the tokenizer of the base model.
        date: as for `load_template`.

    Raises:
        TemplateError: the tokenizer names no token that ends a text, or the template that was named
            cannot be used.
    """
    stop = tokenizer.id_of(tokenizer.special.get("eos_token", ""))
    if stop is None:
        raise TemplateError(
            f"{tokenizer.folder}: the tokenizer names no end-of-text token, so nothing would end a "
            'text. Name one in tokenizer_config.json: "eos_token".'
        )
    source = tokenizer.chat_template or ""
    if choice != "keep":
        source = load_template(choice, tokenizer, date).source
    try:
        compiled = compile_template(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"chat template {choice!r}, line {error.lineno}: {error}") from None
    return ChatTemplate(choice, source, tokenizer, stop, compiled, turns=False)


def _fix_date(choice: str, source: str, date: datetime.date | None) -> str:
    formats = dates_written(source)
    if not formats:
        return source
    if not all(formats):
        raise TemplateError(
            f"chat template {choice!r} writes today's date in a format that it computes, or calls "
            "strftime_now by another name, so that the date cannot be fixed. Write it as "
            "strftime_now('%d %b %Y') there, or leave it out of the template."
        )
    if date is None:
        raise TemplateError(
            f"chat template {choice!r} writes today's date, so that the model would be served with "
            "another prompt every day than it was trained with. Set model.template_date, e.g. to "
            "2024-07-26: it is written in training and saved with the model's template."
        )
    return with_date(source, date)


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
            text = run_template(compiled, tokenizer, messages, generation_prompt=False)
        except RowError:  # it renders no system message, or one turn only
            continue
        found |= {piece.strip() for piece in between.split(text)}
    markers = {piece for piece in found if _MARKER.fullmatch(piece) and len(piece) <= 40}
    # [INST] <<SYS>> is two markers, of which the first is also found alone.
    rests = {long.removeprefix(first).strip() for long in markers for first in markers}
    markers |= {rest for rest in rests if _MARKER.fullmatch(rest)}
    return sorted(m for m in markers if not any(m != other in m for other in markers))


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
        with suppress(OSError):  # a name too long to be a file's, for one
            if path.is_file():
                return read_template(path)
    raise TemplateError(
        f"chat template {choice!r}: neither a known name ({', '.join(known_templates())}), "
        f"nor a file, nor 'keep'."
    )


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
