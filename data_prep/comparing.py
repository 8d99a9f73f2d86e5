"""The steps that look at many rows at once: each reads shards and takes rows out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.contamination.index import build_index
from data_prep.contamination.overlap import Overlap
from data_prep.contamination.report import ContaminationReport, refuse_leaks, report
from data_prep.decisions import BLOCK, IN_VALIDATION, Decisions
from data_prep.dedup.certificates import CONTRADICTING, DUPLICATES, Certificate
from data_prep.dedup.deduplicate import MEASURES, Meaning, Removals, certificates, deduplicate
from data_prep.dedup.exact import contradictions
from data_prep.dedup.minhash import MinHashConfig, alike_across, near_duplicates, sketch
from data_prep.dedup.paraphrases import ReadTexts, embed_rows
from data_prep.dedup.sides import sides_exchanged
from data_prep.dedup.words import TextsInShards
from data_prep.embeddings import Embedder
from data_prep.filters.candidate import Candidate
from data_prep.filters.settings import perplexity_filter
from data_prep.ledger import FILTERED
from data_prep.models import Models, RememberedEmbedder, RememberedScorer
from data_prep.row_codec import decode_row
from data_prep.row_text import answer_text, text_of
from data_prep.rows import Preference
from data_prep.searching import search
from data_prep.settings import DataConfig
from data_prep.shards import Rows
from data_prep.sources.config import SourceConfig
from data_prep.splits import find_leaks, group_rows, hold_out
from data_prep.units import Units
from data_prep.workers import available_workers

Progress = Callable[[str, int], None]
"""Called with the name of the step and how many rows it has done since the last call."""
Part = Literal["prompt", "response", "both"]

CONTAMINATED = "in an evaluation set"
OPPOSITE = "another row says the opposite: neither can be believed"
TEXTS = 1024
"""Rows whose texts are in memory at once."""


class Comparing:
    """What becomes of rows that are compared: with each other, with evaluation sets, by a model."""

    def __init__(
        self, config: DataConfig, rows: Rows, work: Path, models: Models, progress: Progress
    ) -> None:
        self.config = config
        self.rows = rows
        self.decisions = Decisions(rows)
        self.decisions.note("rendered and filtered" if config.filters else "rendered")
        self.notes: list[str] = []
        """What a person should know of what was compared."""
        self._removals: list[Removals] = []
        self.contamination: ContaminationReport | None = None
        self._overlaps: dict[int, tuple[Overlap, ...]] = {}
        self._prompts: NDArray[np.uint64] = rows.array("prompt")
        self._work = work
        self._models = models
        self._embedders: dict[str, Embedder] = {}
        self._progress = progress

    @staticmethod
    def words_on(config: DataConfig) -> Part | None:
        """The text whose words are compared: for near-duplicates, or to keep them on one side."""
        if config.dedup.minhash:
            return config.dedup.minhash.on
        if config.dedup.same_words:
            return "both"
        compared = config.validation and config.keep_together == "near-duplicates"
        return "both" if compared else None

    def sides(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is left of the sources, and of the validation's own source."""
        left = self.decisions.left()
        own = self.decisions.source[left] >= len(self.config.sources)
        return left[~own], left[own]

    def filter_by_perplexity(self) -> None:
        """Ask the one filter that wants a model."""
        chosen = perplexity_filter(self.config.filters)
        if chosen is None:
            return
        scorer = RememberedScorer(
            self._models.scorer(chosen.model, chosen.max_tokens), self._work / "scores"
        )
        details: dict[int, str] = {}
        for rows in _blocks(self.decisions.left()):
            made = [decode_row(text) for text in self._column(rows, "row")]
            tokens = self.decisions.tokens[rows].tolist()
            read = [Candidate(*each) for each in zip(made, tokens, strict=True)]
            scores = scorer.score([each.text(chosen.on) for each in read])
            for number, each, score in zip(rows.tolist(), read, scores.tolist(), strict=True):
                verdict = chosen.judge(replace(each, perplexity=score))
                if verdict is not True:
                    details[number] = verdict[1]
            self._progress("scoring rows", len(rows))
        goes = np.array(sorted(details), np.int64)
        self.decisions.drop(goes, f"{FILTERED}{chosen.kind}", details=details)
        self.decisions.note("filtered by perplexity")

    def remove_contradictions(self) -> None:
        """Drop preferences of which another one says the opposite, word for word."""
        hashes = self._hashes()
        for side in self.sides():
            found = contradictions(hashes[side])
            goes = np.flatnonzero(found >= 0)
            removed, other = side[goes], side[found[goes]]
            self.decisions.drop(removed, CONTRADICTING, other, detail=OPPOSITE)
            measure = np.full(len(goes), MEASURES.index("opposite"), np.int8)
            self._removals.append(Removals(removed, other, measure, np.ones(len(goes))))
        self.decisions.note("without contradictions")

    def remove_duplicates(self, units: Units) -> None:
        """Drop duplicates among rows that can be trained on, so that every witness stays.

        Answers of different labels are no duplicates, nor are pairs that go another way.
        """
        config, hashes = self.config.dedup, self._hashes()
        good = self.rows.array("good")
        opposed = self._opposed if units == "pairs" else None
        texts = TextsInShards(self.rows) if config.minhash or config.same_words else None
        meaning = None
        if config.semantic:
            embedder = self._embedder(config.semantic.model)
            meaning = Meaning(self._reader(config.semantic.on), embedder)
        alike = [side[good[side] == label] for side in self.sides() for label in np.unique(good)]
        for some in alike:
            found = deduplicate(hashes, texts, config, some, meaning, self._progress, opposed)
            self._progress("comparing rows", len(some))
            for code, measure in enumerate(MEASURES[: len(DUPLICATES)]):
                of_measure = found.measure == code
                removed, witness = found.removed[of_measure], found.witness[of_measure]
                self.decisions.drop(removed, DUPLICATES[measure], witness)
            self._removals.append(found)
        if unread := sum(found.unread for found in self._removals):
            self.notes.append(
                f"dedup.semantic: {unread} rows were compared with none, because the embedding "
                "model cannot read them. Name a model of their languages to have them compared."
            )
        self.decisions.note("without duplicates")

    def certificates(self) -> Iterator[Certificate]:
        """What vouches for each duplicate, and each row that validation has, that was removed.

        Made anew each time, because they would fill memory.
        """
        config = self.config.dedup
        model = self._embedder(config.semantic.model).name if config.semantic else ""
        for found in self._removals:
            for start in range(0, len(found.removed), BLOCK):
                part = found.part(start, start + BLOCK)
                yield from certificates(part, config, self._places, model)

    def find_evaluation_texts(self) -> None:
        """Look for evaluation sets in what may be trained on.

        Raises:
            DataError: one is there, and ``contamination.action`` is ``refuse``.
        """
        config = self.config.contamination
        if config is None:
            return
        embedder = self._embedder(config.semantic.model) if config.semantic else None
        index = build_index(config, self._progress, embedder)
        workers = self.config.workers or available_workers()
        found, tally = search(self.rows, self.sides()[0], index, embedder, workers, self._progress)
        self.contamination = report(index, tally)
        refuse_leaks(self.contamination, config)
        self._overlaps = found
        if config.action == "drop":
            leaks = {row: each[0] for row, each in found.items() if each[0].kind == "leak"}
            details = {row: overlap.describe() for row, overlap in leaks.items()}
            self.decisions.drop(np.array(sorted(leaks), np.int64), CONTAMINATED, details=details)
            self.decisions.note("without evaluation texts")

    def overlaps(self) -> Iterator[tuple[str, Overlap]]:
        """Every evaluation text that was found, with the place of the row it stands in."""
        rows = sorted(self._overlaps)
        for row, place in zip(rows, self._places(np.array(rows, np.int64)), strict=True):
            for overlap in self._overlaps[row]:
                yield place, overlap

    def remove_rows_of_validation(self) -> None:
        """Drop training rows that ask what the validation's own source asks, or nearly say it.

        And those that have the group of one of its rows.
        """
        train, held_out = self.sides()
        if not len(held_out):
            return
        witness = np.full(len(self.rows), -1, np.int64)
        measure = np.full(len(self.rows), MEASURES.index("jaccard"), np.int8)
        similarity = np.ones(len(self.rows))
        same = [("group", self.rows.array("group")), ("question", self._prompts)]
        if self.config.keep_together == "near-duplicates":
            texts, settings = self._compared_words()
            sketches = sketch(texts, settings, np.union1d(train, held_out))
            # Sources are read before the validation's own one: it is always on the right.
            edges = alike_across(texts, sketches, settings, train, held_out)
            alike, first = np.unique(edges.left, return_index=True)
            witness[alike], similarity[alike] = edges.right[first], edges.similarity[first]
            same.insert(0, ("same words", sketches.sequences))
        # The plainest word counts, so it comes last.
        for name, keys in same:
            leaked, named = find_leaks(keys, train, held_out)
            witness[leaked], similarity[leaked] = named, 1.0
            measure[leaked] = MEASURES.index(name)
        goes = np.flatnonzero(witness >= 0)
        self.decisions.drop(goes, IN_VALIDATION, witness[goes])
        self._removals.append(Removals(goes, witness[goes], measure[goes], similarity[goes]))
        self.decisions.note("without rows of validation")

    def hold_out(self, train: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Part rows for validation; those that ask the same or say nearly the same stay together.

        Returns:
            Rows to train on, and rows held out.
        """
        size = self.config.validation
        if isinstance(size, SourceConfig) or not size or not len(train):
            return train, train[:0]
        prompts = self._prompts[train]
        keys = [prompts, self.rows.array("group")[train]]
        pairs = np.empty((0, 2), np.int64)
        if self.config.keep_together == "near-duplicates":
            texts, settings = self._compared_words()
            sketches = sketch(texts, settings, train)
            edges = near_duplicates(texts, sketches, settings, train)
            pairs = np.searchsorted(train, np.stack([edges.left, edges.right], axis=1))
            keys.append(sketches.sequences[train])
        chosen = hold_out(prompts, group_rows(keys, pairs), size, self.config.seed)
        return train[~chosen], train[chosen]

    def embedded(self, rows: NDArray[np.int64], model: str, on: Part) -> NDArray[np.float32]:
        """The sentence embeddings of some rows, shape ``[rows, dimensions]``."""
        return embed_rows(self._reader(on), rows, self._embedder(model), self._progress)

    def _hashes(self) -> NDArray[np.uint64]:
        """Of everything that each row says, shape ``[rows, 2]``."""
        return np.stack([self.rows.array("hash_high"), self.rows.array("hash_low")], axis=1)

    def _opposed(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pairs of answers go another way than others."""

        def read(rows: NDArray[np.int64]) -> Iterable[tuple[str, str]]:
            for block in _blocks(rows):
                for row in map(decode_row, self._column(block, "row")):
                    if isinstance(row, Preference):
                        yield answer_text(row.chosen), answer_text(row.rejected)

        return sides_exchanged(read, left, right)

    def _compared_words(self) -> tuple[TextsInShards, MinHashConfig]:
        return TextsInShards(self.rows), self.config.dedup.minhash or MinHashConfig()

    def _embedder(self, name: str) -> Embedder:
        if name not in self._embedders:
            model = self._models.embedder(name)
            self._embedders[name] = RememberedEmbedder(model, self._work / "embeddings")
        return self._embedders[name]

    def _reader(self, on: Part) -> ReadTexts:
        def read(rows: NDArray[np.int64]) -> Iterable[str]:
            for block in _blocks(rows):
                for text in self._column(block, "row"):
                    yield text_of(decode_row(text), on)

        return read

    def _places(self, rows: NDArray[np.int64]) -> list[str]:
        return self._column(rows, "where")

    def _column(self, rows: NDArray[np.int64], name: str) -> list[str]:
        return list(self.rows.take(rows, name).column(0).to_pylist())


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[start : start + TEXTS] for start in range(0, len(rows), TEXTS))
