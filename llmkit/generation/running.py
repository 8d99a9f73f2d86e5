"""A generation from its recipe to its folder.

The folder holds ``recipe.yaml``; ``journal.jsonl``, every call (those of a judge of its own are in
``judge.jsonl``); ``rows.jsonl``; ``left_out.jsonl``; ``figures.json`` and ``report.html``. A run
that was stopped or killed is run again: calls that are in the journal are not made again.
"""

import asyncio
import json
import signal
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.generate.asking import GenerationStopped
from data_prep.generate.journal import Journal
from data_prep.generate.results import Generated, Record
from data_prep.generate.settings import TeacherConfig
from data_prep.generate.tasks import Task, read_tasks
from data_prep.generate.teacher import JournalTeacher, cost_of
from llmkit.console import View
from llmkit.errors import UsageError
from llmkit.files import write_json, write_text
from llmkit.generation.checks import contaminated, coverage, repetitions
from llmkit.generation.figures import headline, questions_by_stage, scores_by_stage, stages_of
from llmkit.generation.methods import Outcome, run_method
from llmkit.generation.recipe import GenerationRecipe, Method
from llmkit.generation.teachers import open_teacher
from llmkit.recipe import dump_recipe
from llmkit.report.generation_report import render_generation_report


@dataclass(frozen=True)
class Done:
    """A generation that ended, or stopped where the teacher did."""

    folder: Path
    figures: dict[str, Any]
    stopped: GenerationStopped | None


def generate(method: Method, recipe: GenerationRecipe, folder: Path, view: View) -> Done:
    """Make rows, and write them with all that is to be known of them.

    Args:
        method: which algorithm.
        recipe: from `llmkit.generation.recipe.read_for`.
        folder: what to write; it may hold an earlier run, which then goes on.
        view: where to tell what happens.

    Raises:
        DataError: the tasks cannot be read, or another process writes into the folder.
        UsageError: the teacher cannot be opened.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the calls under way were finished first.
    """
    tasks = read_tasks(recipe.seeds)
    began = time.monotonic()
    with ExitStack() as stack:
        journals = Journals(stack, recipe, folder)
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
        lost = sum(journal.without_answer for journal, _ in journals.all)
        outcome = _until_signalled(_run(method, recipe, tasks, journals, view))
        spent = [_spent(journal, config) for journal, config in journals.all]
    view.close()
    figures = headline(method, tasks, outcome.generated) | {
        "spent": spent,
        "calls_lost_when_killed": lost,
        "seconds": round(time.monotonic() - began, 1),
        "stopped": str(outcome.stopped) if outcome.stopped else None,
    }
    write_text(folder / "rows.jsonl", _lines(outcome.generated.rows))
    write_text(folder / "left_out.jsonl", _lines(outcome.generated.left_out))
    with view.working("checking what was made"):
        figures |= _checked(recipe, tasks, outcome.generated, view)
    write_json(folder / "figures.json", figures)
    seeds = {task.id: task.question for task in tasks}
    page = render_generation_report(recipe.name, figures, seeds, outcome.generated)
    write_text(folder / "report.html", page)
    return Done(folder, figures, outcome.stopped)


class Journals:
    """Of the teacher, and of a judge that is another model."""

    def __init__(self, stack: ExitStack, recipe: GenerationRecipe, folder: Path) -> None:
        self.teacher = stack.enter_context(Journal(folder / "journal.jsonl"))
        self.judge_config = _judge_of(recipe)
        self.judge: Journal | None = None
        self.all: list[tuple[Journal, TeacherConfig]] = [(self.teacher, recipe.teacher)]
        if self.judge_config:
            self.judge = stack.enter_context(Journal(folder / "judge.jsonl"))
            self.all.append((self.judge, self.judge_config))


def _judge_of(recipe: GenerationRecipe) -> TeacherConfig | None:
    """The judge's own model, where there is one."""
    configs = [
        recipe.answers.judge if recipe.answers else None,
        recipe.self_instruct.instances.judge if recipe.self_instruct else None,
    ]
    return next((each.teacher for each in configs if each and each.teacher), None)


async def _run(
    method: Method,
    recipe: GenerationRecipe,
    tasks: list[Task],
    journals: Journals,
    view: View,
) -> Outcome:
    def called(_purpose: str, calls: int) -> None:
        view.count("calls answered", calls)

    async with AsyncExitStack() as stack:

        async def opened(config: TeacherConfig, journal: Journal) -> JournalTeacher:
            return await stack.enter_async_context(
                open_teacher(config, journal, recipe.serve, called, view.say)
            )

        teacher = await opened(recipe.teacher, journals.teacher)
        judging = teacher
        if journals.judge_config and journals.judge:
            judging = await opened(journals.judge_config, journals.judge)
            teacher.stop_together(judging)
        try:
            return await run_method(method, recipe, tasks, teacher, judging, view.count)
        except asyncio.CancelledError:
            teacher.stop(GenerationStopped("the run was stopped"))
            calls = teacher.under_way + (judging.under_way if judging is not teacher else 0)
            view.close()
            view.say(f"finishing {calls} calls under way; Ctrl-C again leaves them")
            raise


def _until_signalled(running: Any) -> Outcome:
    """Run to the end; SIGTERM ends it as Ctrl-C does, with the calls under way finished.

    Raises:
        KeyboardInterrupt: Ctrl-C, or SIGTERM where `llmkit.interruption` heeds it.
    """
    terminated = False

    async def main() -> Outcome:
        this = asyncio.current_task()

        def end() -> None:
            nonlocal terminated
            terminated = True
            if this:
                this.cancel()

        loop = asyncio.get_running_loop()
        before = signal.getsignal(signal.SIGTERM)
        loop.add_signal_handler(signal.SIGTERM, end)
        try:
            outcome: Outcome = await running
            return outcome
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, before)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if terminated:  # whoever heeds it otherwise says what comes of it
            signal.raise_signal(signal.SIGTERM)
        raise


def _checked(
    recipe: GenerationRecipe, tasks: list[Task], generated: Generated, view: View
) -> dict[str, Any]:
    stages = stages_of(tasks, generated.rows)
    checks = recipe.checks
    figures: dict[str, Any] = {
        "repetitions": repetitions(generated.rows, checks.near_duplicates),
        "contamination": contaminated(generated.rows, checks.contamination),
        "scores": scores_by_stage(stages),
    }
    if checks.coverage and generated.rows:
        from llmkit.models.embedding import load_embedder

        try:
            embedder = load_embedder(checks.coverage, "auto", view.say)
        except UsageError as error:  # the rows were paid for: a missing model does not undo them
            view.say(f"coverage was not measured: {error}")
        else:
            figures["coverage"] = coverage(embedder, questions_by_stage(stages))
    return figures


def _spent(journal: Journal, config: TeacherConfig) -> dict[str, Any]:
    spent = journal.spent
    told: dict[str, Any] = {
        "model": config.model,
        "calls": spent.calls,
        "calls_by_purpose": dict(spent.by_purpose.most_common()),
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
    }
    if config.prices:
        told["cost"] = round(cost_of(spent, config.prices), 6)
        told["currency"] = config.prices.currency
    return told


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records)
