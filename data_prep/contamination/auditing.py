"""An audit that believes no certificate of contamination.

It shares no code with the search: it reads the evaluation sets again, finds the named texts and
the templates around them anew, splits texts into words with a regular expression, and counts. For
the cosine of two embeddings it embeds both texts again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.contamination.audited_sets import AuditedText, Key, audited_texts
from data_prep.contamination.overlap import Overlap
from data_prep.contamination.plain_words import is_figure, masked, plain_words
from data_prep.contamination.settings import ContaminationConfig
from data_prep.dedup.certificates import COSINE_TOLERANCE
from data_prep.embeddings import Embedder, embed_all
from data_prep.row_text import text_of
from data_prep.rows import Row

TOLERANCE = 1e-9
"""Between the certified and the recounted score: both divide the same two whole numbers."""
LINE_WORDS = 4
"""A line of a prompt with so many words may be a whole question."""


@dataclass(frozen=True)
class Claim:
    """A training row, and an overlap that the search certified of it."""

    row: str
    """The row's place."""
    overlap: Overlap


def audit_contamination(
    claims: Iterable[Claim],
    rows: Mapping[str, Row],
    config: ContaminationConfig,
    dropped: Sequence[str],
    embedder: Embedder | None = None,
) -> list[str]:
    """Replay every certificate, and see that there is one of every dropped row.

    Args:
        claims: what the search certified, of rows that were dropped and of others.
        rows: the rows they name, by place, read anew.
        config: how they were searched.
        dropped: places of the rows that the ledger says were dropped for contamination.
        embedder: the model to embed texts with once more; cosines do not hold without it.

    Returns:
        What does not hold, a line each; empty when everything does.

    Raises:
        DataError: an evaluation set cannot be read any more.
    """
    every = list(claims)
    replay = Replay(config, [claim.overlap for claim in every], embedder)
    return replay.problems(every, rows) + unmatched_leaks(every, config, dropped)


def unmatched_leaks(
    claims: Iterable[Claim], config: ContaminationConfig, dropped: Sequence[str]
) -> list[str]:
    """Dropped rows without a certificate, and certificates of rows that should have been."""
    leaked = {claim.row for claim in claims if claim.overlap.kind == "leak"}
    certified = leaked if config.action == "drop" else set()
    problems = []
    for place in sorted(set(dropped) ^ certified):
        what = "has a certificate but was not dropped" if place in certified else "is not certified"
        problems.append(f"{place}: {what}")
    return problems


class Replay:
    """Certificates of evaluation texts against the texts themselves, read again.

    Args:
        config: how rows were searched.
        overlaps: all that will be replayed.
        embedder: the model to embed texts with once more; cosines do not hold without it.

    Raises:
        DataError: an evaluation set cannot be read any more.
    """

    def __init__(
        self,
        config: ContaminationConfig,
        overlaps: Sequence[Overlap],
        embedder: Embedder | None = None,
    ) -> None:
        self._config = config
        self._embedder = embedder
        self._texts = audited_texts(overlaps, config)

    def problems(self, claims: Sequence[Claim], rows: Mapping[str, Row]) -> list[str]:
        """What does not hold of some certificates, a line each; ``rows`` are those they name."""
        cosines = self._cosines(claims, rows)
        found = []
        for number, claim in enumerate(claims):
            problem = _problem(claim, self._texts, rows, self._config)
            if not problem and claim.overlap.method == "semantic":
                problem = self._semantic(claim.overlap, rows[claim.row], cosines.get(number))
            if problem:
                found.append(f"{claim.row}: {problem}")
        return found

    def _cosines(self, claims: Sequence[Claim], rows: Mapping[str, Row]) -> dict[int, float]:
        """The cosine of each semantic claim, by its number; none without the model."""
        asked = {
            number: (text_of(rows[claim.row], claim.overlap.side), text.text)
            for number, claim in enumerate(claims)
            if claim.overlap.method == "semantic"
            and claim.row in rows
            and (text := self._texts.get(_key(claim.overlap)))
        }
        if not asked or self._embedder is None:
            return {}
        every = sorted({text for pair in asked.values() for text in pair})
        vectors = embed_all(self._embedder, every, len(every)).astype(np.float64)
        place = {text: i for i, text in enumerate(every)}
        return {
            number: float(np.dot(vectors[place[one]], vectors[place[other]]))
            for number, (one, other) in asked.items()
        }

    def _semantic(self, overlap: Overlap, row: Row, cosine: float | None) -> str:
        semantic, text = self._config.semantic, self._texts[_key(overlap)]
        if semantic is None or not _fair(overlap, overlap.score, semantic.threshold):
            return _UNFAIR
        if overlap.answer or overlap.stem:
            return "only whole questions are compared by their meaning"
        if self._embedder is None or cosine is None:
            return f"names a cosine, and the model {overlap.model} was not loaded to replay it"
        if self._embedder.name != overlap.model:
            return f"was certified with the model {overlap.model}, not {self._embedder.name}"
        if abs(cosine - overlap.score) > COSINE_TOLERANCE:
            return f"certified a cosine of {overlap.score:.6f}, computed {cosine:.6f}"
        sides = (plain_words(text_of(row, overlap.side)), text.words)
        differ = self._config.numbers == "distinct" and _other_figures(*sides)
        kind = "look-alike" if differ else "leak"
        return "" if kind == overlap.kind else f"certified a {overlap.kind}, found a {kind}"


