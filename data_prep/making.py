"""Sources -> shards of rendered rows: read, converted, checked, rendered, filtered, one by one.

Everything here looks at one row at a time, so batches of records can be made in any process; what
compares rows comes later and reads the shards.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from data_prep.batches import Batch, batches
from data_prep.chat_templates import ChatTemplate
from data_prep.columns import list_array
from data_prep.dedup.words import Texts
from data_prep.errors import RowError
from data_prep.filters.candidate import Candidate
from data_prep.filters.personal import PersonalFilter
from data_prep.filters.settings import judge_all
from data_prep.formats.detection import Detected
from data_prep.ledger import FILTERED
from data_prep.markers import escape_markers, markers_of
from data_prep.reading import ReadRow, Unusable, read_row
from data_prep.rendering import Rendered
from data_prep.row_codec import encode_row
from data_prep.row_text import opposite, text_of, whole_text
from data_prep.rows import Labelled, Preference, Row
from data_prep.settings import DataConfig
from data_prep.shards import Rows, Shards
from data_prep.sources.parsing import parse_record
from data_prep.sources.records import BadRecord, RawRecord
from data_prep.splits import prompt_hash
from data_prep.units import Units, answer_at, fit_unit, lengths, render_units
from data_prep.workers import available_workers, map_ordered

SCHEMA = pa.schema(
    [
        ("where", pa.string()),
        ("source", pa.int16()),  # index into the sources, the validation's own one last
        ("reason", pa.string()),  # why the row cannot be used; null when it can
        ("detail", pa.string()),
        ("row", pa.large_string()),  # as `row_codec` writes it; null when none could be made
        ("tokens", pa.int32()),  # the whole row's, before anything is cut; 0 if not rendered
        ("kept", pa.int32()),  # tokens that are trained on
        ("taught", pa.int32()),  # of these, supervised ones
        ("piece_count", pa.int32()),
        ("left_out", pa.int32()),  # pieces in which nothing could be learned
        ("pieces", pa.list_(pa.int32())),  # lengths of the pieces of ``ids``; mostly one
        ("ids", pa.list_(pa.int32())),
        ("supervised", pa.list_(pa.uint8())),
        ("prompt_tokens", pa.int32()),
        ("stop_id", pa.int32()),
        ("hash_high", pa.uint64()),  # of everything that the row says
        ("hash_low", pa.uint64()),  # of preferences the last bit is which way they go
        ("prompt", pa.uint64()),  # a hash of its first question
        ("good", pa.int8()),  # of a labelled answer, whether it is good; -1 for other rows
        ("answer_at", pa.int32()),  # where that answer begins
        ("group", pa.uint64()),  # a hash of the field that keeps rows together; 0 for none
        ("words", pa.large_binary()),  # normalised text, where near-duplicates are looked for
    ]
)
ESCAPED = "escaped"


def make_rows(
    config: DataConfig,
    template: ChatTemplate,
    shards: Shards,
    words_on: str | None,
    progress: Callable[[str, int], None],
    units: Units = "rows",
) -> Rows:
    """Make every row of every source; shards that are there already are not made again.

    Args:
        config: what to read and how to treat it.
        template: how conversations are rendered.
        shards: where rows go.
        words_on: the part of a row whose words are compared later; None when none are.
        progress: told of rows as they are done.
        units: what is learned from together.

    Raises:
        DataError: a source cannot be read, or has no rows.
    """
    maker = RowMaker(config, template, shards, words_on, units)
    done = 0

    def unfinished() -> Iterator[Batch]:
        nonlocal done
        for batch in batches(config):
            done = batch.number + 1
            if shards.is_done(batch.number):
                progress("preparing rows", len(batch.records))
            else:
                yield batch

    rest = unfinished()
    for batch in rest:
        if batch.full:  # there is much to do: starting processes pays
            rest = chain([batch], rest)
            break
        progress("preparing rows", maker(batch))
    for rows in map_ordered(maker, rest, config.workers or available_workers()):
        progress("preparing rows", rows)
    return Rows(shards, done)


@dataclass(frozen=True)
class Made:
    """What came of one record."""

    where: str
    row: Row | None = None
    """With personal data masked and markers escaped where that is asked for."""
    pieces: tuple[Rendered, ...] = ()
    """What is trained on: the row, or pieces of it; of a pair both sides."""
    tokens: int = 0
    """Of the whole row, of both sides of a pair."""
    left_out: int = 0
    """Pieces in which nothing could be learned."""
    error: RowError | None = None


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one batch and writes them as one shard."""

    config: DataConfig
    template: ChatTemplate
    shards: Shards
    words_on: str | None
    units: Units = "rows"

    def __call__(self, batch: Batch) -> int:
        """Write the batch's shard; answers how many rows it has."""
        made, groups, figures = make_batch(batch, self.config, self.template, self.units)
        self.shards.write(batch.number, self._table(batch, made, groups), figures)
        return len(made)

    def _table(self, batch: Batch, made: Sequence[Made], groups: Sequence[int]) -> pa.Table:
        pieces = [each.pieces for each in made]
        hashes = [hashes_of(each.row) for each in made]
        columns: dict[str, Any] = {
            "where": [each.where for each in made],
            "source": np.full(len(made), batch.source, np.int16),
            "reason": [each.error and each.error.reason for each in made],
            "detail": [each.error and each.error.detail for each in made],
            "row": [each.row and encode_row(each.row) for each in made],
            "tokens": [each.tokens for each in made],
            "kept": [sum(len(piece.ids) for piece in each) for each in pieces],
            "taught": [sum(map(np.count_nonzero, (p.supervised for p in each))) for each in pieces],
            "piece_count": [len(each) for each in pieces],
            "left_out": [each.left_out for each in made],
            "pieces": list_array([[len(p.ids) for p in each] for each in pieces], pa.int32()),
            "ids": list_array([_joined(p.ids for p in each) for each in pieces], pa.int32()),
            "supervised": list_array(
                [_joined(p.supervised for p in each) for each in pieces], pa.uint8()
            ),
            "prompt_tokens": [each[0].prompt_tokens if each else 0 for each in pieces],
            "stop_id": [each[0].stop_id if each else -1 for each in pieces],
            "hash_high": [each[0] for each in hashes],
            "hash_low": [each[1] for each in hashes],
            "prompt": [each[2] for each in hashes],
            "good": [
                int(each.row.label) if isinstance(each.row, Labelled) else -1 for each in made
            ],
            "answer_at": [_answer_at(each) for each in made],
            "group": groups,
            "words": Texts.of(map(self._words, made)).to_arrow(),
        }
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for field, column in ((field, columns[field.name]) for field in SCHEMA)
        ]
        return pa.table(arrays, schema=SCHEMA)

    def _words(self, made: Made) -> str:
        """What is compared of a row; nothing of one that is not left to be compared."""
        if self.words_on is None or made.row is None or not made.pieces:
            return ""
        return text_of(made.row, self.words_on)


