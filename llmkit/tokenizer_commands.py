"""``llmkit tokenizer``: parsing and printing only. Nothing heavy is imported here."""

# ruff: noqa: FBT002 (typer options are booleans with defaults)

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmkit.tokenizers import Measured

app = typer.Typer(help="Tokenizers: train one, extend one, measure them.", no_args_is_help=True)

SOURCES = "Text or rows: files, folders, patterns, hub ids."

Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Out = Annotated[Path, typer.Option("--out", help="A new folder.")]
Field = Annotated[
    list[str] | None,
    typer.Option("--field", help="A field of the rows that holds text; may be repeated."),
]


@app.command()
def train(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCES...", help=SOURCES)],
    out: Out,
    vocab_size: Annotated[int, typer.Option("--vocab-size", help="Tokens in all.")],
    min_frequency: Annotated[
        int, typer.Option("--min-frequency", help="Pairs that occur less often are not merged.")
    ] = 2,
    pre_tokenizer: Annotated[
        str,
        typer.Option("--pre-tokenizer", help="single-digits, llama-3 or gpt-2: how text is cut."),
    ] = "single-digits",
    special: Annotated[
        list[str] | None, typer.Option("--special", help="A special token; may be repeated.")
    ] = None,
    chat_template: Annotated[
        str, typer.Option("--chat-template", help="A known template to carry along, or none.")
    ] = "chatml",
    field: Field = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a byte-level BPE tokenizer.

    Nothing is unknown to it; the same sources give the same files.
    """
    from llmkit import tokenizers
    from llmkit.console import choose_view
    from llmkit.corpus import Corpus

    values = {
        "vocab_size": vocab_size,
        "min_frequency": min_frequency,
        "pre_tokenizer": pre_tokenizer,
        **({"special_tokens": special} if special else {}),
    }
    settings = tokenizers.settings_from(values)
    corpus = Corpus(sources, field or ())
    with closing(choose_view(quiet, as_json)) as view:
        size, measured = tokenizers.train(corpus, settings, chat_template, out, view)
    if as_json:
        _print_json({"folder": str(out), "tokens": size, "fertility": _dicts(measured)})
    elif not quiet:
        typer.echo(f"{size} tokens in {out}")
        _print_table(measured)


@app.command()
def extend(
    model: Annotated[str, typer.Argument(help="A catalogue name, a model folder, or a hub id.")],
    out: Out,
    sources: Annotated[
        list[str] | None, typer.Option("--from", help="Find tokens in these files; repeatable.")
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option("--tokens", exists=True, dir_okay=False, help="A file of words, one a line."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Most tokens to find.")] = 500,
    min_frequency: Annotated[
        int, typer.Option("--min-frequency", min=1, help="How often a new token must occur.")
    ] = 5,
    pad_to_multiple_of: Annotated[
        int | None,
        typer.Option(
            "--pad-to-multiple-of", min=1, max=65536, help="Round the model's rows up to this."
        ),
    ] = None,
    field: Field = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Add tokens to a model's vocabulary.

    Old ids and rows stay; each new row is the mean of the rows of its pieces.
    """
    from llmkit import tokenizers
    from llmkit.console import choose_view
    from llmkit.corpus import Corpus
    from llmkit.errors import UsageError

    if bool(sources) == bool(tokens):
        raise UsageError("give either --from SOURCE, to find tokens in, or --tokens FILE.")
    with closing(choose_view(quiet, as_json)) as view:
        done = tokenizers.extend(
            model,
            Corpus(sources or [], field or ()),
            tokenizers.read_words(tokens) if tokens else [],
            out,
            view,
            count=count,
            min_frequency=min_frequency,
            pad_to_multiple_of=pad_to_multiple_of,
        )
    if as_json:
        _print_json(done.as_dict())
    elif not quiet:
        shown = ", ".join(map(repr, done.examples))
        more = ", ..." if len(done.tokens) > len(done.examples) else ""
        typer.echo(
            f"{len(done.tokens)} new tokens in {done.folder}, {done.rows} rows: {shown}{more}"
        )
        _print_table(done.measured)


@app.command()
def report(
    tokenizer: Annotated[str, typer.Argument(help="A folder, a catalogue name, or a hub id.")],
    on: Annotated[list[str], typer.Option("--on", help="Measure on these files; repeatable.")],
    other: Annotated[str | None, typer.Argument(help="One to compare it with.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="A field to tell texts apart by, e.g. lang.")
    ] = None,
    field: Field = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure what words cost under one tokenizer or two.

    Tokens a word, bytes and characters a token, and the share of words that stay whole.
    """
    from llmkit import tokenizers
    from llmkit.console import choose_view
    from llmkit.corpus import Corpus

    corpus = Corpus(on, field or (), by)
    names = [tokenizer, *([other] if other else [])]
    with closing(choose_view(quiet, as_json)) as view:
        measured = tokenizers.report(names, corpus, view)
    if as_json:
        _print_json({"fertility": _dicts(measured)})
    elif not quiet:
        _print_table(measured)


def _dicts(measured: "list[Measured]") -> list[dict[str, object]]:
    return [line.as_dict() for line in measured]


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, ensure_ascii=False))


COVERED = 0.9
"""Where words are less of a text than this, their fertility is not shown as the text's."""


def _print_table(measured: "list[Measured]") -> None:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    head: tuple[str, ...] = ("tokenizer", "", "tokens", "tokens/word", "whole words")
    head = (*head, "words cover", "bytes/token", "chars/token")
    lines = []
    unspaced = False
    for line in measured:
        found = line.fertility
        covered = found.covered_share
        says_nothing = covered is not None and covered < COVERED
        unspaced |= says_nothing
        lines.append(
            (
                line.tokenizer,
                line.label or "all",
                f"{found.tokens:,}",
                number(None if says_nothing else found.tokens_per_word),
                number(None if says_nothing else found.whole_word_share),
                "-" if covered is None else f"{covered:.0%}",
                number(found.bytes_per_token),
                number(found.characters_per_token),
            )
        )
    if not lines:
        return
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for cells in (head, *lines):
        left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
        typer.echo("  ".join([*left, *right]))
    if unspaced:
        typer.echo(
            "-: a script that is written without spaces, in which words cannot be told: compare "
            "chars/token"
        )
