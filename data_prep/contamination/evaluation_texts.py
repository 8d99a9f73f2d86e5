"""Evaluation sets -> the texts that are looked for, each with the place it came from."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_prep.contamination.options import stem
from data_prep.contamination.settings import EvaluationSet
from data_prep.errors import DataError
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import find_files
from data_prep.sources.records import BadRecord
from data_prep.sources.scan import read

Progress = Callable[[str, int], None]
"""Called with the name of the step and how many rows it has done since the last call."""

USUAL = (
    "question",
    "instruction+input",
    "instruction",
    "prompt",
    "problem",
    "query",
    "input",
    "turns",
    "messages",
    "conversations",
    "goal",
    "ctx",
    "premise",
    "sentence",
    "passage",
    "context",
    "text",
)
"""Fields that hold the question, the most telling name first; whatever their case."""
ROLES = {False: ("user", "human", "prompter"), True: ("assistant", "gpt", "model")}
"""Who asks and who answers in lists of turns."""


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """One text that must not be trained on."""

    set_index: int
    """Which of the sets it is from."""
    record: int
    """Its record's number in the set, from 0."""
    where: str
    """Its record's place."""
    field: str
    """Where in the record it stands: ``question``, ``turns[1]``, ``messages[0].content``."""
    group: str
    """The setting it was found by; texts of one group may share a template."""
    answer: bool
    """A reference answer, not a question."""
    stem: bool
    """Only what stands before the options of a multiple-choice question; the whole of it is a
    text of its own."""
    text: str


@dataclass(frozen=True)
class EvaluationRecords:
    """What was found in one set."""

    texts: list[EvaluationText]
    fields: tuple[str, ...]
    """Fields that questions were taken from."""
    chosen: bool
    """The fields were chosen by their names, not by the person."""
    records: int
    """Records read."""
    without_text: int
    """Records in which none of the fields holds text."""


def read_evaluation_set(
    asked: EvaluationSet, set_index: int, progress: Progress = lambda _step, _rows: None
) -> EvaluationRecords:
    """Read the texts of one evaluation set.

    Raises:
        DataError: it cannot be read, a record of it cannot, a field that was named is in no
            record, or no text is found.
    """
    wanted = [(field, False) for field in asked.fields] + [(field, True) for field in asked.answers]
    found: list[EvaluationText] = []
    missing = {field for field, _ in wanted}
    example: Mapping[str, Any] = {}
    records = without = 0
    for index, record in enumerate(read(SourceConfig(path=asked.path))):
        progress("reading evaluation sets", 1)
        if isinstance(record, BadRecord):
            raise DataError(
                f"{record.where}: {record.problem}. What cannot be read cannot be kept out of the "
                "training rows: mend the evaluation set."
            )
        example = example or record.value
        if not asked.fields and not index:
            wanted = [(field, False) for field in _usual(asked, record.value)] + wanted
        before = len(found)
        for group, answer in wanted:
            for field, text in texts_at(record.value, group, answer=answer):
                missing.discard(group)
                if text.strip():
                    whole = EvaluationText(
                        set_index, index, record.where, field, group, answer, stem=False, text=text
                    )
                    found += [whole, *_stem_of(whole)]
        records, without = records + 1, without + (len(found) == before)
    if missing and records:
        raise DataError(
            f"{asked.path}: no record has text in {', '.join(map(repr, sorted(missing)))}. "
            f"The first has these fields: {_names(example)}."
        )
    if not found:
        what = f"none of {records} records has text in {[field for field, _ in wanted]}"
        raise DataError(f"{asked.path}: {what if records else 'has no records'}.")
    fields = tuple(field for field, answer in wanted if not answer)
    return EvaluationRecords(found, fields, not asked.fields, records, without)


def refuse_trained_sets(sets: Iterable[EvaluationSet], sources: Iterable[SourceConfig]) -> None:
    """Refuse an evaluation set that is trained on: all of its rows would be dropped.

    Raises:
        DataError: a file of it is one of a source, too.
    """
    trained = {
        os.path.realpath(file): source.path
        for source in sources
        for file in find_files(source.path, source.split) or ()
    }
    for each in sets:
        for file in find_files(each.path) or ():
            if source := trained.get(os.path.realpath(file)):
                raise DataError(
                    f"contamination.against: {file} is trained on as well (sources: {source}), so "
                    "every row of it would be a leak. Name it in one of the two."
                )


def _stem_of(whole: EvaluationText) -> list[EvaluationText]:
    before = "" if whole.answer else stem(whole.text)
    return [replace(whole, stem=True, text=before)] if before.strip() else []


def _usual(asked: EvaluationSet, record: Mapping[str, Any]) -> list[str]:
    """The field of the first record that is most likely its question."""
    spelt = {name.lower(): name for name in reversed(list(record)) if isinstance(name, str)}
    for usual in USUAL:
        names = [spelt.get(part, "") for part in usual.split("+")]
        field = "+".join(names)
        if all(names) and any(text.strip() for _, text in texts_at(record, field, answer=False)):
            return [field]
    raise DataError(
        f"{asked.path}: which field holds the questions is not clear from its fields: "
        f"{_names(record)}. Name it: {{path: {asked.path}, fields: [...]}}."
    )


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, record)) or "none"


def texts_at(record: Mapping[str, Any], field: str, *, answer: bool) -> Iterator[tuple[str, str]]:
    """Find the texts of a field, as ``field`` in settings names it.

    Args:
        record: a raw record.
        field: a name, a dotted path, or several joined by ``+`` into one text.
        answer: of lists of turns, take what the assistant says instead of the user.

    Yields:
        The exact place of each text in the record, and the text.
    """
    parts = field.split("+") if field not in record else [field]
    if len(parts) == 1:
        yield from _texts_below(record, field, "", answer=answer)
        return
    texts = [text for part in parts for _, text in _texts_below(record, part, "", answer=answer)]
    if texts:
        yield field, "\n".join(texts)


def _texts_below(value: Any, path: str, place: str, *, answer: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        for index, each in enumerate(value):
            yield from _texts_below(each, path, f"{place}[{index}]", answer=answer)
    elif not path:
        yield from _leaf(value, place, answer=answer)
    elif isinstance(value, Mapping):
        name, _, rest = (path, "", "") if path in value else path.partition(".")
        if name in value:
            deeper = f"{place}.{name}" if place else name
            yield from _texts_below(value[name], rest, deeper, answer=answer)


def _leaf(value: Any, place: str, *, answer: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):  # a turn
        for role, content in (("role", "content"), ("from", "value")):
            if value.get(role) in ROLES[answer] and isinstance(value.get(content), str):
                yield f"{place}.{content}", value[content]
