"""The figures of a generation: what came of every attempt, by round and by operation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from data_prep.generate.results import Generated, Record
from data_prep.generate.tasks import Task
from llmkit.generation.checks import question_of
from llmkit.generation.recipe import Method

PARTS = 4
"""Stages that instructions without rounds are told in."""


def verdicts(generated: Generated) -> list[dict[str, Any]]:
    """For every round and operation, how many attempts came to which verdict.

    Self-Instruct and answers have neither: all of theirs are in one line.
    """
    found: dict[tuple[Any, Any], Counter[str]] = {}
    for record in (*generated.rows, *generated.left_out):
        lineage = record["lineage"]
        place = lineage.get("round"), lineage.get("operation")
        found.setdefault(place, Counter())[lineage["verdict"]] += 1
    return [
        {"round": place[0], "operation": place[1], "verdicts": dict(sorted(found[place].items()))}
        for place in sorted(found, key=str)
    ]


def stages_of(tasks: Sequence[Task], rows: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """The seeds, and then what each round added; of rows without rounds, a quarter at a time."""
    seeds = [{"instruction": task.question, "input": "", "output": ""} for task in tasks]
    stages = [("seeds", seeds)]
    rounds = sorted({row["lineage"]["round"] for row in rows if "round" in row["lineage"]})
    if rounds:
        return stages + [
            (f"round {one}", [row for row in rows if row["lineage"]["round"] == one])
            for one in rounds
        ]
    ends = [len(rows) * part // PARTS for part in range(PARTS + 1)]
    return stages + [
        (f"rows {start + 1} to {end}", list(rows[start:end]))
        for start, end in pairwise(ends)
        if end > start
    ]


def questions_by_stage(
    stages: Sequence[tuple[str, Sequence[Record]]],
) -> list[tuple[str, list[str]]]:
    """What each stage's rows ask, each question once."""
    return [(name, list(dict.fromkeys(question_of(row) for row in rows))) for name, rows in stages]


def scores_by_stage(
    stages: Sequence[tuple[str, Sequence[Record]]],
) -> list[dict[str, Any]]:
    """How many rows of each stage got which difficulty and quality, from 1 to 10."""
    told = []
    for name, rows in stages:
        scored = [row["scores"] for row in rows if "scores" in row]
        if scored:
            told.append(
                {
                    "stage": name,
                    "difficulty": _histogram(scored, "difficulty"),
                    "quality": _histogram(scored, "quality"),
                }
            )
    return told


def _histogram(scored: Sequence[Mapping[str, int]], what: str) -> list[int]:
    return [sum(each[what] == score for each in scored) for score in range(1, 11)]


def reasons(generated: Generated) -> dict[str, int]:
    """How many were left out for which reason."""
    counted = Counter(record["lineage"]["verdict"] for record in generated.left_out)
    return dict(counted.most_common())


def headline(method: Method, tasks: Sequence[Task], generated: Generated) -> dict[str, Any]:
    """What was made, in a line."""
    return {
        "method": method,
        "seeds": len(tasks),
        "rows": len(generated.rows),
        "left_out": len(generated.left_out),
        "reasons": reasons(generated),
        "yield": verdicts(generated),
    }
