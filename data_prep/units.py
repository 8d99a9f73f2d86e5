"""Units: what is learned from together, so that no pack parts it.

    rows        a row: every supervised token of it is learned        sft, pretrain, distill
    pairs       the chosen answer, then the rejected one              dpo, orpo, reward
    labelled    an answer, good or bad, then a mismatched one         kto

The two rows of a unit begin with the same prompt, and their answers alone are supervised. In the
account a pair is one row with the tokens of both sides. Mismatched answers are made when rows are
packed (`data_prep.labelled`): they are copies, and in no account.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.chat_templates import ChatTemplate
from data_prep.errors import RowError
from data_prep.formats.fields import FOR_PREFERENCES
from data_prep.overlong import NOTHING_LEFT, TOO_LONG, Fitted, Overlong, fit
from data_prep.rendering import Rendered, Supervise, render
from data_prep.row_checks import EQUAL_ANSWERS
from data_prep.rows import Labelled, Preference, Row, SftRow
from data_prep.settings import DataConfig

Units = Literal["rows", "pairs", "labelled"]
"""What one unit is made of: any row, a pair of answers, an answer with a label."""

BAD, GOOD, MISMATCHED = 0, 1, 2
"""Kinds of a unit's rows: the rejected or bad answer, the chosen or good one, another row's."""
ROWS_IN_UNIT: dict[Units, int] = {"rows": 1, "pairs": 2, "labelled": 2}
SIDES = ("chosen", "rejected")

EQUAL_WITHIN = "equal within max_tokens"
"""Why a pair goes whose answers differ only behind the place where they are cut."""
OTHER_KIND: dict[Units, str] = {
    "rows": "preference row",
    "pairs": "no preference",
    "labelled": "no label",
}
"""Why rows go that hold something else than these units are made of."""


def settings_that_do_not_fit(config: DataConfig, units: Units) -> Iterator[tuple[str, str]]:
    """The settings of the data that pairs and labelled answers cannot have: the key, and why."""
    if units == "rows":
        return
    if config.overlong == "split":
        yield (
            "overlong",
            "data.overlong=split cuts rows into pieces, and a preference is between whole answers: "
            "use drop, or truncate to cut the answers' ends off",
        )
    if config.supervise != "answers":
        yield (
            "supervise",
            f"data.supervise={config.supervise} is for sft: a preference is between the answers, "
            "all of them and nothing else; leave it out",
        )


def unit_capacity(max_tokens: int, units: Units) -> int:
    """Tokens in one pack: as many as the longest unit may have."""
    return max_tokens * ROWS_IN_UNIT[units]


def rows_of(row: Row, units: Units) -> tuple[SftRow, ...]:
    """What is rendered of a row: itself, or each of its answers behind the prompt.

    Raises:
        RowError: the row is of another kind than the units are made of.
    """
    if units == "pairs" and isinstance(row, Preference):
        return row.chosen_row, row.rejected_row
    if units == "labelled" and isinstance(row, Labelled):
        return (row.row,)
    if units == "rows" and not isinstance(row, Preference | Labelled):
        return (row,)
    raise RowError(OTHER_KIND[units], _what_fits(row, units))


def names_of(row: Row) -> tuple[str, ...]:
    """What to call each rendering of a row, as `rows_of` orders them: nothing where it is one."""
    if isinstance(row, Preference):
        return SIDES
    return ("good" if row.label else "bad",) if isinstance(row, Labelled) else ("",)


def _what_fits(row: Row, units: Units) -> str:
    if units == "rows":
        return FOR_PREFERENCES
    wanted = "'chosen' and 'rejected'" if units == "pairs" else "'label': whether it is a good one"
    if isinstance(row, Preference):
        found = "it has 'chosen' and 'rejected': training.method=dpo, orpo or reward learns from it"
    elif isinstance(row, Labelled):
        found = "it has one answer with a 'label': training.method=kto learns from it"
    else:
        found = "it has nothing to prefer: training.method=sft learns from it"
    return f"wanted {wanted}; {found}"


def render_units(
    rows: Sequence[Row], template: ChatTemplate, supervise: Supervise, units: Units
) -> list[tuple[Rendered, ...] | RowError]:
    """Render every row that the units are made of, both sides of pairs.

    Args:
        rows: shape ``[rows]``.
        template: the chat template; plain text uses only its tokenizer.
        supervise: what carries loss.
        units: what is learned from together.

    Returns:
        For every row its tokens, of pairs the chosen side first; or why it cannot be trained on.
    """
    parts = [_attempt(row, units) for row in rows]
    flat = [each for part in parts if not isinstance(part, RowError) for each in part]
    rendered = iter(render(flat, template, supervise))
    return [
        part if isinstance(part, RowError) else _together([next(rendered) for _ in part])
        for part in parts
    ]


def _attempt(row: Row, units: Units) -> tuple[SftRow, ...] | RowError:
    try:
        return rows_of(row, units)
    except RowError as error:
        return error


def _together(sides: Sequence[Rendered | RowError]) -> tuple[Rendered, ...] | RowError:
    """The rendered rows of one unit, or what is wrong with them."""
    whole: list[Rendered] = []
    for name, side in zip(SIDES, sides, strict=False):
        if isinstance(side, RowError):
            detail = f"{name}: {side.detail}" if len(sides) > 1 else side.detail
            return RowError(side.reason, detail)
        whole.append(side)
    if len(whole) > 1:
        chosen, rejected = whole
        if np.array_equal(chosen.ids, rejected.ids):
            return RowError(EQUAL_ANSWERS, "both sides render to the same tokens")
        if not np.array_equal(prompt_of(chosen), prompt_of(rejected)):
            return RowError(
                "sides differ in their prompt",
                "the first answer that is learned has other tokens before it on each side; "
                "the template writes them, or 'train: false' in one of the answers",
            )
    return tuple(whole)


def answer_at(row: Rendered) -> int:
    """Where the answer of a unit's row begins: all before it is prompt."""
    return int(row.supervised.argmax())


def prompt_of(row: Rendered) -> NDArray[np.int32]:
    """The ids before the answer of a unit's row."""
    return row.ids[: answer_at(row)]


def fit_unit(sides: Sequence[Rendered], limit: int, overlong: Overlong) -> Fitted:
    """Make a unit fit the training context: every row of it has at most ``limit`` tokens.

    Args:
        sides: a row; or the chosen side of a pair, then the rejected one.
        limit: the most tokens that one side may have.
        overlong: what to do when one has more. The ends of answers are cut, never a prompt: a pair
            goes whose prompt leaves no room for an answer, or whose sides differ only behind the
            cut.
    """
    if len(sides) == 1:
        return fit(sides[0], limit, overlong)
    tokens = sum(len(side.ids) for side in sides)
    fitted = [fit(side, limit, overlong) for side in sides]
    reasons = {each.reason for each in fitted}
    for reason in (TOO_LONG, NOTHING_LEFT):
        if reason in reasons:
            return Fitted((), reason=reason)
    pieces = tuple(each.pieces[0] for each in fitted)
    if np.array_equal(pieces[0].ids, pieces[1].ids):
        return Fitted((), reason=EQUAL_WITHIN)
    return Fitted(pieces, tokens - sum(len(piece.ids) for piece in pieces))


def lengths(sides: Sequence[Rendered], limit: int) -> str:
    """How long a unit is, for the detail of one that does not fit."""
    if len(sides) == 1:
        return f"{len(sides[0].ids)} tokens, max_tokens={limit}"
    each = ", ".join(f"{name} {len(side.ids)}" for name, side in zip(SIDES, sides, strict=True))
    return f"{each} tokens, max_tokens={limit}"
