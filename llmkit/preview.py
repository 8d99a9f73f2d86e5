"""Rows as the model will see them, on a terminal, supervised tokens coloured."""

from itertools import groupby, islice

from rich.console import Console
from rich.text import Text

from data_prep.chat_templates import ChatTemplate
from data_prep.errors import RowError
from data_prep.reading import Unusable, read_rows
from data_prep.rendering import Rendered, render
from data_prep.tokenizer import load_tokenizer
from llmkit.beginnings import find_tokenizer, load_recipe_template
from llmkit.recipe import Recipe

SUPERVISED = "black on green"
CONTEXT = "dim"


def show_rows(recipe: Recipe, count: int, console: Console | None = None) -> None:
    """Print the first rows of every source.

    Rows that cannot be used are printed with the reason. Nothing is written.
    """
    console = console or Console(highlight=False)
    tokenizer = load_tokenizer(find_tokenizer(recipe.model, lambda _text: None))
    template = load_recipe_template(recipe, tokenizer)
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
                found: Rendered | RowError = read.error
            else:
                (found,) = render([read.row], template, recipe.data.supervise)
            console.print(
                Text(f"cannot be used: {found}", "red")
                if isinstance(found, RowError)
                else coloured(found, template, marked=not console.is_terminal)
            )
            if not isinstance(found, RowError) and len(found.ids) > recipe.data.max_tokens:
                limit, rule = recipe.data.max_tokens, recipe.data.overlong
                console.print(Text(f"over data.max_tokens={limit}: {rule}", "red"))
        if not shown:
            console.print(Text(f"{source.path}: has no rows", "red"))


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
