"""DataConfig -> PreparedDataset: the order of the steps."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.accounting import (
    account,
    refuse_empty,
    refuse_mostly_duplicates,
    stop_on_errors,
    uneven_split,
)
from data_prep.chat_templates import ChatTemplate
from data_prep.comparing import Comparing, Progress
from data_prep.contamination.evaluation_texts import refuse_trained_sets
from data_prep.errors import DataError, RowsRefused
from data_prep.labelled import label_figures, label_note, labelled_pieces, refuse_one_label
from data_prep.making import make_rows
from data_prep.mixture import MixtureConfig, mix, realised
from data_prep.models import Models, NoModels
from data_prep.overview import overview
from data_prep.packing import Packs, alone, efficiency, fewest_packs, pack
from data_prep.prepared import PreparedDataset
from data_prep.samples import choose_samples
from data_prep.selection.choice import Candidates, Choice
from data_prep.selection.settings import compared
from data_prep.sequences import Pieces, pairs_of, pieces_of, write_sequences
from data_prep.settings import DataConfig
from data_prep.shards import Rows, Shards
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import refuse_shared_files
from data_prep.units import Units, settings_that_do_not_fit, unit_capacity

NOT_SELECTED = "not selected"
LEFT_OUT = "left out by the mixture"


def prepare(
    config: DataConfig,
    template: ChatTemplate,
    folder: Path,
    progress: Progress = lambda _step, _rows: None,
    *,
    units: Units = "rows",
    work: Path | None = None,
    models: Models | None = None,
) -> PreparedDataset:
    """Turn sources into packed training sequences on disk, and account for every row and token.

    The same configuration, data, tokenizer and template give the same bytes, for any number of
    workers and rows a shard. Memory holds some hundred bytes a row, and some kilobytes of one that
    is embedded; the rows themselves are on disk.

    Args:
        config: what to read and how to treat it.
        template: the chat template, bound to the base model's tokenizer.
        folder: an empty folder to write into.
        progress: told of rows as they are done.
        units: what is learned from together: a row (sft), a pair of answers (dpo), or an answer
            with a label beside a mismatched one (kto).
        work: where shards of rows are kept while this works. Shards found there are believed, so
            that an interrupted preparation goes on: give another folder for other inputs. A
            temporary one by default.
        models: loads the models that the configuration names.

    Raises:
        DataError: settings do not fit the units; a source cannot be read; two sources name one
            file, or a source and an evaluation set do; rows cannot be used and ``on_error`` is
            ``fail``; more rows than ``max_duplicates`` are duplicates; evaluation texts stand in
            rows and ``contamination.action`` is ``refuse``; a model is asked for and cannot be had;
            or nothing is left to train or validate on, or of labelled answers only good ones or
            only bad ones.
    """
    for _, problem in settings_that_do_not_fit(config, units):
        raise DataError(problem)
    refuse_shared_files(config.all_sources)
    if config.contamination:
        refuse_trained_sets(config.contamination.against, config.sources)
    with ExitStack() as temporary:
        if work is None:
            work = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="llmkit-")))
        words_on = Comparing.words_on(config)
        # Shards of another size hold other rows under the same numbers.
        shards = Shards(work / f"{units}-{config.shard_rows}")
        rows = make_rows(config, template, shards, words_on, progress, units)
        comparing = Comparing(config, rows, work, models or NoModels(), progress)
        return _Preparation(config, template, rows, comparing, units).finish(folder)


class _Preparation:
    """What follows once every row is made: who stays, who trains, and what is written."""

    def __init__(
        self,
        config: DataConfig,
        template: ChatTemplate,
        rows: Rows,
        comparing: Comparing,
        units: Units,
    ) -> None:
        self.config = config
        self.template = template
        self.rows = rows
        self.comparing = comparing
        self.decisions = comparing.decisions
        self.units = units

    def finish(self, folder: Path) -> PreparedDataset:
        config, comparing, decisions = self.config, self.comparing, self.decisions
        stop_on_errors(config, decisions)
        comparing.filter_by_perplexity()
        if self.units != "rows":
            comparing.remove_contradictions()
        comparing.remove_duplicates(self.units)
        comparing.find_evaluation_texts()
        comparing.remove_rows_of_validation()
        refuse_mostly_duplicates(config, decisions)
        train, validation = comparing.sides()
        if not isinstance(config.validation, SourceConfig):
            train, validation = comparing.hold_out(train)
        notes = [*comparing.notes, uneven_split(config, len(train), len(validation))]
        train, others, note = self._select(train)
        notes.append(note)
        train = self._mix(train)
        ledger = account(config, self.rows, decisions)
        refuse_empty(config, len(train), len(validation), ledger)
        labels, note = self._labels(train, validation)
        notes.append(note)
        pieces, packs = self._packed(train)
        figures = ledger.summary() | {
            "train_rows": len(train),
            "validation_rows": len(validation),
            "units": self.units,
            **labels,
            "train_repeats": len(train) - len(np.unique(train)),
            "train_supervised": int(self.rows.array("taught")[train].sum()),
            "mixture": self._shares(train),
            **self._packing(pieces, packs),
            "stop_token": self.template.stop_token,
            "stop_ids": np.unique(self.rows.array("stop_id")[train]).tolist(),
            "notes": [note for note in notes if note],
            "comparison_rows": len(others),
            "contamination": comparing.contamination and comparing.contamination.model_dump(),
        }
        write_sequences(folder / "train.arrow", self.rows, pieces, packs)
        write_sequences(folder / "validation.arrow", self.rows, *self._packed(validation))
        if len(others):
            write_sequences(folder / "comparison.arrow", self.rows, *self._packed(others))
        shown = overview(
            config, self.template, self.rows, decisions, comparing.certificates(), train
        )
        samples = choose_samples(self.rows, train, validation, self.template.tokenizer, self.units)
        return PreparedDataset.create(
            folder,
            figures,
            shown,
            decisions.dropped(),
            samples,
            comparing.certificates(),
            comparing.overlaps(),
        )

    def _labels(
        self, train: NDArray[np.int64], validation: NDArray[np.int64]
    ) -> tuple[dict[str, int], str]:
        """Figures of labelled answers and a remark; of other rows there are none."""
        if self.units != "labelled":
            return {}, ""
        refuse_one_label(self.rows, train, validation)
        found = label_figures(self.rows, train, validation)
        return found, label_note(found)

    def _packing(self, pieces: Pieces, packs: Packs) -> dict[str, int | float]:
        """How well what is trained on is packed."""
        capacity = unit_capacity(self.config.max_tokens, self.units)
        return {
            "train_tokens": int(packs.tokens.sum()),
            "packs": len(packs),
            "packs_at_least": fewest_packs(pieces.unit_tokens, capacity),
            "packing_efficiency": round(efficiency(packs, capacity), 4),
        }

    def _select(self, train: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
        """Choose among the rows to train on.

        Returns:
            The rows chosen; as many at random, to compare them with; and a remark.
        """
        rule = self.config.select
        nobody = train[:0]
        if rule is None or not len(train):
            return train, nobody, ""
        vectors = None
        if rule.kind in ("mmr", "k_centre"):
            vectors = self.comparing.embedded(train, rule.model, rule.on)
        hashes = self.rows.array("hash_low")[train]
        candidates = Candidates(hashes, self.decisions.tokens[train], vectors)
        choice = rule.choose(candidates)
        others = nobody
        # Where all rows are chosen, a random choice is the same one: nothing to compare with.
        if rule.kind != "random" and rule.compare_random and len(choice.kept) < len(train):
            others = train[compared(candidates, choice, self.config.seed).kept]
        self._leave_out(train, choice)
        return train[choice.kept], others, choice.note

    def _leave_out(self, train: NDArray[np.int64], choice: Choice) -> None:
        goes = np.setdiff1d(train, train[choice.kept])
        self.decisions.drop(goes, NOT_SELECTED, detail=choice.reason)
        self.decisions.note("selected")

    def _mix(self, train: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give every source the share that its weight says."""
        weights = self.config.weights
        if not weights:
            return train
        rows, decisions = self.rows, self.decisions
        counts = np.bincount(decisions.source[train], minlength=len(weights))
        if not counts.all():
            source = self.config.sources[int(np.argmin(counts > 0))]
            raise RowsRefused(
                f"{source.path}: has a weight of {source.weight}, and no row of it is left to "
                "train on, so the shares that were asked for cannot be had. Leave the source out, "
                "or see why its rows went: "
                + ", ".join(f"{n.rows} {why}" for why, n in decisions.counts().items())
            )
        mixture = mix(
            self.config.mixture or MixtureConfig(),
            weights,
            train,
            decisions.source[train],
            rows.array("kept").astype(np.int64)[train],
            rows.array("hash_low")[train],
            self.config.seed,
        )
        decisions.drop(mixture.left_out, LEFT_OUT)
        decisions.note("mixed")
        return mixture.rows

    def _shares(self, train: NDArray[np.int64]) -> list[dict[str, Any]]:
        """What every source is of everything that is trained on, where shares were asked for."""
        config = self.config
        if not config.weights:
            return []
        chosen, times = np.unique(train, return_counts=True)
        tokens = self.rows.array("kept")[chosen] * times
        by = (config.mixture or MixtureConfig()).by
        names = [source.path for source in config.sources]
        source = self.decisions.source[chosen]
        shares = realised(by, config.weights, names, source, times, tokens)
        return [share.model_dump() for share in shares]

    def _packed(self, chosen: NDArray[np.int64]) -> tuple[Pieces, Packs]:
        limit = self.config.max_tokens
        match self.units:
            case "rows":
                pieces = pieces_of(self.rows, chosen)
            case "pairs":
                pieces = pairs_of(self.rows, chosen)
            case "labelled":
                pieces = labelled_pieces(self.rows, chosen, limit)
        if self.config.packing:
            return pieces, pack(pieces.unit_tokens, unit_capacity(limit, self.units))
        return pieces, alone(pieces.unit_tokens)