def make_batch(
    batch: Batch, config: DataConfig, template: ChatTemplate, units: Units = "rows"
) -> tuple[list[Made], list[int], dict[str, Any]]:
    """Make the rows of a batch: whoever shows rows makes them here too, so that they are the same.

    Args:
        batch: records of one source.
        config: how to treat them.
        template: how conversations are rendered.
        units: what is learned from together.

    Returns:
        What came of each record; a hash of what keeps each together with others, or 0; and
        figures about them.
    """
    read = [_read(batch, record, chosen, config) for record, chosen in batch.records]
    found, groups = [each for each, _ in read], [group for _, group in read]
    usable = [each for each in found if isinstance(each, ReadRow)]
    changes: Counter[str] = Counter()
    rows = [changed(each.row, config, template, changes) for each in usable]
    rendered = render_units(rows, template, config.supervise, units)
    results = iter(zip(rows, rendered, _dropped(rows, rendered, config), strict=True))
    made = [
        Made(each.where, error=each.error)
        if isinstance(each, Unusable)
        else _judged(each.where, *next(results), config)
        for each in found
    ]
    figures = _figures(batch, usable) | {
        "escaped": changes.pop(ESCAPED, 0),
        "masked": dict(changes),
    }
    return made, groups, figures


def _read(
    batch: Batch, raw: RawRecord, chosen: Detected, config: DataConfig
) -> tuple[ReadRow | Unusable, int]:
    """Make a row of a record, and hash the field that keeps it together with others."""
    record = parse_record(raw)
    found = read_row(record, batch.asked, chosen, config.roles)
    field = config.all_sources[batch.source].group
    if field is None or isinstance(record, BadRecord) or isinstance(found, Unusable):
        return found, 0
    value = record.value.get(field)
    if value is None:
        error = RowError("missing field", f"{field!r}, which keeps rows together (group)")
        return Unusable(record.where, error), 0
    text = json.dumps(value, sort_keys=True, default=str)
    found = replace(found, unused=found.unused - {field})
    return found, xxhash.xxh3_64_intdigest(text.encode()) or 1