def _key(overlap: Overlap) -> Key:
    return overlap.evaluation_set, overlap.where, overlap.field, overlap.stem


def _problem(
    claim: Claim,
    texts: Mapping[Key, AuditedText],
    rows: Mapping[str, Row],
    config: ContaminationConfig,
) -> str:
    overlap = claim.overlap
    text = texts.get(_key(overlap))
    if text is None:
        return f"no evaluation text stands at {overlap.where} in {overlap.field}"
    if claim.row not in rows:
        return "the row is not in the sources any more"
    if overlap.side not in text.sides:
        return f"a text of {overlap.field} is not looked for in the {overlap.side}"
    if overlap.core != text.core:
        return f"certified words {overlap.core} of the evaluation text, found {text.core}"
    if overlap.stem and not text.evidence:
        return "the question without its options says too little"
    if not text.judged and overlap.method not in ("exact", "semantic"):
        return "the evaluation text is too short for this method"
    said = text_of(rows[claim.row], overlap.side)
    if overlap.method == "exact":
        return _exact(overlap, text, said, config)
    if overlap.method == "ngram":
        return _ngram(overlap, text, said, config)
    return _fuzzy(overlap, text, said, config) if overlap.method == "fuzzy" else ""


_UNFAIR = "its score is not over the threshold of the configuration"


def _fair(overlap: Overlap, score: float, threshold: float) -> bool:
    right = abs(overlap.score - score) <= TOLERANCE and overlap.threshold == threshold
    return right and score >= threshold - TOLERANCE


def _score(overlap: Overlap, score: float, threshold: float, kind: str) -> str:
    if abs(overlap.score - score) > TOLERANCE:
        return f"certified a score of {overlap.score:.6f}, counted {score:.6f}"
    if not _fair(overlap, score, threshold):
        return _UNFAIR
    return "" if kind == overlap.kind else f"certified a {overlap.kind}, found a {kind}"


def _exact(overlap: Overlap, text: AuditedText, said: str, config: ContaminationConfig) -> str:
    if not config.exact:
        return "the configuration does not look for whole texts"
    wanted, words = text.compared, plain_words(said)
    if words[overlap.at : overlap.at + len(wanted)] != wanted or overlap.length != len(wanted):
        return "the evaluation text does not stand there word for word"
    if not text.judged and (overlap.answer or overlap.side == "response"):
        return "the evaluation text is too short to be looked for there"
    lines = [plain_words(line) for line in said.split("\n")]
    whole = words == wanted or (len(wanted) >= LINE_WORDS and wanted in lines)
    if not text.judged and not whole:
        return "a short question counts only as a whole prompt or a line of it"
    return _score(overlap, 1.0, 1.0, "leak")


def _ngram(overlap: Overlap, text: AuditedText, said: str, config: ContaminationConfig) -> str:
    if config.ngram is None or not text.evidence:
        return "no run of the evaluation text's words is evidence"
    size, words = text.size, plain_words(said)
    there = {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}
    strange = {_masked(run) for run in there - set(text.evidence)}
    common = [run for run in text.evidence if run in there or _masked(run) in strange]
    other = config.numbers == "distinct" and any(run not in there for run in common)
    score = len(common) / len(text.evidence)
    return _score(overlap, score, config.ngram.coverage, "look-alike" if other else "leak")


def _fuzzy(overlap: Overlap, text: AuditedText, said: str, config: ContaminationConfig) -> str:
    wanted, words = text.compared, plain_words(said)
    fuzzy = config.fuzzy
    if fuzzy is None or len(wanted) < fuzzy.min_words or overlap.answer or not text.evidence:
        return "the configuration does not compare this text as a set of words"
    if overlap.length != min(len(wanted), len(words)) or overlap.at < 0:
        return "a stretch of another length was compared"
    one, other = set(wanted), set(words[overlap.at : overlap.at + overlap.length])
    score = len(one & other) / len(one | other)
    differ = config.numbers == "distinct" and _other_figures(one, other)
    return _score(overlap, score, fuzzy.threshold, "look-alike" if differ else "leak")


def _other_figures(one: Iterable[str], other: Iterable[str]) -> bool:
    """Each has a figure that the other lacks."""
    figures = [{word for word in each if is_figure(word)} for each in (one, other)]
    return bool(figures[0] - figures[1] and figures[1] - figures[0])


def _masked(run: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(masked, run))
