"""Train a tokenizer, extend a model's vocabulary, and measure what either is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_prep.chat_templates import TEMPLATES, known_templates, load_template
from data_prep.fertility import Fertility, fertility, fertility_by
from data_prep.folders import refuse_taken
from data_prep.new_tokens import NewToken
from data_prep.tokenizer import Tokenizer, load_tokenizer
from data_prep.tokenizer_training import TokenizerSettings, save_tokenizer, train_tokenizer
from data_prep.vocabulary import propose_tokens, tokens_for_words
from llmkit.console import View
from llmkit.corpus import Corpus
from llmkit.errors import UsageError
from llmkit.models.catalog import resolve
from llmkit.recipe_problems import problems_of

SHOWN = 10
"""New tokens that are shown as examples."""


@dataclass(frozen=True)
class Measured:
    """One line of a fertility table."""

    tokenizer: str
    label: str
    """The language, or empty for all texts together."""
    fertility: Fertility

    def as_dict(self) -> dict[str, Any]:
        """The line, for JSON."""
        return {"tokenizer": self.tokenizer, "label": self.label} | self.fertility.as_dict()


@dataclass(frozen=True)
class Extended:
    """What extending a model did."""

    folder: Path
    tokens: list[NewToken]
    examples: list[str]
    rows: int
    """Rows of the embedding matrix."""
    measured: list[Measured]
    """Before and after, on the sources the tokens were found in; empty for named words."""

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "folder": str(self.folder),
            "new_tokens": len(self.tokens),
            "rows": self.rows,
            "tokens_saved": sum(token.gain for token in self.tokens),
            "examples": self.examples,
            "fertility": [line.as_dict() for line in self.measured],
        }


def settings_from(values: dict[str, Any]) -> TokenizerSettings:
    """Check the settings of a new tokenizer.

    Raises:
        UsageError: every problem, each with the setting's name.
    """
    try:
        return TokenizerSettings.model_validate(values)
    except ValidationError as error:
        found = problems_of(error, values, TokenizerSettings)
        raise UsageError("; ".join(message for _, message in found)) from None


def train(
    corpus: Corpus, settings: TokenizerSettings, template: str, out: Path, view: View
) -> tuple[int, list[Measured]]:
    """Train a tokenizer and write it.

    Args:
        corpus: the texts.
        settings: size and kind.
        template: a known chat template's name, or ``none``.
        out: a new folder.
        view: where a person watches.

    Returns:
        Tokens in the vocabulary, and its fertility on the corpus.

    Raises:
        DataError: the corpus or ``out`` cannot be used, or the template does not fit the special
            tokens.
        UsageError: there is no such template.
    """
    refuse_taken(out)
    source = _template(template)
    view.say(f"reading {', '.join(corpus.paths)}")
    backend = train_tokenizer(corpus.texts(), settings, lambda n: view.count("texts read", n))
    _say_what_was_read(corpus, view)
    if source is not None:
        special = {"eos_token": settings.special_tokens[-1]}
        load_template("keep", Tokenizer(out, backend, special, source))
    save_tokenizer(backend, settings, out, source)
    size = backend.get_vocab_size()
    if size < settings.vocab_size:
        view.say(
            f"{size} tokens in place of {settings.vocab_size}: no other pair occurs "
            f"{settings.min_frequency} times in this corpus"
        )
    return size, _measure(out.name, load_tokenizer(out), corpus, view)


def extend(
    model: str,
    corpus: Corpus,
    words: Sequence[str],
    out: Path,
    view: View,
    *,
    count: int,
    min_frequency: int,
    pad_to_multiple_of: int | None,
) -> Extended:
    """Give a model new tokens: those that shorten a corpus most, or named words.

    Args:
        model: a catalogue name, a local folder, or a hub id.
        corpus: where to find tokens; without paths, ``words`` are made tokens.
        words: what to make one token each.
        out: a new folder.
        view: where a person watches.
        count: most tokens to find.
        min_frequency: how often a pair must stand together to become a token.
        pad_to_multiple_of: round the rows of the embedding matrix up.

    Raises:
        DataError: the corpus, the words or ``out`` cannot be used.
        UsageError: there is no such model, or nothing to add to it.
    """
    refuse_taken(out)
    folder = resolve(model, view.say).folder
    old = load_tokenizer(folder)
    if corpus.paths:
        view.say(f"looking for tokens in {', '.join(corpus.paths)}")
        tokens = propose_tokens(
            old, corpus.texts(), count, min_frequency, lambda n: view.count("texts read", n)
        )
        _say_what_was_read(corpus, view)
    else:
        tokens = tokens_for_words(old, words)
    if not tokens:
        raise UsageError(f"{model}: nothing to add: {_why_none(corpus, min_frequency)}")
    from llmkit.models.vocabulary import extend_model

    with view.working(f"giving {model} rows for {len(tokens)} new tokens"):
        extension = extend_model(folder, tokens, out, pad_to_multiple_of=pad_to_multiple_of)
    new = load_tokenizer(out)
    measured = []
    if corpus.paths:
        measured = [*_measure("before", old, corpus, view), *_measure("after", new, corpus, view)]
    examples = [old.decode(token.pieces) for token in tokens[:SHOWN]]
    return Extended(out, tokens, examples, extension.rows, measured)


def _why_none(corpus: Corpus, min_frequency: int) -> str:
    if not corpus.paths:
        return "every word is one token already."
    lower = "--min-frequency 2, or " if min_frequency > 2 else ""
    return (
        f"no two tokens that could be joined stand together {min_frequency} times within a word. "
        f"Try {lower}more text."
    )


def report(names: Sequence[str], corpus: Corpus, view: View) -> list[Measured]:
    """Measure tokenizers on the same texts, each label apart where the corpus has labels.

    Args:
        names: each a folder with a ``tokenizer.json``, a catalogue name, or a hub id.
        corpus: the texts.
        view: where a person watches.
    """
    found: list[Measured] = []
    for name in names:
        folder = Path(name)
        if not (folder / "tokenizer.json").is_file():
            folder = resolve(name, view.say).folder
        found += _measure(name, load_tokenizer(folder), corpus, view)
    _say_what_was_read(corpus, view)
    return found


def _measure(name: str, tokenizer: Tokenizer, corpus: Corpus, view: View) -> list[Measured]:
    def told(texts: int) -> None:
        view.count(f"texts measured ({name})", texts)

    if corpus.label is None:
        return [Measured(name, "", fertility(tokenizer, corpus.texts(), told))]
    by_label = fertility_by(tokenizer, corpus.labelled(), told)
    lines = [Measured(name, label, found) for label, found in by_label.items()]
    return [*lines, Measured(name, "", sum(by_label.values(), Fertility()))]


def _template(name: str) -> str | None:
    if name == "none":
        return None
    if name not in known_templates():
        allowed = ", ".join(["none", *known_templates()])
        raise UsageError(f"--chat-template: {name!r} is not known. Allowed: {allowed}.")
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def _say_what_was_read(corpus: Corpus, view: View) -> None:
    for path, what in corpus.read_as.items():
        view.say(f"{path}: {what}")
    if corpus.left_out:
        view.say(f"{len(corpus.left_out)} rows were left out; the first: {corpus.left_out[0]}")


def read_words(path: Path) -> list[str]:
    """The words of a file, one a line; a space in front counts, empty lines do not.

    Raises:
        UsageError: there is no such file, it is not UTF-8, or it has no words.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error}") from None
    words = [line.rstrip() for line in lines if line.strip()]
    if not words:
        raise UsageError(f"{path}: no words in it. Write one a line.")
    return words
