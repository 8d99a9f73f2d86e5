"""Rows as the model will see them, on a terminal, supervised tokens coloured.

They are made by the code that makes them for training, so that both cannot differ.
"""

from collections.abc import Iterator
from itertools import groupby, islice

from rich.console import Console
from rich.text import Text

from data_prep.batches import Batch
from data_prep.chat_templates import ChatTemplate
from data_prep.errors import DataError
from data_prep.making import Made, make_batch
from data_prep.overview import shown_text
from data_prep.reading import with_format
from data_prep.rendering import Rendered
from data_prep.row_codec import encode_row
from data_prep.settings import DataConfig
from data_prep.tokenizer import load_tokenizer
from data_prep.units import Units, names_of
from llmkit.beginnings import find_tokenizer, load_recipe_template
from llmkit.recipe import Recipe
from llmkit.training.units import UNITS_OF

SUPERVISED = "black on green"
CONTEXT = "dim"
FEW = 64
"""Rows that are made at a time: memory holds no more of them, however many are shown."""


def show_rows(recipe: Recipe, count: int, console: Console | None = None) -> None:
    """Print the first rows of every source as they are trained on.

    Rows that are not trained on are printed with the reason. Nothing is written.

    Args:
        recipe: what to read and how to treat it.
        count: how many rows of each source.
        console: where to print; by default the terminal.

    Raises:
        DataError: a source cannot be read, or none of the rows shown can be trained on.
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
    units = UNITS_OF[recipe.training.method]
    if later := _later(recipe.data, units):
        console.print(Text(f"what only `llmkit prep` does is not shown: {', '.join(later)}"))
    rows = trained = 0
    for index, source in enumerate(recipe.data.sources):
        before = rows
        for made in _first_rows(recipe.data, index, count, template, units):
            rows += 1
            trained += bool(made.pieces)
            if len(made.where) + 4 < console.width:
                console.rule(made.where, align="left")
            else:  # a rule would cut it off, the row's number first
                console.print(Text(made.where), soft_wrap=True)
            for text in _described(made, recipe.data, template, marked=not console.is_terminal):
                console.print(text)
        if rows == before:
            console.print(Text(f"{source.path}: has no rows", "red"))
    if not trained:
        raise DataError(
            f"none of the {rows} rows shown can be trained on; each says why. Look at more of them "
            "(--rows), or change the recipe or the rows."
        )


def _later(config: DataConfig, units: Units) -> list[str]:
    """The settings that compare rows, or that ask a model, and so cannot be shown of a few rows."""
    asked = {
        "removing duplicates": config.dedup.exact or config.dedup.minhash or config.dedup.semantic,
        "dropping rows that contradict each other": units != "rows",
        "data.contamination": config.contamination,
        "data.validation": config.validation,
        "data.filters of kind perplexity": any(f.kind == "perplexity" for f in config.filters),
        "data.select": config.select,
        "the sources' weights": config.sources[0].weight is not None,
        "answers of other rows that each is compared with": units == "labelled",
    }
    return [name for name, wanted in asked.items() if wanted]


def _first_rows(
    config: DataConfig, index: int, count: int, template: ChatTemplate, units: Units
) -> Iterator[Made]:
    source = config.sources[index]
    records = islice(with_format(source), count)
    while some := list(islice(records, FEW)):
        batch = Batch(0, index, source.format, full=False, records=some)
        yield from make_batch(batch, config, template, units)[0]


def _described(
    made: Made, config: DataConfig, template: ChatTemplate, *, marked: bool
) -> Iterator[Text]:
    """What is trained of a row, and what is not, with the reason."""
    if made.error or made.row is None:
        yield Text(f"not trained on: {made.error}", "red")
        if made.row and made.tokens:
            yield Text(shown_text(encode_row(made.row), config), CONTEXT)
        return
    sides = names_of(made.row)
    count = len(made.pieces)
    split = count > len(sides)
    for number, piece in enumerate(made.pieces, 1):
        if title := f"piece {number} of {count}" if split else sides[number - 1]:
            yield Text(title if split else f"{title}:", "bold")
        yield coloured(piece, template, marked=marked)
    cut = made.tokens - sum(len(piece.ids) for piece in made.pieces)
    if cut or split:
        tokens = f"{made.tokens} tokens" + (" on both sides; one is" if len(sides) > 1 else ",")
        done = {"truncate": "truncated"}.get(config.overlong, "split")
        gone = f"; {cut} of them are cut off" if cut else ""
        yield Text(f"{tokens} over data.max_tokens={config.max_tokens}: {done}{gone}", "red")


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
