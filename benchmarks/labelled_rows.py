"""Instruction rows whose duplicates are known: written at random, copied and changed on purpose.

Texts are made of invented words with the statistics of real ones: frequencies after Zipf, common
function words, a topic that lends each row its rarer words; about 130 words a row, lognormal. A
cluster is a row with its copies. Look-alikes share up to 40% of their sentences with another row
and are rows of their own; twins differ from their row in the numbers of a sum alone. A few short
instructions in real English are planted among them, with their paraphrases and others that only
look like them (`paraphrased_rows`).
"""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from paraphrased_rows import WRITTEN, families

WORDS, TOPICS, TOPIC_WORDS = 30_000, 400, 150
_COMMON = """
the of and to a in is that for it as was with be by on not he this are or his from at
which but have an had they you were their one all we can has there been if more when
will would who so no
"""
FUNCTION_WORDS = _COMMON.split()
OPENINGS = (
    "Explain how",
    "Write a short story about",
    "List three reasons why",
    "Describe the",
    "What is the best way to",
    "Summarise the following text about",
    "Compare",
    "Give an example of",
)
EDITS = {"near 5%": 0.05, "near 10%": 0.10, "near 15%": 0.15}
COPIES = ("exact", "cased", "reordered", *EDITS)


@dataclass(frozen=True)
class LabelledRow:
    """A text and what it is a copy of."""

    text: str
    cluster: int
    kind: str
    """``original``, how it was copied, ``paraphrase``, ``look-alike``, ``other sense`` or ``twin``.

    The last three are clusters of their own, numbered behind that of the original."""


def write_rows(path: Path, count: int, seed: int) -> None:
    """Write rows as JSON lines, in random order."""
    _write(path, list(make_rows(count, seed)), seed)


def _write(path: Path, rows: list[LabelledRow], seed: int) -> None:
    random.Random(seed).shuffle(rows)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(asdict(row)) + "\n")


def read_rows(path: Path) -> list[LabelledRow]:
    """Read what `write_rows` wrote."""
    with path.open(encoding="utf-8") as lines:
        return [LabelledRow(**json.loads(line)) for line in lines]


def write_paraphrases(path: Path, seed: int) -> None:
    """Write nothing but the short instructions, all of them, in random order."""
    _write(path, _short_rows(0, len(families())), seed)


