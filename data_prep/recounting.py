"""An account of every row and token that believes no ledger: it counts what is in the files."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_prep.mixture import Share
from data_prep.prepared import PreparedDataset


@dataclass(frozen=True)
class Split:
    """What stands in one file of sequences."""

    rows: frozenset[str]
    """Places of the rows."""
    places: list[str]
    """The same, in the order of what follows."""
    times: NDArray[np.int64]
    """How often each stands there, every piece of a split row counted."""
    row_tokens: NDArray[np.int64]
    """Tokens of each, those of repeats too."""
    row_supervised: NDArray[np.int64]
    """Of these, supervised ones."""
    packs: int

    @property
    def tokens(self) -> int:
        """All tokens."""
        return int(self.row_tokens.sum())

    @property
    def supervised(self) -> int:
        """All supervised tokens."""
        return int(self.row_supervised.sum())


@dataclass
class Goings:
    """Rows that are not in the output, as ``dropped.jsonl`` lists them."""

    reasons: dict[str, str] = field(default_factory=dict)
    """Why each went, by place."""
    witnesses: dict[str, str] = field(default_factory=dict)
    """The witness of each that has one."""
    tokens: Counter[str] = field(default_factory=Counter)
    """By reason."""
    repeated: list[str] = field(default_factory=list)
    """Places that are listed more than once."""

    def add(self, where: str, reason: str, tokens: int, witness: str) -> None:
        """Take note of one line."""
        if where in self.reasons:
            self.repeated.append(where)
        self.reasons[where] = reason
        self.tokens[reason] += tokens
        if witness:
            self.witnesses[where] = witness

    def of(self, *reasons: str) -> list[str]:
        """Places of the rows that went for some reasons."""
        return [where for where, reason in self.reasons.items() if reason in reasons]


def count_split(prepared: PreparedDataset, name: str) -> Split:
    """Count what is in ``train``, ``validation`` or ``comparison``."""
    table = prepared.sequences(name)
    flat = pc.list_flatten(table.column("rows"))
    known = pc.unique(flat)
    places = known.to_pylist()
    totals = np.zeros((3, len(places)), np.int64)
    for batch in table.to_batches():
        lengths = batch.column("row_lengths").flatten().to_numpy()
        if not len(lengths):
            continue
        row = pc.index_in(batch.column("rows").flatten(), value_set=known).to_numpy()
        mask = batch.column("supervised").flatten().to_numpy()
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)[:-1]])
        taught = np.add.reduceat(mask, starts, dtype=np.int64)
        for total, values in zip(totals, (np.ones_like(lengths), lengths, taught), strict=True):
            np.add.at(total, row, values)
    times, tokens, supervised = totals
    return Split(frozenset(places), places, times, tokens, supervised, table.num_rows)


def copies(split: Split, pieces: Mapping[str, int]) -> NDArray[np.int64]:
    """How often each row of a split is repeated as a whole.

    Args:
        split: what stands in it.
        pieces: of how many pieces a row is, by place; of one where nothing is said.
    """
    parts = np.array([pieces.get(place, 1) for place in split.places], np.int64)
    return np.asarray(np.maximum(1, split.times // np.maximum(1, parts)), np.int64)


def misplaced(
    places: Sequence[str], train: Split, validation: Split, gone: Goings
) -> Iterator[str]:
    """Say which rows of the sources are not in exactly one place of the output.

    Args:
        places: of every row of every source.
        train: what is trained on.
        validation: what is held out.
        gone: what was dropped.
    """
    everywhere: list[tuple[str, AbstractSet[str]]] = [
        ("train", train.rows),
        ("validation", validation.rows),
        ("dropped", gone.reasons.keys()),
    ]
    known = set(places)
    for where in places:
        there = [name for name, rows in everywhere if where in rows]
        if len(there) != 1:
            yield f"{where}: is in {' and in '.join(there) or 'neither output nor dropped rows'}"
    for name, rows in everywhere:
        yield from (f"{where}: is in {name}, not in the sources" for where in sorted(rows - known))
    yield from (f"{where}: is listed as dropped more than once" for where in gone.repeated)


def miscounted(
    figures: Mapping[str, Any],
    sources: Mapping[str, int],
    train: Split,
    validation: Split,
    gone: Goings,
    times: NDArray[np.int64],
    shares: Sequence[Share],
) -> Iterator[str]:
    """Say which figures of the ledger are not those of the files.

    Args:
        figures: the ledger.
        sources: rows that were found in each source.
        train: what is trained on.
        validation: what is held out.
        gone: what was dropped.
        times: how often each row is trained on.
        shares: what every source is of that, where a mixture was asked for.
    """
    reasons = Counter(gone.reasons.values())
    kept = figures["rows_kept"] + figures["rows_truncated"] + figures["rows_split"]
    left = train.rows | validation.rows
    counted: list[tuple[str, Any, Any]] = [
        ("rows_in", figures["rows_in"], sum(sources.values())),
        ("sources", figures["sources"], dict(sources)),
        ("rows that are kept, truncated or split", kept, len(left)),
        ("rows_dropped", figures["rows_dropped"], len(gone.reasons)),
        ("dropped", figures["dropped"], dict(reasons)),
        ("tokens_dropped", figures["tokens_dropped"], gone.tokens.total()),
        ("dropped_tokens", figures["dropped_tokens"], dict(gone.tokens)),
        ("validation_rows", figures["validation_rows"], len(validation.rows)),
        ("train_tokens", figures["train_tokens"], train.tokens),
        ("packs", figures["packs"], train.packs),
        ("train_rows", figures["train_rows"], int(times.sum())),
        ("train_repeats", figures["train_repeats"], int((times - 1).sum())),
        ("train_supervised", figures["train_supervised"], train.supervised),
        ("tokens_kept", figures["tokens_kept"], _once(train.row_tokens, times) + validation.tokens),
        (
            "tokens_supervised",
            figures["tokens_supervised"],
            _once(train.row_supervised, times) + validation.supervised,
        ),
        ("mixture", figures["mixture"], [share.model_dump() for share in shares]),
    ]
    tokens = figures["tokens_kept"] + figures["tokens_cut"] + figures["tokens_dropped"]
    counted.append(("tokens_in", figures["tokens_in"], tokens))
    for name, said, found in counted:
        if said != found:
            yield f"ledger: {name} is {said}, counted {found}"


def _once(totals: NDArray[np.int64], times: NDArray[np.int64]) -> int:
    """What rows come to when each counts once and not as often as it is repeated."""
    return int((totals // times).sum())
