"""DataConfig -> PreparedDataset: the order of the steps."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.accounting import account, refuse_empty, refuse_mostly_duplicates, stop_on_errors
from data_prep.chat_templates import ChatTemplate
from data_prep.decisions import Decisions
from data_prep.dedup.certificates import DUPLICATES, Certificate
from data_prep.dedup.deduplicate import MEASURES, certificates, deduplicate
from data_prep.dedup.minhash import MinHashConfig, near_duplicates, sketch
from data_prep.dedup.words import TextsInShards
from data_prep.making import make_rows
from data_prep.overview import overview
from data_prep.packing import Packs, alone, efficiency, pack
from data_prep.prepared import PreparedDataset
from data_prep.samples import choose_samples
from data_prep.sequences import Pieces, pieces_of, write_sequences
from data_prep.settings import DataConfig
from data_prep.shards import Rows, Shards
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import refuse_shared_files
from data_prep.splits import find_leaks, group_rows, hold_out

Progress = Callable[[str, int], None]
"""Called with the name of the step and how many rows it has done since the last call."""


def prepare(
    config: DataConfig,
    template: ChatTemplate,
    folder: Path,
    progress: Progress = lambda _step, _rows: None,
    *,
    work: Path | None = None,
) -> PreparedDataset:
    """Turn sources into packed training sequences on disk, and account for every row and token.

    The same configuration, data, tokenizer and template give the same bytes, for any number of
    workers and rows a shard. Memory holds a few bytes a row; the rows themselves are on disk.

    Args:
        config: what to read and how to treat it.
        template: the chat template, bound to the base model's tokenizer.
        folder: an empty folder to write into.
        progress: told of rows as they are done.
        work: where shards of rows are kept while this works. Shards found there are believed, so
            that an interrupted preparation goes on: give another folder for other inputs. A
            temporary one by default.

    Raises:
        DataError: a source cannot be read; two sources name one file; rows cannot be used and
            ``on_error`` is ``fail``; more rows than ``max_duplicates`` are duplicates; or nothing
            is left to train or validate on.
    """
    refuse_shared_files(config.sources)
    with ExitStack() as temporary:
        if work is None:
            work = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="llmkit-")))
        rows = make_rows(config, template, Shards(work / "rows"), _words_on(config), progress)
        return _Preparation(config, template, rows, progress).finish(folder)


def _words_on(config: DataConfig) -> str | None:
    """The text whose words are compared: for near-duplicates, or to keep them on one side."""
    if config.dedup.minhash:
        return config.dedup.minhash.on
    compared = config.validation and config.keep_together == "near-duplicates"
    return "both" if compared else None


class _Preparation:
    """The steps that compare rows, one after the other."""

    def __init__(
        self, config: DataConfig, template: ChatTemplate, rows: Rows, progress: Progress
    ) -> None:
        self.config = config
        self.template = template
        self.rows = rows
        self.progress = progress
        self.decisions = Decisions(rows)
        self.decisions.note("rendered")
        self.prompts: NDArray[np.uint64] = rows.array("prompt")
        self.certificates: list[Certificate] = []

    def finish(self, folder: Path) -> PreparedDataset:
        config, decisions = self.config, self.decisions
        stop_on_errors(config, decisions)
        self._remove_duplicates()
        train, validation = self._sides()
        refuse_mostly_duplicates(config, decisions)
        if not isinstance(config.validation, SourceConfig):
            train, validation = self._hold_out(train)
        ledger = account(config, self.rows, decisions)
        refuse_empty(config, len(train), len(validation), ledger)
        pieces, packs = self._packed(train)
        stop_ids = np.unique(self.rows.array("stop_id")[train]).tolist()
        figures = ledger.summary() | {
            "train_rows": len(train),
            "validation_rows": len(validation),
            "packs": len(packs),
            "packing_efficiency": round(efficiency(packs, config.max_tokens), 4),
            "stop_token": self.template.stop_token,
            "stop_ids": stop_ids,
        }
        write_sequences(folder / "train.arrow", self.rows, pieces, packs)
        write_sequences(folder / "validation.arrow", self.rows, *self._packed(validation))
        samples = choose_samples(self.rows, train, validation)
        shown = overview(config, self.template, self.rows, decisions, self.certificates, train)
        return PreparedDataset.create(
            folder, figures, shown, decisions.dropped(), samples, self.certificates
        )

    def _by_side(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is left of the sources, and of the validation's own source."""
        left = self.decisions.left()
        own = self.decisions.source[left] >= len(self.config.sources)
        return left[~own], left[own]

    def _remove_duplicates(self) -> None:
        """Drop duplicates among rows that can be trained on, so that every witness stays."""
        config = self.config.dedup
        hashes = np.stack([self.rows.array("hash_high"), self.rows.array("hash_low")], axis=1)
        for side in self._by_side():
            texts = TextsInShards(self.rows) if config.minhash else None
            found = deduplicate(hashes, texts, config, side)
            self.progress("comparing rows", len(side))
            for code, measure in enumerate(MEASURES):
                of_measure = found.measure == code
                removed, witness = found.removed[of_measure], found.witness[of_measure]
                self.decisions.drop(removed, DUPLICATES[measure], witness)
            self.certificates += certificates(found, config, self._places)
        self.decisions.note("without duplicates")

    def _places(self, rows: NDArray[np.int64]) -> list[str]:
        return list(self.rows.take(rows, "where").column(0).to_pylist())

    def _sides(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Drop training rows that ask what the validation source asks, or nearly say it."""
        train, held_out = self._by_side()
        if not len(held_out):
            return train, held_out
        leaked, witness = find_leaks(self.prompts, train, held_out)
        left, right = self._alike(np.union1d(train, held_out))
        own = self.decisions.source >= len(self.config.sources)
        # Sources are read before the validation's own one: it is always on the right.
        across = ~own[left] & own[right] & ~np.isin(left, leaked)
        more, first = np.unique(left[across], return_index=True)
        rows, named = np.r_[leaked, more], np.r_[witness, right[across][first]]
        self.decisions.drop(rows, "also in validation", named)
        self.decisions.note("without rows of validation")
        return self._by_side()

    def _alike(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of rows whose words are nearly the same."""
        if self.config.keep_together == "questions":
            return chosen[:0], chosen[:0]
        settings = self.config.dedup.minhash or MinHashConfig()
        texts = TextsInShards(self.rows)
        edges = near_duplicates(texts, sketch(texts, settings, chosen), settings, chosen)
        return edges.left, edges.right

    def _hold_out(self, train: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keep rows together that ask the same or say nearly the same."""
        size = self.config.validation
        assert not isinstance(size, SourceConfig)
        if not size or not len(train):
            return train, train[:0]
        pairs = np.searchsorted(train, np.stack(self._alike(train), axis=1))
        prompts = self.prompts[train]
        chosen = hold_out(prompts, group_rows([prompts], pairs), size, self.config.seed)
        return train[~chosen], train[chosen]

    def _packed(self, chosen: NDArray[np.int64]) -> tuple[Pieces, Packs]:
        pieces = pieces_of(self.rows, chosen)
        if self.config.packing:
            return pieces, pack(pieces.tokens, self.config.max_tokens)
        return pieces, alone(pieces.tokens)
