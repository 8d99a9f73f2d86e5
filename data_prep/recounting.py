"""An account of every row and token that believes no ledger: it counts what is in the files."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from data_prep.prepared import PreparedDataset


@dataclass(frozen=True)
class Split:
    """What stands in one file of sequences."""

    rows: frozenset[str]
    """Places of the rows."""
    packs: int
    tokens: int
    supervised: int


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
    rows = pc.unique(pc.list_flatten(table.column("rows"))).to_pylist()
    tokens, supervised = (
        pc.sum(pc.list_flatten(table.column(column))).as_py() or 0
        for column in ("row_lengths", "supervised")
    )
    return Split(frozenset(rows), table.num_rows, tokens, supervised)


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
) -> Iterator[str]:
    """Say which figures of the ledger are not those of the files.

    Args:
        figures: the ledger.
        sources: rows that were found in each source.
        train: what is trained on.
        validation: what is held out.
        gone: what was dropped.
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
    ]
    tokens = figures["tokens_kept"] + figures["tokens_cut"] + figures["tokens_dropped"]
    counted.append(("tokens_in", figures["tokens_in"], tokens))
    if figures["train_rows"] <= len(train.rows):  # else a mixture repeats rows
        counted += [
            ("train_rows", figures["train_rows"], len(train.rows)),
            ("tokens_kept", figures["tokens_kept"], train.tokens + validation.tokens),
            (
                "tokens_supervised",
                figures["tokens_supervised"],
                train.supervised + validation.supervised,
            ),
        ]
    for name, said, found in counted:
        if said != found:
            yield f"ledger: {name} is {said}, counted {found}"