def _dropped(
    rows: Sequence[Row],
    rendered: Sequence[tuple[Rendered, ...] | RowError],
    config: DataConfig,
) -> list[RowError | None]:
    """Why filters drop rows: all filters are asked but the one that wants a model."""
    filters = [each for each in config.filters if each.kind != "perplexity"]
    good = {
        i: Candidate(rows[i], max(len(side.ids) for side in each))
        for i, each in enumerate(rendered)
        if not isinstance(each, RowError)
    }
    found: list[RowError | None] = [None] * len(rows)
    for i, verdict in zip(good, judge_all(filters, [*good.values()]), strict=True):
        if verdict:
            found[i] = RowError(f"{FILTERED}{verdict[0]}", verdict[1])
    return found


def _judged(
    where: str,
    row: Row,
    rendered: tuple[Rendered, ...] | RowError,
    dropped: RowError | None,
    config: DataConfig,
) -> Made:
    """What came of a row that was read: filtered out, or fitted as ``overlong`` says."""
    if isinstance(rendered, RowError):
        return Made(where, row, error=rendered)
    tokens = sum(len(side.ids) for side in rendered)
    if dropped:
        return Made(where, row, tokens=tokens, error=dropped)
    limit = config.max_tokens
    fitted = fit_unit(rendered, limit, config.overlong)
    if fitted.reason:
        error = RowError(fitted.reason, lengths(rendered, limit))
        return Made(where, row, tokens=tokens, error=error)
    return Made(where, row, fitted.pieces, tokens, fitted.left_out)


def changed(row: Row, config: DataConfig, template: ChatTemplate, counts: Counter[str]) -> Row:
    """Mask personal data and escape typed markers where that is asked for.

    Args:
        row: as it was read.
        config: what is asked for.
        template: what must not be typed.
        counts: told how often what was changed.
    """
    for each in config.filters:
        if isinstance(each, PersonalFilter) and each.action == "mask":
            row, found = each.mask_row(row)
            counts.update(found)
    if config.markers == "escape":
        with suppress(RowError):  # what cannot be escaped is refused when it is rendered
            row, times = escape_markers(row, markers_of(row, template))
            counts[ESCAPED] += bool(times)
    return row


def _answer_at(made: Made) -> int:
    return answer_at(made.pieces[0]) if isinstance(made.row, Labelled) and made.pieces else 0


def _joined(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Pieces laid end to end; of most rows there is one."""
    arrays = list(parts)
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(0, np.int32), *arrays])


def hashes_of(row: Row | None) -> tuple[int, int, int]:
    """128 bits of everything that a row says, high and low, and 64 of its first question.

    Those of two preferences that contradict each other differ in the last bit of the low ones
    alone, as `data_prep.dedup.exact.contradictions` wants.
    """
    if row is None:
        return 0, 0, 0
    text = whole_text(row)
    if not isinstance(row, Preference | Labelled):
        whole = xxhash.xxh3_128_intdigest(text.encode())
    else:
        either = min(text, whole_text(opposite(row)))
        whole = xxhash.xxh3_128_intdigest(either.encode()) >> 1 << 1 | (text != either)
    return whole >> 64, whole & (2**64 - 1), prompt_hash(row)


def _figures(batch: Batch, usable: Sequence[ReadRow]) -> dict[str, Any]:
    unused: dict[str, int] = {}
    for each in usable:
        for field in each.unused:
            unused[field] = unused.get(field, 0) + 1
    return {
        "source": batch.source,
        "rows": len(batch.records),
        "formats": sorted({each.format for each in usable}),
        "because": next((each.because for each in usable if each.because), ""),
        "merged": sum(each.merged for each in usable),
        "unused": unused,
    }
