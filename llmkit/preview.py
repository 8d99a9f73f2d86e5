"""Rows as the model will see them, on a terminal, supervised tokens coloured."""

from itertools import groupby, islice

from rich.console import Console
from rich.text import Text

from data_prep.chat_templates import ChatTemplate, load_template
from data_prep.errors import RowError
from data_prep.reading import Unusable, read_rows
from data_prep.rendering import Rendered
from data_prep.rows import Row
from data_prep.tokenizer import load_tokenizer
from data_prep.units import names_of, render_units
from llmkit.models.catalog import resolve_language_model
from llmkit.recipe import Recipe
from llmkit.training.units import UNITS_OF

SUPERVISED = "black on green"
CONTEXT = "dim"


def show_rows(recipe: Recipe, count: int, console: Console | None = None) -> None:
    """Print the first rows of every source.

    Rows that cannot be used are printed with the reason. Nothing is written.
    """
    console = console or Console(highlight=False)
    tokenizer = load_tokenizer(resolve_language_model(recipe.model.base).folder)
    template = load_template(recipe.model.chat_template, tokenizer, recipe.model.template_date)
    console.print(
        Text.assemble(
            "supervised tokens are ",
            (
                "shown like this" if console.is_terminal else "\u27e6shown like this\u27e7",
                SUPERVISED,
            ),
            f"; the stop token is {template.stop_token!r}",
        )
    )
    for source in recipe.data.sources:
        shown = 0
        for read in islice(read_rows(source, recipe.data.roles), count):
            shown += 1
            console.rule(read.where, align="left")
            if isinstance(read, Unusable):
                console.print(Text(f"cannot be used: {read.error}", "red"))
            else:
                _show_row(read.row, recipe, template, console)
        if not shown:
            console.print(Text(f"{source.path}: has no rows", "red"))


def _show_row(row: Row, recipe: Recipe, template: ChatTemplate, console: Console) -> None:
    """Print one row, of a pair both sides, or why it cannot be used."""
    units, limit = UNITS_OF[recipe.training.method], recipe.data.max_tokens
    (found,) = render_units([row], template, recipe.data.supervise, units)
    if isinstance(found, RowError):
        console.print(Text(f"cannot be used: {found}", "red"))
        return
    for name, side in zip(names_of(row), found, strict=True):
        if name:
            console.print(Text(f"{name}:", "bold"))
        console.print(coloured(side, template, marked=not console.is_terminal))
    if max(len(side.ids) for side in found) > limit:
        console.print(Text(f"over data.max_tokens={limit}: {recipe.data.overlong}", "red"))


def coloured(row: Rendered, template: ChatTemplate, *, marked: bool = False) -> Text:
    """A row's text; what carries loss stands out, between signs where there are no colours."""
    text = Text()
    start = 0
    for supervised, run in groupby(row.supervised):
        length = len(list(run))
        piece = template.tokenizer.decode(row.ids[start : start + length])
        if supervised and marked:
            piece = f"\u27e6{piece}\u27e7"
        text.append(piece, SUPERVISED if supervised else CONTEXT)
        start += length
    total = sum(row.supervised)
    text.append(f"\n[{len(row.ids)} tokens, {total} supervised]", "dim italic")
    return text