def make_rows(count: int, seed: int) -> Iterator[LabelledRow]:
    """Make ``count`` rows; copies stand behind their originals.

    The hand-written instructions come first: one row in 1,000, and no more than there are.
    """
    maker = _Maker(seed)
    planted = _short_rows(0, min(len(WRITTEN), count // 3000))
    yield from planted
    made, cluster = len(planted), 2 * len(planted) // 3
    while made < count:
        for row in _cluster(maker, cluster)[: count - made]:
            yield row
            made += 1
            cluster = max(cluster, row.cluster)
        cluster += 1


def _short_rows(cluster: int, number: int) -> list[LabelledRow]:
    """So many families of instructions; clusters are numbered from ``cluster`` on."""
    rows = []
    for family in families()[:number]:
        rows += [
            LabelledRow(family.original, cluster, "original"),
            LabelledRow(family.paraphrase, cluster, "paraphrase"),
            LabelledRow(family.look_alike, cluster + 1, "other sense"),
        ]
        cluster += 2
    return rows


def _cluster(maker: "_Maker", cluster: int) -> list[LabelledRow]:
    """One original with, sometimes, its copies, its look-alike or its twin."""
    rng = maker.rng
    question, sentences = maker.question(), maker.sentences()
    text = f"{question}\n{' '.join(sentences)}"
    chance = rng.random()
    if chance < 0.15:
        kinds = rng.choices(COPIES, k=rng.choice((1, 1, 2, 3)))
        copies = [_copy(maker, kind, question, sentences) for kind in kinds]
        return [
            LabelledRow(text, cluster, "original"),
            *(LabelledRow(t, cluster, k) for t, k in zip(copies, kinds, strict=True)),
        ]
    if chance < 0.19:
        # Not the length of the sentences but of what they share decides how alike two rows are.
        shared, room = [], 0.4 * sum(len(s.split()) for s in sentences)
        for sentence in sentences:
            room -= len(sentence.split())
            if room > 0:
                shared.append(sentence)
        other = f"{maker.question()}\n{' '.join([*shared, *maker.sentences()])}"
        return [
            LabelledRow(text, cluster, "original"),
            LabelledRow(other, cluster + 1, "look-alike"),
        ]
    if chance < 0.22:
        a, b, c = (rng.randrange(2, 90) for _ in range(3))
        sums = [
            f"There are {x} boxes with {y} pens each and {z} are lost. How many are left?"
            for x, y, z in ((a, b, c), (a + 1, b + 3, c + 2))
        ]
        return [
            LabelledRow(f"{text} {sums[0]}", cluster, "original"),
            LabelledRow(f"{text} {sums[1]}", cluster + 1, "twin"),
        ]
    return [LabelledRow(text, cluster, "original")]


def _copy(maker: "_Maker", kind: str, question: str, sentences: list[str]) -> str:
    rng = maker.rng
    text = f"{question}\n{' '.join(sentences)}"
    if kind == "exact":
        return text
    if kind == "cased":
        return text.upper() if rng.random() < 0.5 else text.lower().replace(".", " !")
    if kind == "reordered":
        return f"{question}\n{' '.join(rng.sample(sentences, len(sentences)))}"
    words: list[str] = []
    for word in text.split():
        chance = rng.random() / EDITS[kind]
        if chance < 0.6:
            words.append(maker.other_word())  # replaced
        elif chance < 0.8:
            continue  # left out
        else:
            words += [word, maker.other_word()] if chance < 1 else [word]
    return " ".join(words)


class _Maker:
    """Draws words in large batches; one draw a word would take longer than all the rest."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._words = np.array(_vocabulary(self.rng), dtype=object)
        weights = 1 / np.arange(10, WORDS + 10)
        self._cumulative = np.cumsum(weights / weights.sum())
        self._topics = self._numbers.integers(0, WORDS, (TOPICS, TOPIC_WORDS))
        self._function = np.array(FUNCTION_WORDS, dtype=object)

    def question(self) -> str:
        self._topic = self._topics[self.rng.randrange(TOPICS)]
        chosen = self._words[self._numbers.choice(self._topic, 3)]
        return f"{self.rng.choice(OPENINGS)} {' '.join(chosen)}?"

    def sentences(self) -> list[str]:
        total = max(20, int(self._numbers.lognormal(np.log(106), 0.5)))
        chance = self._numbers.random(total)
        common = np.searchsorted(self._cumulative, self._numbers.random(total))
        topical = self._topic[self._numbers.integers(0, TOPIC_WORDS, total)]
        words = self._words[np.where(chance < 0.62, topical, np.minimum(common, WORDS - 1))]
        function = self._function[self._numbers.integers(0, len(self._function), total)]
        words = np.where(chance < 0.42, function, words)
        if self.rng.random() < 0.5:
            words[self.rng.randrange(total)] = str(self.rng.randrange(2000))
        sentences, start = [], 0
        while start < total:
            end = start + self.rng.randrange(6, 22)
            sentences.append(" ".join(words[start:end]).capitalize() + ".")
            start = end
        return sentences

    def other_word(self) -> str:
        return str(self._words[self.rng.randrange(3000)])


def _vocabulary(rng: random.Random) -> list[str]:
    onsets = "b c d f g h j k l m n p r s t v w z br cr dr fr gr pr tr bl cl fl gl pl st sk th sh"
    nuclei, codas = "a e i o u ai ea ee oo ou", ("", "", "n", "r", "s", "t", "l", "m", "ck", "ng")
    found: dict[str, None] = {}
    while len(found) < WORDS:
        syllables = rng.choice((1, 1, 2, 2, 2, 3, 3, 4))
        word = "".join(
            rng.choice(onsets.split()) + rng.choice(nuclei.split()) + rng.choice(codas)
            for _ in range(syllables)
        )
        found[word] = None
    return list(found)
