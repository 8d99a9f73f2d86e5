"""What a person looks at before trusting a data set: facts and examples, gathered once.

Written as ``overview.json`` beside the sequences; whoever shows it (llmkit's data report) reads
that file alone.
"""

import random
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.chat_templates import ChatTemplate
from data_prep.decisions import Decisions
from data_prep.dedup.certificates import Certificate
from data_prep.filters.personal import PersonalFilter
from data_prep.row_codec import decode_row, encode_row
from data_prep.row_text import answer_text, prompt_text, text_of
from data_prep.rows import Labelled, Preference, Row
from data_prep.settings import DataConfig
from data_prep.shards import Rows
from data_prep.units import names_of

RENDERED = 50
"""Random rows shown as the model sees them."""
PER_REASON = 3
"""Dropped rows shown of every reason."""
DUPLICATES = 8
"""Pairs of duplicates shown of every measure."""
KEPT = 1000
"""Pairs that are in memory until those that are shown are chosen."""
LANGUAGE_SAMPLE = 1000
"""Rows whose language is told, evenly spread."""
MOST_TOKENS = 4096
"""Tokens of a row that are shown as the model sees it."""
LONGEST_SHOWN = 2000
"""Characters of a text that are shown."""


def overview(
    config: DataConfig,
    template: ChatTemplate,
    rows: Rows,
    decisions: Decisions,
    certificates: Iterable[Certificate],
    train: NDArray[np.int64],
) -> dict[str, Any]:
    """Gather what the data report shows.

    Args:
        config: what was prepared.
        template: what rows were rendered with.
        rows: all of them.
        decisions: what became of them.
        certificates: of the duplicates and contradictions that were removed.
        train: the rows that are trained on.
    """
    return {
        "max_tokens": config.max_tokens,
        "overlong": config.overlong,
        "sources": _sources(config, decisions),
        "lengths": {
            "rows in": histogram(decisions.tokens[decisions.tokens > 0]),
            "trained on": histogram(rows.array("kept")[train]),
            "supervised": histogram(rows.array("taught")[train]),
        },
        "languages": _languages(rows, decisions.left()),
        "dropped": _dropped(config, rows, decisions),
        "duplicates": _duplicates(rows, certificates, decisions.source >= len(config.sources)),
        "rendered": _rendered(rows, train, template, config.seed),
    }


def histogram(values: NDArray[np.integer]) -> dict[str, Any]:
    """Counts of values in ranges that double: ``[1, 2)``, ``[2, 4)``, ...; and their quantiles."""
    if not len(values):
        return {"counts": [], "quantiles": {}}
    counts = np.bincount(np.log2(np.maximum(values, 1)).astype(np.int64)).tolist()
    marks = (0, 10, 50, 90, 99, 100)
    quantiles = np.percentile(values, marks, method="nearest").tolist()
    return {"counts": counts, "quantiles": dict(zip(map(str, marks), quantiles, strict=True))}


def _sources(config: DataConfig, decisions: Decisions) -> list[dict[str, Any]]:
    """Rows and tokens of each source, before and after."""
    count = len(config.all_sources)
    left = decisions.left()

    def totals(rows: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        source = decisions.source[rows]
        tokens = np.bincount(source, decisions.tokens[rows], count)
        return np.bincount(source, minlength=count).tolist(), tokens.astype(int).tolist()

    before, after = totals(np.arange(len(decisions.tokens))), totals(left)
    return [
        {
            "source": source.path,
            "held_out": i >= len(config.sources),
            "rows_in": before[0][i],
            "tokens_in": before[1][i],
            "rows_kept": after[0][i],
            "tokens_kept": after[1][i],
        }
        for i, source in enumerate(config.all_sources)
    ]


def _languages(rows: Rows, left: NDArray[np.int64]) -> dict[str, int]:
    """Languages of an evenly spread sample, most frequent first."""
    from data_prep.filters.language import language_of

    chosen = left[np.unique(np.linspace(0, max(0, len(left) - 1), LANGUAGE_SAMPLE).astype(int))]
    texts = (text_of(decode_row(row), "both") for row in _texts(rows, chosen))
    found = Counter(language_of(text) or "none" for text in texts)
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))


def _texts(rows: Rows, chosen: NDArray[np.int64]) -> list[str]:
    return list(rows.take(chosen, "row").column(0).to_pylist())


