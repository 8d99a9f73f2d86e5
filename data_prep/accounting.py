"""The ledger made of decisions, and what the account must not look like."""

from collections import Counter

import numpy as np

from data_prep.decisions import IN_VALIDATION, Decisions, examples
from data_prep.dedup.certificates import DUPLICATES
from data_prep.errors import CheckRefused, RowsRefused
from data_prep.ledger import FILTERED, Ledger
from data_prep.remedies import remedies, remedy_of_the_most_frequent
from data_prep.settings import DataConfig
from data_prep.shards import Rows
from data_prep.sources.config import SourceConfig
from data_prep.splits import rows_wanted

_NOT_ERRORS = {"over max_tokens", "nothing supervised left"}


def stop_on_errors(config: DataConfig, decisions: Decisions) -> None:
    """Name every row that cannot be used, unless the person asked for such rows to be dropped.

    Raises:
        RowsRefused: there are such rows.
    """
    if config.on_error != "fail":
        return
    policies: dict[str, str] = {
        "role order": config.roles,
        "special token in the text": config.markers,
    }
    wrong = {
        reason: count.rows
        for reason, count in decisions.counts().items()
        if reason not in _NOT_ERRORS
        and not reason.startswith(FILTERED)
        and policies.get(reason) != "drop"
    }
    if not wrong:
        return
    total = sum(wrong.values())
    shown = examples(decisions.dropped(), wrong)
    more = f"\n  ... and {total - len(shown)} more" if total > len(shown) else ""
    ways = remedies(wrong)
    left = decisions.source[decisions.left()]
    if (left < len(config.sources)).any():
        ways.append("data.on_error=skip drops and counts every row that cannot be used")
    raise RowsRefused(
        f"{total} of {len(decisions.tokens)} rows cannot be used:\n  "
        + "\n  ".join(shown)
        + more
        + ("\nMend them, or say what to do with them: " if ways else "\nMend them")
        + "; ".join(ways)
        + "."
    )


def refuse_mostly_duplicates(config: DataConfig, decisions: Decisions) -> None:
    """Refuse data of which more is repeated than ``max_duplicates`` allows.

    Raises:
        CheckRefused: it is.
    """
    counts, total = decisions.counts(), len(decisions.tokens)
    for reasons, what in (
        (tuple(DUPLICATES.values()), "repeat another row"),
        ((IN_VALIDATION,), "ask what the validation source asks, or nearly say it"),
    ):
        count = sum(counts[reason].rows for reason in reasons if reason in counts)
        if count > config.max_duplicates * total:
            raise CheckRefused(
                f"{count} of {total} rows {what}, more than data.max_duplicates="
                f"{config.max_duplicates} allows. Mend the source, or raise data.max_duplicates."
            )


def account(config: DataConfig, rows: Rows, decisions: Decisions) -> Ledger:
    """Make the ledger, and hold its law."""
    left = decisions.left()
    whole, kept = decisions.tokens[left], rows.array("kept")[left]
    pieces = rows.array("piece_count")[left]
    split = (whole > config.max_tokens) & (config.overlong == "split")
    ledger = Ledger(
        rows_in=len(rows),
        rows_kept=int((kept == whole)[~split].sum()),
        rows_truncated=int((kept < whole)[~split].sum()),
        rows_split=int(split.sum()),
        pieces=int(pieces[split].sum()),
        pieces_left_out=int(rows.array("left_out")[left].sum()),
        rows_escaped=sum(figures["escaped"] for figures in rows.figures),
        rows_merged=sum(figures["merged"] for figures in rows.figures),
        tokens_in=int(decisions.tokens.sum()),
        tokens_kept=int(kept.sum()),
        tokens_cut=int((whole - kept).sum()),
        tokens_supervised=int(rows.array("taught")[left].sum()),
        dropped=decisions.counts(),
        steps=decisions.steps,
        **_described(config, rows, decisions),
    )
    ledger.check()
    return ledger


