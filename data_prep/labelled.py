"""Labelled answers with mismatched ones beside them: what KTO compares a model with.

KTO measures how far the model has moved from its reference on answers that do not belong to their
prompts. Every answer gets such a row as its neighbour: its own prompt, with the answer of another
row of the same split.

    own row             prompt of i | answer of i        good or bad
    mismatched row      prompt of i | answer of j        j asks another question than i

The answer is joined as tokens, as TRL's KTOTrainer joins it; where that is longer than a row may
be, its end is cut. TRL turns the rows of a batch by one, and so gives neighbours that ask the same
each other's answers.

Source:
    Ethayarajh et al. (2024), arXiv 2402.01306.
"""

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import RowsRefused
from data_prep.sequences import Pieces, Spans, pieces_of
from data_prep.shards import Rows
from data_prep.units import BAD, GOOD, MISMATCHED


def partners(prompts: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each row another one, whose answer is the mismatched one.

    The rows are turned by as many places as the commonest question has rows, once those of one
    question stand together: so no row gets an answer to its own question, if that can be at all.
    Each row gives its answer once.

    Args:
        prompts: a hash of each row's first question, shape ``[rows]``.

    Returns:
        Indices of rows, shape ``[rows]``; of a row that is alone its own.
    """
    count = len(prompts)
    order = np.argsort(prompts, kind="stable")
    most = int(np.unique(prompts, return_counts=True)[1].max(initial=0))
    turned = np.roll(order, -most if most < count else -1)
    found = np.empty(count, np.int64)
    found[order] = turned
    return found


def labelled_pieces(rows: Rows, chosen: NDArray[np.int64], limit: int) -> Pieces:
    """The rows of a split, each with its mismatched one behind it.

    Args:
        rows: all of them.
        chosen: those of the split; some of them twice, perhaps.
        limit: the most tokens that a row may have.
    """
    own = pieces_of(rows, chosen).tokens
    begin = rows.array("answer_at").astype(np.int64)[chosen]
    other = partners(rows.array("prompt")[chosen])
    nothing = np.zeros(len(chosen), np.int64)
    answers = np.minimum((own - begin)[other], limit - begin)
    good = rows.array("good")[chosen]
    return Pieces(
        row=np.repeat(chosen, 2),
        start=np.zeros(2 * len(chosen), np.int64),
        tokens=_by_turns(own, begin + answers),
        per_unit=2,
        kinds=_by_turns(good, np.full(len(chosen), MISMATCHED)).astype(np.int8),
        tail=Spans(
            row=_by_turns(chosen, chosen[other]),
            start=_by_turns(nothing, begin[other]),
            tokens=_by_turns(nothing, answers),
        ),
    )


def _by_turns(one: NDArray[np.integer], other: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.stack([one, other], axis=1).ravel().astype(np.int64)


def refuse_one_label(rows: Rows, train: NDArray[np.int64], validation: NDArray[np.int64]) -> None:
    """Refuse what KTO cannot learn from.

    Raises:
        RowsRefused: every answer to train on is good, or every one is bad; or a split has one row,
            so that there is no other's answer to compare it with.
    """
    good = rows.array("good")[train]
    for label, name in ((GOOD, "good"), (BAD, "bad")):
        if (good == label).all():
            remedy = "; good answers alone are what training.method=sft learns" if label else ""
            raise RowsRefused(
                f"All {len(train)} rows left for training are labelled {name}: kto learns from the "
                f"difference between good answers and bad ones. Add some of the other kind{remedy}."
            )
    if len(validation) == 1:
        raise RowsRefused(
            "One row is left for validation: kto compares its answer with that of another row. "
            "Ask for more with data.validation."
        )


def label_figures(
    rows: Rows, train: NDArray[np.int64], validation: NDArray[np.int64]
) -> dict[str, int]:
    """How many of the rows are good and bad, and how many mismatched answers are not mismatched."""
    good = rows.array("good")
    prompts = rows.array("prompt")
    same = 0
    for split in (train, validation):
        same += int((prompts[split][partners(prompts[split])] == prompts[split]).sum())
    return {
        "good_rows": int((good[train] == GOOD).sum()),
        "bad_rows": int((good[train] == BAD).sum()),
        "answers_not_mismatched": same,
    }


def label_note(figures: dict[str, int]) -> str:
    """What a person should know of the mismatched answers; else nothing."""
    same = figures["answers_not_mismatched"]
    if not same:
        return ""
    return (
        f"warning: {same} rows are compared with an answer to their own question, because more "
        "than half of the rows of their split ask it: kto's estimate of how far the model moved "
        "is worth less there."
    )