def _dropped(
    config: DataConfig, rows: Rows, decisions: Decisions
) -> dict[str, list[dict[str, str]]]:
    """The first rows dropped for every reason, with what they say.

    Personal data that was to go does not come back in a report.
    """
    found: dict[str, list[dict[str, str]]] = {}
    for reason in decisions.counts():
        chosen = decisions.dropped_for(reason)[:PER_REASON]
        table = rows.take(chosen, "where", "row").to_pylist()
        details = decisions.details(chosen)
        found[reason] = [
            {"where": each["where"], "detail": detail, "text": shown_text(each["row"], config)}
            for each, detail in zip(table, details, strict=True)
        ]
    return found


def shown_text(row: str | None, config: DataConfig) -> str:
    """What an encoded row that was dropped says, without the personal data that was to go."""
    for each in config.filters:
        if row is not None and isinstance(each, PersonalFilter):
            row = encode_row(each.mask_row(decode_row(row))[0])
    return _shown(row)


def _shown(row: str | None) -> str:
    text = "" if row is None else _said(decode_row(row)).strip()
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} \u2026"


def _said(row: Row) -> str:
    """All of a row; of a preference also which answer is the better one, or whether it is good."""
    if not isinstance(row, Preference | Labelled):
        return text_of(row, "both")
    answers = (row.chosen, row.rejected) if isinstance(row, Preference) else (row.completion,)
    named = zip(names_of(row), map(answer_text, answers), strict=True)
    return "\n".join([prompt_text(row), *(f"\n{name}: {said}" for name, said in named)])


def _duplicates(
    rows: Rows, certificates: Iterable[Certificate], validation: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Pairs of every measure side by side, the least similar ones: they are the ones to look at.

    Args:
        rows: all of them.
        certificates: what vouches for the rows that were removed.
        validation: whether each row is of the validation's own source, shape ``[rows]``.
    """
    shown: list[dict[str, Any]] = []
    by_measure: dict[str, list[Certificate]] = {}
    for certificate in certificates:
        found = by_measure.setdefault(certificate.measure, [])
        found.append(certificate)
        if len(found) > KEPT:  # there may be millions
            _keep_least(found)
    for found in by_measure.values():
        _keep_least(found)
        shown += [certificate.model_dump() for certificate in found]
    places = {place for each in shown for place in (each["removed"], each["witness"])}
    at = _rows_at(rows, places)
    for each in shown:
        (removed, removed_text), (witness, witness_text) = at[each["removed"]], at[each["witness"]]
        each["in_validation"] = bool(validation[witness] and not validation[removed])
        each["removed_text"], each["witness_text"] = _shown(removed_text), _shown(witness_text)
    return shown


def _keep_least(found: list[Certificate]) -> None:
    found.sort(key=lambda c: (c.similarity, c.removed))
    del found[DUPLICATES:]


def _rows_at(rows: Rows, places: set[str]) -> dict[str, tuple[int, str | None]]:
    """The rows at some places: their numbers, and what they say."""
    found: dict[str, tuple[int, str | None]] = {}
    for first, table in rows.each("where", "row"):
        where = table.column(0).to_pylist()
        inside = [i for i, place in enumerate(where) if place in places]
        found |= {where[i]: (first + i, table.column(1)[i].as_py()) for i in inside}
    return found


def _rendered(
    rows: Rows, train: NDArray[np.int64], template: ChatTemplate, seed: int
) -> list[dict[str, Any]]:
    """Random rows as runs of text, supervised or not."""
    count = min(RENDERED, len(train))
    chosen = train[sorted(random.Random(seed).sample(range(len(train)), count))]
    table = rows.take(chosen, "where", "row", "pieces", "ids", "supervised").to_pylist()
    shown = []
    for each in table:
        names = names_of(decode_row(each["row"]))
        ends = list(accumulate(each["pieces"])) if len(names) > 1 else [len(each["ids"])]
        for name, start, end in zip(names, [0, *ends], ends, strict=False):
            ids, supervised = each["ids"][start:end], each["supervised"][start:end]
            shown.append(
                {
                    "where": each["where"] + f" ({name})" * bool(name),
                    "tokens": len(ids),
                    "tokens_shown": len(ids[:MOST_TOKENS]),
                    "supervised": sum(supervised),
                    "runs": _runs(ids[:MOST_TOKENS], supervised[:MOST_TOKENS], template),
                }
            )
    return shown


def _runs(ids: list[int], supervised: list[int], template: ChatTemplate) -> list[tuple[str, bool]]:
    runs: list[tuple[str, bool]] = []
    start = 0
    for flag, run in groupby(supervised):
        length = len(list(run))
        runs.append((template.tokenizer.decode(ids[start : start + length]), bool(flag)))
        start += length
    return runs
