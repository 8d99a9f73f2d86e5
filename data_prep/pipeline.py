"""DataConfig -> PreparedDataset: read, check, split, deduplicate, render, pack, write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from data_prep.chat_templates import ChatTemplate
from data_prep.contamination.settings import ContaminationConfig
from data_prep.dedup.certificates import DUPLICATES, Certificate
from data_prep.dedup.deduplicate import DedupConfig, deduplicate
from data_prep.errors import DataError, RowError
from data_prep.ledger import Dropped, Ledger, examples
from data_prep.packing import Pack, efficiency, pack
from data_prep.prepared import PreparedDataset, write
from data_prep.reading import RolesPolicy, Unusable, read_rows
from data_prep.rendering import Rendered, render
from data_prep.rows import PlacedRow, Row
from data_prep.sources import SourceConfig
from data_prep.splits import find_leaks, hold_out

RENDER_BATCH = 1024
SAMPLES = 64
"""Rows kept beside the sequences; held-out rows first."""

Progress = Callable[[str, int], None]
"""Called with the name of the step and how many rows it has done since the last call."""


class DataConfig(BaseModel):
    """What data, and how it becomes training sequences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: list[SourceConfig] = Field(min_length=1)
    """Where the rows come from, in order."""
    validation: float | int | SourceConfig = Field(default=0, union_mode="left_to_right")
    """Held out: a fraction of the rows (0.1), a number of rows (100), or a source of its own."""
    max_tokens: int = Field(default=2048, ge=8)
    """The training context length: the longest row and the size of a pack."""
    overlong: Literal["drop", "truncate"] = "drop"
    """Rows longer than ``max_tokens``: left out, or cut (the cut end is never taught as an end)."""
    packing: bool = True
    """Several rows in one sequence; they never see each other."""
    dedup: DedupConfig = DedupConfig()
    contamination: ContaminationConfig | None = None
    """Evaluation sets that must not stand in the training rows."""
    max_duplicates: float = Field(default=0.5, ge=0, le=1)
    """The largest share of rows that may be duplicates, or rows whose question is in the
    validation source, before preparation refuses to go on."""
    on_error: Literal["fail", "skip"] = "fail"
    """Rows that cannot be used: all named in one error, or dropped and counted in the ledger."""
    roles: RolesPolicy = "refuse"
    """Two turns of one role in a row and the like: as ``on_error`` says, dropped, or merged."""
    markers: Literal["refuse", "drop"] = "refuse"
    """Special tokens typed inside a message: as ``on_error`` says, or dropped."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Decides which rows are held out."""

    @field_validator("sources")
    @classmethod
    def _each_once(cls, value: list[SourceConfig]) -> list[SourceConfig]:
        places = [(source.path, source.split) for source in value]
        for path, split in places:
            if places.count((path, split)) > 1:
                raise ValueError(f"{path} is listed more than once")
        return value

    @field_validator("validation", mode="before")
    @classmethod
    def _not_yes_or_no(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("wants a fraction (0.1), a number of rows (100), or a source")
        return value

    @field_validator("validation")
    @classmethod
    def _fraction_or_number(cls, value: float | SourceConfig) -> float | SourceConfig:
        if isinstance(value, int | float) and not 0 <= value < inf:
            raise ValueError("wants 0 or more")
        if isinstance(value, float) and value >= 1 and value != int(value):
            raise ValueError("wants a fraction below 1, or a whole number of rows")
        return value


@dataclass(frozen=True, slots=True)
class _RenderedRow:
    where: str
    row: Row
    tokens: Rendered
    cut: int = 0
    """Tokens that ``overlong: truncate`` cut off."""


def prepare(
    config: DataConfig,
    template: ChatTemplate,
    folder: Path,
    progress: Progress = lambda _step, _rows: None,
) -> PreparedDataset:
    """Turn sources into packed training sequences on disk, and account for every row and token.

    The same configuration, data, tokenizer and template give the same bytes.

    Args:
        config: what to read and how to treat it.
        template: the chat template, bound to the base model's tokenizer.
        folder: an empty folder to write into.
        progress: told of rows as they are done.

    Raises:
        DataError: a source cannot be read; rows cannot be used and ``on_error`` is ``fail``; more
            rows than ``max_duplicates`` are duplicates; or nothing is left to train or validate on.
    """
    ledger = Ledger()
    own = [config.validation] if isinstance(config.validation, SourceConfig) else []
    placed = [_read_all(config, side, ledger, progress) for side in (config.sources, own)]
    _stop_on_errors(config, ledger)
    rows, held_out = [_render_all(config, side, template, ledger, progress) for side in placed]
    _stop_on_errors(config, ledger)
    rows, certificates = _deduplicated(config, rows, ledger, progress)
    held_out, more = _deduplicated(config, held_out, ledger, progress)
    rows = _without_leaks(rows, held_out, ledger)
    _refuse_mostly_duplicates(config, ledger)
    train, validation = rows, held_out
    if not isinstance(config.validation, SourceConfig):
        train, validation = hold_out(rows, config.validation, config.seed)
    for row in (*train, *validation):
        ledger.keep(len(row.tokens.ids), row.cut, sum(row.tokens.supervised))
    ledger.check()
    _refuse_empty(config, train, validation, ledger)
    train_packs = _packed(config, train)
    figures = ledger.summary() | {
        "train_rows": len(train),
        "validation_rows": len(validation),
        "packs": len(train_packs),
        "packing_efficiency": round(efficiency(train_packs, config.max_tokens), 4),
        "stop_token": template.stop_token,
        "stop_ids": sorted({row.tokens.stop_id for row in train}),
    }
    write(folder, "train", _sequences(train, train_packs))
    write(folder, "validation", _sequences(validation, _packed(config, validation)))
    samples = _samples(validation, SAMPLES)
    samples += _samples(train, SAMPLES - len(samples))
    return PreparedDataset.create(folder, ledger, figures, samples, [*certificates, *more])


def _read_all(
    config: DataConfig, sources: Sequence[SourceConfig], ledger: Ledger, progress: Progress
) -> list[PlacedRow]:
    rows: list[PlacedRow] = []
    for source in sources:
        count = 0
        formats: set[str] = set()
        for found in read_rows(source, config.roles):
            count += 1
            ledger.rows_in += 1
            progress("reading rows", 1)
            if isinstance(found, Unusable):
                ledger.drop(found.where, found.error.reason, found.error.detail)
                continue
            rows.append(PlacedRow(found.where, found.row))
            formats.add(found.format)
            ledger.rows_merged += found.merged
            for field in found.unused:
                ledger.fields_unused[field] = ledger.fields_unused.get(field, 0) + 1
        ledger.sources[source.path] = ledger.sources.get(source.path, 0) + count
        ledger.formats[source.path] = ", ".join(formats) or source.format
        if not count:
            raise DataError(f"{source.path}: has no rows.")
    ledger.fields_unused = dict(sorted(ledger.fields_unused.items()))
    return rows


_REMEDIES = {
    "role order": "data.roles=merge joins repeated turns, data.roles=drop drops such rows",
    "special token in the text": "data.markers=drop drops such rows",
}
_NOT_ERRORS = {"over max_tokens", "also in validation", "nothing supervised left"}


def _stop_on_errors(config: DataConfig, ledger: Ledger) -> None:
    """Name every row that cannot be used, unless the person asked for such rows to be dropped."""
    policies: dict[str, str] = {
        "role order": config.roles,
        "special token in the text": config.markers,
    }
    wrong = [
        row
        for row in ledger.dropped
        if row.reason not in _NOT_ERRORS
        and config.on_error == "fail"
        and policies.get(row.reason) != "drop"
    ]
    if not wrong:
        return
    shown = examples(wrong)
    more = f"\n  ... and {len(wrong) - len(shown)} more" if len(wrong) > len(shown) else ""
    reasons = {row.reason for row in wrong}
    remedies = [_REMEDIES[reason] for reason in sorted(reasons & set(_REMEDIES))]
    remedies.append("data.on_error=skip drops and counts every row that cannot be used")
    raise DataError(
        f"{len(wrong)} of {ledger.rows_in} rows cannot be used:\n  "
        + "\n  ".join(shown)
        + more
        + "\nMend them, or say what to do with them: "
        + "; ".join(remedies)
        + "."
    )


def _refuse_mostly_duplicates(config: DataConfig, ledger: Ledger) -> None:
    duplicates = sum(ledger.reasons.get(reason, 0) for reason in DUPLICATES.values())
    leaks = ledger.reasons.get("also in validation", 0)
    for count, what in (
        (duplicates, "repeat another row"),
        (leaks, "ask what the validation source asks"),
    ):
        if count > config.max_duplicates * ledger.rows_in:
            raise DataError(
                f"{count} of {ledger.rows_in} rows {what}, more than data.max_duplicates="
                f"{config.max_duplicates} allows. Mend the source, or raise data.max_duplicates."
            )


def _render_all(
    config: DataConfig,
    rows: Sequence[PlacedRow],
    template: ChatTemplate,
    ledger: Ledger,
    progress: Progress,
) -> list[_RenderedRow]:
    kept: list[_RenderedRow] = []
    for start in range(0, len(rows), RENDER_BATCH):
        batch = rows[start : start + RENDER_BATCH]
        for placed, result in zip(batch, render([p.row for p in batch], template), strict=True):
            progress("rendering rows", 1)
            if isinstance(result, RowError):
                ledger.drop(placed.where, result.reason, result.detail)
            else:
                fitted = _fit(config, placed, result, ledger)
                kept += [fitted] if fitted else []
    return kept


def _fit(
    config: DataConfig, placed: PlacedRow, row: Rendered, ledger: Ledger
) -> _RenderedRow | None:
    """Apply ``overlong`` to one row."""
    tokens = len(row.ids)
    ledger.tokens_in += tokens
    limit = config.max_tokens
    if tokens <= limit:
        return _RenderedRow(placed.where, placed.row, row)
    supervised = row.supervised[:limit]
    if config.overlong == "drop" or not any(supervised):
        reason = "over max_tokens" if config.overlong == "drop" else "nothing supervised left"
        ledger.drop(placed.where, reason, f"{tokens} tokens, max_tokens={limit}", tokens)
        return None
    fitted = Rendered(row.ids[:limit], supervised, min(row.prompt_tokens, limit), row.stop_id)
    return _RenderedRow(placed.where, placed.row, fitted, cut=tokens - limit)


def _deduplicated(
    config: DataConfig, rows: list[_RenderedRow], ledger: Ledger, progress: Progress
) -> tuple[list[_RenderedRow], list[Certificate]]:
    """Drop duplicates among rows that can be trained on, so that every witness stays."""
    certificates = deduplicate(rows, config.dedup)
    progress("comparing rows", len(rows))
    for index, certificate in certificates.items():
        tokens = len(rows[index].tokens.ids) + rows[index].cut
        reason, witness = DUPLICATES[certificate.measure], certificate.witness
        ledger.dropped.append(
            Dropped(where=certificate.removed, reason=reason, tokens=tokens, witness=witness)
        )
    kept = [row for index, row in enumerate(rows) if index not in certificates]
    return kept, list(certificates.values())


def _without_leaks(
    rows: list[_RenderedRow], held_out: Sequence[_RenderedRow], ledger: Ledger
) -> list[_RenderedRow]:
    """Drop training rows that ask what the validation source asks."""
    leaks = find_leaks(rows, held_out)
    for index, witness in leaks.items():
        row = rows[index]
        tokens = len(row.tokens.ids) + row.cut
        ledger.dropped.append(
            Dropped(where=row.where, reason="also in validation", tokens=tokens, witness=witness)
        )
    return [row for index, row in enumerate(rows) if index not in leaks]


def _refuse_empty(
    config: DataConfig,
    train: Sequence[_RenderedRow],
    validation: Sequence[_RenderedRow],
    ledger: Ledger,
) -> None:
    for name, rows, wanted in (
        ("training", train, True),
        ("validation", validation, bool(config.validation)),
    ):
        if wanted and not rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in ledger.reasons.items())
            raise DataError(
                f"No row is left for {name}: {ledger.rows_in} rows in, dropped: {reasons or 'none'}"
                f" (max_tokens={config.max_tokens}, overlong={config.overlong}, "
                f"validation={config.validation}; {len(train)} rows for training, "
                f"{len(validation)} for validation; rows that ask the same first question "
                "stay together)."
            )


def _packed(config: DataConfig, rows: Sequence[_RenderedRow]) -> list[Pack]:
    lengths = [len(row.tokens.ids) for row in rows]
    if config.packing:
        return pack(lengths, config.max_tokens)
    return [Pack([index], length) for index, length in enumerate(lengths)]


def _sequences(
    rows: Sequence[_RenderedRow], packs: Sequence[Pack]
) -> list[list[tuple[str, Rendered]]]:
    return [[(rows[i].where, rows[i].tokens) for i in pack.rows] for pack in packs]


def _samples(rows: Sequence[_RenderedRow], most: int) -> list[tuple[str, Row, Rendered]]:
    """Evenly spread rows, at most so many: what verification asks the server to render again."""
    # A cut row whose last answer is gone has no prompt to compare any more.
    whole = [row for row in rows if row.tokens.prompt_tokens < len(row.tokens.ids)]
    count = min(most, len(whole))
    spread = [whole[index * len(whole) // count] for index in range(count)]
    return [(row.where, row.row, row.tokens) for row in spread]
