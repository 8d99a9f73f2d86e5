"""What generation made, as records: rows with their lineage, and what was left out and why.

Rows are in Alpaca's fields, so that they can be named in ``data.sources`` as they are.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.generate.answers import Answered
from data_prep.generate.evol_instruct import Attempt
from data_prep.generate.instances import Case, Made
from data_prep.generate.judging import Scores
from data_prep.generate.self_instruct import Proposal
from data_prep.generate.tasks import Task

Record = dict[str, Any]


@dataclass(frozen=True)
class Generated:
    """All that a run made."""

    rows: list[Record]
    """``instruction``, ``input``, ``output``, ``lineage``, ``scores`` of a judge."""
    left_out: list[Record]
    """The same fields as far as there is something in them, with the reason in the lineage."""


def of_evolution(attempts: Iterable[Attempt]) -> Generated:
    """Rows and eliminated attempts of Evol-Instruct."""
    made = Generated([], [])
    for each in attempts:
        lineage = {
            "method": "evol-instruct",
            "id": each.child.id,
            "seed": each.child.seed,
            "round": each.round,
            "operation": each.operation,
            "parent": each.parent.id,
            "verdict": each.reason or "accepted",
        }
        record = _record(each.child.text, "", each.answer, lineage, each.scores)
        if each.reason is None:
            made.rows.append(record)
        else:
            lineage["parent_instruction"] = each.parent.text
            made.left_out.append(record)
    return made


def of_self_instruct(proposals: Sequence[Proposal], made: Sequence[Made], method: str) -> Generated:
    """Rows and left-out instructions of Self-Instruct or Alpaca."""
    found = Generated([], [])
    shown = {each.task.id: each.shown for each in proposals}
    for each in proposals:
        if each.reason:
            lineage = _lineage(method, each.task, each.shown, each.reason)
            if each.nearest:
                lineage |= {"repeats": each.nearest[0], "rouge_l": each.nearest[1]}
            found.left_out.append(_record(each.task.instruction, "", "", lineage, None))
    for one in made:
        if one.reason:
            lineage = _lineage(method, one.task, shown[one.task.id], one.reason)
            found.left_out.append(_record(one.task.instruction, "", "", lineage, None))
        for number, case in enumerate(one.cases):
            record = _of_case(method, one.task, case, number, shown[one.task.id])
            (found.left_out if case.reason else found.rows).append(record)
    return found


def _of_case(method: str, task: Task, case: Case, number: int, shown: Sequence[str]) -> Record:
    lineage = _lineage(method, task, shown, case.reason or "accepted")
    lineage |= {"id": f"{task.id}-{number}", "classification": task.is_classification}
    return _record(
        task.instruction, case.instance.input, case.instance.output, lineage, case.scores
    )


def of_answers(tasks: Sequence[Task], answered: Sequence[Answered | None]) -> Generated:
    """Rows of instructions that were there, and those that got no good answer.

    Args:
        tasks: the instructions.
        answered: what came of each; None where nothing was asked any more.
    """
    found = Generated([], [])
    for task, one in zip(tasks, answered, strict=True):
        if one is not None:
            lineage = {"method": "answers", "id": task.id, "verdict": one.fault or "accepted"}
            record = _record(task.question, "", one.text, lineage, one.scores)
            (found.left_out if one.fault else found.rows).append(record)
    return found


def yields(generated: Generated, *by: str) -> dict[tuple[str, ...], Counter[str]]:
    """How many records came to which verdict, for each value of some fields of their lineage."""
    found: dict[tuple[str, ...], Counter[str]] = {}
    for record in (*generated.rows, *generated.left_out):
        lineage = record["lineage"]
        found.setdefault(tuple(str(lineage.get(field)) for field in by), Counter())[
            lineage["verdict"]
        ] += 1
    return dict(sorted(found.items()))


def _lineage(method: str, task: Task, shown: Sequence[str], verdict: str) -> Record:
    return {"method": method, "id": task.id, "shown": list(shown), "verdict": verdict}


def _record(
    instruction: str, given: str, output: str, lineage: Record, scores: Scores | None
) -> Record:
    record: Record = {
        "instruction": instruction,
        "input": given,
        "output": output,
        "lineage": lineage,
    }
    return record | {"scores": scores.model_dump()} if scores else record
