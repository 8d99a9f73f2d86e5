"""Replay what a preparation certified, from the sources and with code of its own."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_prep.batches import Batch
from data_prep.chat_templates import ChatTemplate
from data_prep.comparing import CONTAMINATED
from data_prep.contamination.auditing import Claim, Replay, unmatched_leaks
from data_prep.contamination.overlap import Overlap
from data_prep.decisions import IN_VALIDATION
from data_prep.dedup.certificates import (
    CONTRADICTING,
    DUPLICATES,
    Certificate,
    replay,
    unmatched,
)
from data_prep.dedup.terms import broken_terms
from data_prep.dedup.verdicts import at_odds, unopposed
from data_prep.embeddings import Embedder
from data_prep.errors import DataError
from data_prep.making import changed, make_batch
from data_prep.mixture import MixtureConfig, Share, realised
from data_prep.models import Models, NoModels
from data_prep.pipeline import LEFT_OUT, NOT_SELECTED
from data_prep.prepared import PreparedDataset
from data_prep.reading import ReadRow, read_row, with_format
from data_prep.recounting import Goings, copies, count_split, miscounted, misplaced
from data_prep.rows import Row
from data_prep.settings import DataConfig
from data_prep.sources.parsing import parse_record
from data_prep.sources.records import Record

LATER = (CONTAMINATED, IN_VALIDATION, NOT_SELECTED, LEFT_OUT)
"""Reasons for which rows leave after duplicates do: they were there when they vouched."""
FEW = 1000
"""Rows whose pieces are counted at a time."""
BLOCK = 100_000
"""Certificates whose rows are in memory at once; the sources are read once for so many."""

Line = TypeVar("Line")


@dataclass(frozen=True)
class Audit:
    """What was replayed, and what does not hold."""

    rows: int
    """Rows of the sources, each looked for in the output and among those that were dropped."""
    duplicates: int
    """Certificates of removed duplicates, and of rows that validation has, too."""
    contradictions: int
    """Certificates of rows that contradict each other."""
    overlaps: int
    """Certificates of evaluation texts in rows."""
    problems: list[str]
    """What does not hold, a line each."""


def audit_prepared(
    config: DataConfig,
    template: ChatTemplate,
    prepared: PreparedDataset,
    models: Models | None = None,
) -> Audit:
    """Replay every certificate against the rows in the sources, and count the ledger anew.

    Args:
        config: what was prepared.
        template: what it was rendered with.
        prepared: what came out.
        models: loads the models that semantic duplicates and evaluation texts were found with.

    Raises:
        DataError: a source cannot be read any more, or a file of evidence is damaged.
    """
    audit = _Auditing(config, template, prepared, models or NoModels())
    problems = [*audit.ledger(), *audit.duplicates(), *audit.overlaps()]
    opposite = sum(one.measure == "opposite" for one in audit.certificates)
    return Audit(
        rows=len(audit.places),
        duplicates=len(audit.certificates) - opposite,
        contradictions=opposite,
        overlaps=len(audit.claims),
        problems=problems,
    )


class _Auditing:
    """The evidence that a preparation left, and the rows it is about."""

    def __init__(
        self, config: DataConfig, template: ChatTemplate, prepared: PreparedDataset, models: Models
    ) -> None:
        self.config, self.template, self.prepared = config, template, prepared
        self._models = models
        folder = prepared.folder
        self.certificates = _lines(folder / "certificates.jsonl", Certificate.model_validate)
        self.claims = _lines(folder / "overlaps.jsonl", _claim)
        self.gone = Goings()
        for line in _lines(folder / "dropped.jsonl", _dropped):
            self.gone.add(*line)
        self.train, self.held_out = (count_split(prepared, s) for s in ("train", "validation"))
        self.places: list[str] = []
        self.sources: Counter[str] = Counter()
        self.ends: list[int] = []
        """How many places there are up to the end of each source."""
        for source in config.all_sources:
            before = len(self.places)
            self.places += (raw.where for raw, _ in with_format(source))
            self.sources[source.path] += len(self.places) - before
            self.ends.append(len(self.places))

    def ledger(self) -> Iterator[str]:
        """Every row in one place, and every figure as it is counted."""
        yield from misplaced(self.places, self.train, self.held_out, self.gone)
        times = self._copies()
        counted = self.sources, self.train, self.held_out, self.gone, times
        yield from miscounted(self.prepared.figures, *counted, self._shares(times))
        if self.prepared.figures["comparison_rows"]:
            others = count_split(self.prepared, "comparison").rows
            known = self.train.rows.union(self.gone.of(NOT_SELECTED))
            yield from (
                f"{where}: is compared with, and was no candidate"
                for where in sorted(others - known)
            )

    def _copies(self) -> NDArray[np.int64]:
        """How often each row is trained on: only a mixture repeats any."""
        config, pieces = self.config, dict[str, int]()
        if not config.weights:
            return np.ones(len(self.train.places), np.int64)
        if config.overlong == "split":  # what stands there twice may be two pieces
            often = zip(self.train.places, self.train.times.tolist(), strict=True)
            repeated = {place for place, times in often if times > 1}
            for index, source in enumerate(config.sources):
                chosen = (each for each in with_format(source) if each[0].where in repeated)
                while some := list(islice(chosen, FEW)):
                    batch = Batch(0, index, source.format, full=False, records=some)
                    made, _, _ = make_batch(batch, config, self.template)
                    pieces |= {each.where: len(each.pieces) for each in made}
        return copies(self.train, pieces)

    def _shares(self, times: NDArray[np.int64]) -> list[Share]:
        """What every source is of what is trained on, counted in the sequences."""
        config, train = self.config, self.train
        if not config.weights:
            return []
        number = {place: i for i, place in enumerate(self.places) if place in train.rows}
        known = np.array([number.get(place, -1) for place in train.places], np.int64)
        source = np.searchsorted(self.ends, known, side="right")
        names = [each.path for each in config.sources]
        ours = (known >= 0) & (source < len(names))  # others are said to be misplaced
        by = (config.mixture or MixtureConfig()).by
        kept = source[ours], times[ours], train.row_tokens[ours]
        return realised(by, config.weights, names, *kept)

    def duplicates(self) -> Iterator[str]:
        """Certificates of duplicates, of contradictions, and of rows that validation has."""
        gone, dedup = self.gone, self.config.dedup
        # What training lost to the validation's own source has a row of validation as its witness.
        parted, opposite = set(gone.of(IN_VALIDATION)), set(gone.of(CONTRADICTING))
        kept = self.train.rows.union(self.held_out.rows, gone.of(*LATER))
        embedder = self._embedder(
            dedup.semantic.model
            if dedup.semantic and any(c.measure == "cosine" for c in self.certificates)
            else None
        )
        for some in _blocks(self.certificates):
            rows, groups = self._rows({place for c in some for place in (c.removed, c.witness)})
            duplicates = [c for c in some if c.removed not in parted | opposite]
            leaks = [c for c in some if c.removed in parted]
            yield from replay(duplicates, rows, kept, embedder)
            yield from at_odds(duplicates, rows)
            yield from replay(leaks, rows, self.held_out.rows, None, groups)
            yield from unopposed((c for c in some if c.removed in opposite), rows, opposite)
            for one in some:
                wrong = broken_terms(one, dedup, in_validation=one.removed in parted)
                wrong = wrong or self._disagreement(one)
                if wrong:
                    yield f"{one.removed}: {wrong}"
        reasons = *DUPLICATES.values(), IN_VALIDATION, CONTRADICTING
        yield from unmatched(self.certificates, gone.of(*reasons))

    def _disagreement(self, certificate: Certificate) -> str:
        """How the list of dropped rows says otherwise."""
        where = certificate.removed
        reason, witness = self.gone.reasons.get(where), self.gone.witnesses.get(where)
        said = (DUPLICATES | {"opposite": CONTRADICTING}).get(certificate.measure)
        if reason not in (said, IN_VALIDATION):
            return f"was dropped as {reason}, certified by {certificate.measure}"
        if witness != certificate.witness:
            return f"was dropped for {witness}, certified for {certificate.witness}"
        return ""

    def overlaps(self) -> Iterator[str]:
        """Certificates of evaluation texts in rows."""
        config = self.config.contamination
        if config is None:
            yield from (f"{claim.row}: no evaluation set was asked for" for claim in self.claims)
            return
        semantic = config.semantic and any(c.overlap.method == "semantic" for c in self.claims)
        embedder = self._embedder(config.semantic.model if config.semantic and semantic else None)
        audited = Replay(config, [claim.overlap for claim in self.claims], embedder)
        for some in _blocks(self.claims):
            yield from audited.problems(some, self._rows({claim.row for claim in some})[0])
        yield from unmatched_leaks(self.claims, config, self.gone.of(CONTAMINATED))
        leaked = len({claim.row for claim in self.claims if claim.overlap.kind == "leak"})
        said = (self.prepared.figures["contamination"] or {}).get("rows_leaked")
        if said != leaked:
            yield f"ledger: contamination.rows_leaked is {said}, certified {leaked}"

    def _embedder(self, model: str | None) -> Embedder | None:
        return self._models.embedder(model) if model else None

    def _rows(self, named: set[str]) -> tuple[dict[str, Row], dict[str, str]]:
        """The named rows as they were compared, read anew, and what is in their group's field."""
        rows: dict[str, Row] = {}
        groups: dict[str, str] = {}
        for source in self.config.all_sources:
            for raw, chosen in with_format(source):
                if raw.where not in named:
                    continue
                record = parse_record(raw)
                found = read_row(record, source.format, chosen, self.config.roles)
                if isinstance(found, ReadRow):
                    rows[raw.where] = changed(found.row, self.config, self.template, Counter())
                if source.group and isinstance(record, Record):
                    value = record.value.get(source.group)
                    groups[raw.where] = json.dumps(value, sort_keys=True, default=str)
        return rows, groups


def _claim(line: Mapping[str, Any]) -> Claim:
    return Claim(line["row"], Overlap.model_validate(line["overlap"]))


def _dropped(line: Mapping[str, Any]) -> tuple[str, str, int, str]:
    return line["where"], line["reason"], line["tokens"], line["witness"]


def _lines(path: Path, make: Callable[[dict[str, Any]], Line]) -> list[Line]:
    """Read a file of evidence.

    Raises:
        DataError: it is not there, or a line of it is not what was written.
    """
    found: list[Line] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                found.append(make(json.loads(line)))  # noqa: PERF401 (its length says which line failed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = str(error).partition("\n")[0]
        raise DataError(
            f"{path}:{len(found) + 1}: is not what preparation wrote ({problem}). Prepare the data "
            "anew; this evidence is lost."
        ) from None
    return found


def _blocks(every: Sequence[Line]) -> Iterator[Sequence[Line]]:
    return (every[start : start + BLOCK] for start in range(0, len(every), BLOCK))
