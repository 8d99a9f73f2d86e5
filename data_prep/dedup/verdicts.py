"""Of preferences: which of two rows is right is no matter of words. What the audit asks of both.

Like the rest of the audit this shares no code with the deduplicator.
"""

from collections.abc import Iterable, Iterator, Mapping, Set

from data_prep.dedup.certificates import Certificate, grams, words_in
from data_prep.row_text import answer_text, whole_text
from data_prep.rows import Labelled, Preference, Row, Said

RUN = 2
"""Words in one element of the sets that answers are compared by."""


def at_odds(certificates: Iterable[Certificate], rows: Mapping[str, Row]) -> Iterator[str]:
    """Say which rows were removed as duplicates of a row that goes another way.

    Args:
        certificates: of rows that were removed as duplicates.
        rows: the rows they name, by place, read anew.

    Returns:
        What does not hold, a line each.
    """
    for one in certificates:
        if one.removed in rows and one.witness in rows:
            removed, witness = rows[one.removed], rows[one.witness]
            # Where every turn is equal, nothing goes another way.
            if one.measure != "equal" and _another_way(removed, witness):
                yield f"{one.removed}: says another answer is the good one than its witness does"


def unopposed(
    certificates: Iterable[Certificate], rows: Mapping[str, Row], dropped: Set[str]
) -> Iterator[str]:
    """Say which rows were removed as contradicting another one that they do not contradict.

    Args:
        certificates: of rows that were removed as contradicting.
        rows: the rows they name, by place, read anew.
        dropped: places of all rows that were removed so.

    Returns:
        What does not hold, a line each.
    """
    for one in certificates:
        if one.witness not in dropped:
            yield f"{one.removed}: what it contradicts, {one.witness}, was not dropped for that"
        elif one.removed not in rows or one.witness not in rows:
            yield f"{one.removed}: the row or what it contradicts is not in the sources any more"
        elif not _opposite(rows[one.removed], rows[one.witness]):
            yield f"{one.removed}: does not say the opposite of {one.witness}"


def _opposite(one: Row, other: Row) -> bool:
    """Whether everything is equal but which answer is the better one, or whether it is good."""
    match one, other:
        case Labelled(), Labelled():
            said = [(len(each.prompt), whole_text(each.row)) for each in (one, other)]
            return one.label != other.label and said[0] == said[1]
        case Preference(), Preference():
            ours = whole_text(one.chosen_row), whole_text(one.rejected_row)
            theirs = whole_text(other.rejected_row), whole_text(other.chosen_row)
            return len(one.prompt) == len(other.prompt) and ours == theirs
    return False


def _another_way(one: Row, other: Row) -> bool:
    """Whether labels differ, or sides are at least as alike crosswise as they are as they stand."""
    match one, other:
        case Labelled(), Labelled():
            return one.label != other.label
        case Preference(), Preference():
            better, worse = _runs(one.chosen), _runs(one.rejected)
            others = _runs(other.chosen), _runs(other.rejected)
            straight = _alike(better, others[0]) + _alike(worse, others[1])
            crosswise = _alike(better, others[1]) + _alike(worse, others[0])
            return 0 < crosswise >= straight
    return False


def _runs(answer: Said) -> set[tuple[str, ...]]:
    return grams(words_in(answer_text(answer)), RUN)


def _alike(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0
