"""The report of a comparison: how much of each evaluation set has leaked, with examples."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from data_prep.contamination.index import EvaluationIndex
from data_prep.contamination.settings import METHODS, ContaminationConfig, Kind
from data_prep.contamination.tallies import AROUND, Example, Tally
from data_prep.errors import CheckRefused

CROWDED = 0.01
"""An evaluation text in more than this share of the rows may be a template, not a leak."""
FEWEST_CROWDED = 10
SHOWN = 10
"""Rows that a refusal names."""


class Crowded(BaseModel):
    """An evaluation text that stands in very many rows."""

    model_config = ConfigDict(frozen=True)

    where: str
    field: str
    rows: int
    text: str


class SetReport(BaseModel):
    """One evaluation set."""

    model_config = ConfigDict(frozen=True)

    evaluation_set: str
    fields: list[str]
    """Fields whose questions were looked for."""
    answers: list[str]
    chosen: bool
    """The fields were chosen by their names."""
    records: int
    """Questions in the set."""
    records_without_text: int
    texts: int
    """Texts that were looked for, or would have been; a record may have several."""
    texts_short: int
    """Of these, questions so short that only a whole prompt or line that is equal counts."""
    texts_not_judged: int
    """Of these, too short to say anything, or looked for by no method that is on."""
    records_leaked: int
    """Records of which a text stands in a training row."""
    records_like: int
    """Records that are not leaked, but stand in a training row with other figures."""
    rows_leaked: dict[str, int]
    """Training rows with a leak of this set, by the strongest method."""
    rows_like: dict[str, int]
    """Training rows with nothing but look-alikes of this set."""
    crowded: list[Crowded]
    examples: list[Example]
    """Leaks first."""

    @property
    def share_leaked(self) -> float:
        """Records leaked, as a share of all."""
        return self.records_leaked / max(1, self.records)


class ContaminationReport(BaseModel):
    """Every evaluation set against the training rows."""

    model_config = ConfigDict(frozen=True)

    rows: int
    """Training rows that were compared."""
    rows_leaked: int
    """Of these, with a leak of any set."""
    sets: list[SetReport]

    def summary(self) -> list[str]:
        """Lines for the terminal."""
        lines = [f"contamination: {self.rows_leaked} of {self.rows} training rows hold a leak"]
        for each in self.sets:
            share = f"{100 * each.share_leaked:.1f}%"
            what = f"{each.records_leaked} of {each.records} records leaked ({share})"
            rows = ", ".join(f"{count} {method}" for method, count in each.rows_leaked.items())
            lines.append(f"  {each.evaluation_set}: {what}" + (f"; rows: {rows}" if rows else ""))
            names = ", ".join(each.fields + each.answers)
            lines.append(f"    compared: {names}" + " (chosen by name)" * each.chosen)
            for count, note in (
                (each.records_like, "records stand in training rows with other figures"),
                (each.texts_short, "texts are short: only equal prompts and lines count"),
                (each.texts_not_judged, "texts are too short to be looked for"),
                (each.records_without_text, "records have no text in these fields"),
                (len(each.crowded), f"texts stand in over {CROWDED:.0%} of the rows: a template?"),
            ):
                lines += [f"    {count} {note}"] if count else []
        return lines


def refuse_leaks(found: ContaminationReport, config: ContaminationConfig) -> None:
    """Stop where leaks are not to be dropped or passed over.

    Raises:
        CheckRefused: ``action`` is ``refuse`` and a training row holds a leak.
    """
    if config.action == "refuse" and found.rows_leaked:
        leaks = [each for one in found.sets for each in one.examples if each.overlap.kind == "leak"]
        shown = [f"  {each.row}: {each.overlap.describe()}" for each in leaks[:SHOWN]]
        raise CheckRefused(
            "\n".join([*found.summary(), *shown])
            + "\nTake these rows out, or set contamination.action=drop (they are dropped and "
            "counted) or contamination.action=report (they stay)."
        )


def report(index: EvaluationIndex, found: Tally) -> ContaminationReport:
    """Make the report of everything that was found."""
    sets = [_set_report(index, found, number) for number in range(len(index.sets))]
    return ContaminationReport(rows=found.rows, rows_leaked=found.rows_leaked, sets=sets)


def _set_report(index: EvaluationIndex, found: Tally, number: int) -> SetReport:
    asked, records = index.config.against[number], index.sets[number]
    every = [i for i, text in enumerate(index.texts) if text.set_index == number]
    mine = [i for i in every if not index.texts[i].stem]
    short = set(index.short_texts[index.allowed[index.short_texts] & 1 > 0].tolist())
    short = short if index.config.exact else set()
    judged = [i for i in mine if index.runs.sizes[i] > 0 or i in short]
    hit: dict[Kind, set[int]] = {"leak": set(), "look-alike": set()}
    for text, kind in found.texts:
        if index.texts[text].set_index == number:
            hit[kind].add(index.texts[text].record)
    return SetReport(
        evaluation_set=asked.title,
        fields=list(records.fields),
        answers=list(asked.answers),
        chosen=records.chosen,
        records=records.records,
        records_without_text=records.without_text,
        texts=len(mine),
        texts_short=len(short.intersection(mine)),
        texts_not_judged=len(mine) - len(judged),
        records_leaked=len(hit["leak"]),
        records_like=len(hit["look-alike"] - hit["leak"]),
        rows_leaked=_by_method(found, number, "leak"),
        rows_like=_by_method(found, number, "look-alike"),
        crowded=_crowded(index, found, every),
        examples=[
            *_examples(found, number, "leak", index.config.examples),
            *_examples(found, number, "look-alike", index.config.examples),
        ],
    )


def _by_method(found: Tally, number: int, kind: Kind) -> dict[str, int]:
    counts = {method: found.methods[number, kind, method] for method in METHODS}
    return {method: count for method, count in counts.items() if count}


def _crowded(index: EvaluationIndex, found: Tally, mine: Sequence[int]) -> list[Crowded]:
    least = max(FEWEST_CROWDED, int(CROWDED * found.rows) + 1)
    crowd = [(found.texts[i, "leak"], i) for i in mine if found.texts[i, "leak"] >= least]
    return [
        Crowded(
            where=index.texts[i].where,
            field=index.texts[i].field,
            rows=rows,
            text=index.texts[i].text[:AROUND],
        )
        for rows, i in sorted(crowd, key=lambda each: (-each[0], each[1]))
    ]


def _examples(found: Tally, number: int, kind: Kind, count: int) -> list[Example]:
    """Some of every method, in turn."""
    lists = [found.examples.get((number, kind, method), []) for method in METHODS]
    turns = [(i, m) for m, each in enumerate(lists) for i in range(len(each))]
    chosen = sorted(turns)[:count]
    return [lists[m][i][1] for i, m in sorted(chosen, key=lambda each: (each[1], each[0]))]
