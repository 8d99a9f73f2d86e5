"""Evaluation texts as the audit finds them, with code of its own."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from data_prep.contamination.overlap import Overlap
from data_prep.contamination.plain_words import FIGURE, masked, plain_words
from data_prep.contamination.settings import ContaminationConfig, EvaluationSet
from data_prep.sources.config import SourceConfig
from data_prep.sources.records import Record
from data_prep.sources.scan import read

SHARE, FEWEST, SHORTEST, MOST = 0.01, 3, 5, 0.5
"""What a template is, as `data_prep.contamination.boilerplate` states it."""
RUN = 13
"""Words in a run when no method says it."""

_OPTIONS = re.compile(
    r"(?:\A|\n)([ \t]*(?:A|\(A)[.):][ \t](?:[^\n]*\n){1,4}?[ \t]*(?:B|\(B)[.):][ \t])"
)

Run = tuple[str, ...]
Key = tuple[str, str, str, bool]
"""Evaluation set, place, field, whether without its options."""


@dataclass(frozen=True)
class AuditedText:
    """One evaluation text, read again."""

    text: str
    words: list[str]
    core: tuple[int, int]
    """The words that are compared: all but the template, or all where little else is left."""
    judged: bool
    """It is long enough for runs of words."""
    size: int
    """Words in one of its runs."""
    evidence: list[Run]
    """Its runs that are not boilerplate; none when only the whole of it counts."""
    sides: tuple[str, ...]
    """Where it is looked for."""

    @property
    def compared(self) -> list[str]:
        """The words of its core."""
        return self.words[slice(*self.core)]


def audited_texts(
    overlaps: Sequence[Overlap], config: ContaminationConfig
) -> dict[Key, AuditedText]:
    """Read the texts that overlaps name, and those beside them that show what is a template.

    Raises:
        DataError: an evaluation set cannot be read.
    """
    named: dict[tuple[str, str, bool, bool], set[Key]] = defaultdict(set)
    for each in overlaps:
        key = (each.evaluation_set, each.where, each.field, each.stem)
        named[each.evaluation_set, each.group, each.answer, each.stem].add(key)
    found: dict[Key, AuditedText] = {}
    for asked in config.against:
        groups = [
            key
            for key in named
            if key[0] == asked.title and _is_asked(asked, key[1], answer=key[2])
        ]
        if not groups:
            continue
        records = list(read(SourceConfig(path=asked.path)))
        for _, group, answer, stem in groups:
            texts = {
                (asked.title, record.where, place, stem): _before_options(text) if stem else text
                for record in records
                if isinstance(record, Record)
                for place, text in _texts(record.value, group, answer=answer)
            }
            texts = {key: text for key, text in texts.items() if text.strip()}
            wanted = named[asked.title, group, answer, stem] & set(texts)
            found |= _judged(texts, wanted, config, asked, answer=answer)
    return found


def _before_options(text: str) -> str:
    options = _OPTIONS.search(text)
    return text[: options.start(1)] if options else ""


def _is_asked(asked: EvaluationSet, group: str, *, answer: bool) -> bool:
    return group in asked.answers if answer else (group in asked.fields or not asked.fields)


def _judged(
    texts: Mapping[Key, str],
    wanted: set[Key],
    config: ContaminationConfig,
    asked: EvaluationSet,
    *,
    answer: bool,
) -> dict[Key, AuditedText]:
    different = {tuple(plain_words(text)) for text in texts.values()}
    many = max(FEWEST, ceil(SHARE * len(different)))
    figureless = [tuple(map(masked, words)) for words in different]
    openings = _templates(figureless, many)
    endings = _templates([each[::-1] for each in figureless], many)
    sides = {"both": ("prompt", "response"), "prompt": ("prompt",), "response": ("response",)}
    run = config.ngram.size if config.ngram else RUN
    floor = max(config.min_words, run) if answer else config.min_words
    drafts = {}
    for key in wanted:
        words = plain_words(texts[key])
        plain = tuple(map(masked, words))
        start = _longest(plain, openings)
        stop = max(start, len(words) - _longest(plain[::-1], endings))
        whole = stop - start < floor
        core = (0, len(words)) if whole else (start, stop)
        size = min(run, core[1] - core[0])
        drafts[key] = (words, plain, core, whole, size)
    needed = {
        plain[i : i + size]
        for _, plain, core, _, size in drafts.values()
        for i in range(core[0], core[1] - size + 1)
    }
    spread = _spread(figureless, needed)
    found = {}
    for key, (words, plain, core, whole, size) in drafts.items():
        starts = range(core[0], core[1] - size + 1)
        telling = [i for i in starts if not whole and spread[plain[i : i + size]] < many]
        found[key] = AuditedText(
            text=texts[key],
            words=words,
            core=core,
            judged=len(words) >= floor,
            size=size,
            evidence=[tuple(words[i : i + size]) for i in telling],
            sides=("response",) if answer else sides[asked.on],
        )
    return found


def _templates(texts: Sequence[Run], many: int) -> set[Run]:
    """Every opening that so many texts have, and that is long or common enough for a template."""
    found: set[Run] = set()
    size, left = 1, list(texts)
    while left:
        counts = Counter(text[:size] for text in left if len(text) >= size)
        shared = {opening: count for opening, count in counts.items() if count >= many}
        for opening, count in shared.items():
            if (size >= SHORTEST or count >= MOST * len(texts)) and opening[-1] != FIGURE:
                found.add(opening)
        left = [text for text in left if text[:size] in shared]
        size += 1
    return found


def _longest(text: Run, openings: set[Run]) -> int:
    """Words of the longest of the openings that a text begins with."""
    longest = max(map(len, openings), default=0)
    sizes = range(1, min(longest, len(text)) + 1)
    return max((size for size in sizes if text[:size] in openings), default=0)


def _spread(texts: Sequence[Run], needed: set[Run]) -> Counter[Run]:
    """In how many texts each of the runs stands that are asked for."""
    sizes = sorted({len(run) for run in needed})
    spread: Counter[Run] = Counter()
    for text in texts:
        runs = {text[i : i + n] for n in sizes for i in range(len(text) - n + 1)}
        spread.update(runs & needed)
    return spread


def _texts(record: Mapping[str, Any], group: str, *, answer: bool) -> Iterator[tuple[str, str]]:
    """The texts of a field: every leaf of the record whose place fits its name."""
    leaves = list(_leaves(record, "", ""))
    parts = [group] if group in record else group.split("+")
    if len(parts) == 1:
        yield from _fitting(leaves, group, answer=answer)
        return
    texts = [text for part in parts for _, text in _fitting(leaves, part, answer=answer)]
    if texts:
        yield group, "\n".join(texts)


def _fitting(
    leaves: Sequence[tuple[str, str, str]], name: str, *, answer: bool
) -> Iterator[tuple[str, str]]:
    numbers = r"(\[\d+\])*"
    path = rf"{numbers}\.".join(re.escape(part) for part in name.split("."))
    fits = re.compile(rf"{path}{numbers}(?P<turn>\.(content|value))?")
    speakers = ("assistant", "gpt", "model") if answer else ("user", "human", "prompter")
    for place, role, text in leaves:
        match = fits.fullmatch(place)
        if match and (not match["turn"] or role in speakers):
            yield place, text


def _leaves(value: Any, place: str, role: str) -> Iterator[tuple[str, str, str]]:
    """Every string in a record: its place, who says it in a list of turns, and itself."""
    if isinstance(value, str):
        yield place, role, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            speaker = {"content": value.get("role"), "value": value.get("from")}.get(key)
            deeper = f"{place}.{key}" if place else key
            yield from _leaves(each, deeper, speaker if isinstance(speaker, str) else "")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{place}[{index}]", role)