def _described(
    config: DataConfig, rows: Rows, decisions: Decisions
) -> dict[str, dict[str, int] | dict[str, str]]:
    """What the shards say about the sources."""
    counts: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    formats: dict[str, set[str]] = {}
    because: dict[str, str] = {}
    for figures in rows.figures:
        source = config.all_sources[figures["source"]]
        counts[source.path] += figures["rows"]
        unused.update(figures["unused"])
        masked.update(figures["masked"])
        formats.setdefault(source.path, set()).update(figures["formats"] or [])
        if figures["because"]:
            because.setdefault(source.path, figures["because"])
    left = np.bincount(decisions.source[decisions.left()], minlength=len(config.all_sources))
    kept: Counter[str] = Counter()
    for index, source in enumerate(config.all_sources):
        kept[source.path] += int(left[index])
    asked = {source.path: source.format for source in config.all_sources}
    return {
        "sources": dict(counts),
        "sources_kept": kept,
        "formats": {
            path: ", ".join(sorted(found)) or asked[path] for path, found in formats.items()
        },
        "formats_because": because,
        "fields_unused": dict(sorted(unused.items())),
        "personal_masked": dict(sorted(masked.items())),
    }


def refuse_empty(config: DataConfig, train: int, validation: int, ledger: Ledger) -> None:
    """Refuse to go on without rows to train on, or without those that were to be held out.

    Raises:
        RowsRefused: there are none.
    """
    for name, rows, wanted in (
        ("training", train, True),
        ("validation", validation, bool(config.validation)),
    ):
        if wanted and not rows:
            reasons = ", ".join(f"{count.rows} {why}" for why, count in ledger.dropped.items())
            raise RowsRefused(
                f"No row is left for {name}: {ledger.rows_in} rows in, dropped: {reasons or 'none'}"
                f" (max_tokens={config.max_tokens}, overlong={config.overlong})."
                + (_parted(config, train, validation) or _emptied(config, train, ledger))
            )


def _emptied(config: DataConfig, train: int, ledger: Ledger) -> str:
    """Which sources have no row left, and what to do about the most frequent reason."""
    sources = config.all_sources[len(config.sources) :] if train else config.all_sources
    paths = dict.fromkeys(source.path for source in sources)
    listed = ", ".join(f"{path} ({ledger.sources.get(path, 0)} rows)" for path in paths)
    most = next(iter(ledger.dropped), "") if not train else ""
    return f" Sources: {listed}." + (remedy_of_the_most_frequent(most) if most else "")


def _parted(config: DataConfig, train: int, validation: int) -> str:
    """Why a split left one side empty."""
    own, rows = config.validation, train + validation
    if isinstance(own, SourceConfig) or not own or not rows:
        return ""
    if own >= rows:
        return f" validation={own} was asked for, and there are {rows} rows. Ask for fewer."
    return (
        f" validation={own} was asked for: {train} rows for training, {validation} for "
        f"validation; {_together(config)}. Or give validation a source of its own."
    )


def uneven_split(config: DataConfig, train: int, validation: int) -> str:
    """What a person should know of a split that could not be as it was asked for; else nothing."""
    own, rows = config.validation, train + validation
    if isinstance(own, SourceConfig) or not validation:
        return ""
    wanted = rows_wanted(own, rows)
    if wanted <= 2 * validation and validation <= wanted:
        return ""
    return (
        f"warning: validation={own} is {wanted} of {rows} rows, and {validation} are held out: "
        f"{_together(config)}."
    )


def _together(config: DataConfig) -> str:
    """What a split does not part."""
    near = config.keep_together == "near-duplicates"
    alike = ["ask the same first question"]
    alike += ["have one value of group"] * any(source.group for source in config.sources)
    alike += ["are near-duplicates, in chains,"] * near
    remedy = (
        ": data.dedup.minhash={} removes near-duplicates first, data.keep_together=questions lets "
        "them be parted"
    )
    return f"rows that {' or '.join(alike)} stay together{remedy * near}"
