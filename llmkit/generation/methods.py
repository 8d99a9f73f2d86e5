"""One method of generation, run with teachers that are open: tasks in, rows out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_prep.generate.answers import Answered, AnswersConfig, answer
from data_prep.generate.asking import GenerationStopped, Teacher, seed_of
from data_prep.generate.evol_instruct import Attempt, EvolConfig, Evolution, Instruction
from data_prep.generate.in_order import for_each
from data_prep.generate.instances import Made
from data_prep.generate.results import Generated, of_answers, of_evolution, of_self_instruct
from data_prep.generate.self_instruct import Proposal, SelfInstruct, SelfInstructConfig
from data_prep.generate.tasks import Task
from llmkit.generation.recipe import GenerationRecipe, Method

Count = Callable[[str, int], None]
"""Called with what there is more of, and how much."""


@dataclass(frozen=True)
class Outcome:
    """What a method made, and what stopped it before its end."""

    generated: Generated
    stopped: GenerationStopped | None


async def run_method(
    method: Method,
    recipe: GenerationRecipe,
    tasks: Sequence[Task],
    teacher: Teacher,
    judging: Teacher,
    count: Count,
) -> Outcome:
    """Run a method to its end, or as far as the teacher goes."""
    if method == "evol-instruct":
        return await _evolve(recipe, tasks, teacher, judging, count)
    if method == "self-instruct":
        return await _self_instruct(recipe, tasks, teacher, judging, count)
    return await _answer(recipe, tasks, teacher, judging, count)


async def _evolve(
    recipe: GenerationRecipe,
    tasks: Sequence[Task],
    teacher: Teacher,
    judging: Teacher,
    count: Count,
) -> Outcome:
    def tell(attempt: Attempt) -> None:
        count("attempts", 1)
        count("rows", attempt.reason is None)

    evolution = Evolution(
        teacher,
        judging,
        recipe.evolve or EvolConfig(),
        recipe.answers or AnswersConfig(),
        recipe.teacher.sampling,
        recipe.seed,
        at_once(recipe),
    )
    pool = [Instruction(task.id, task.question, task.id) for task in tasks]
    attempts, stopped = await evolution.run(pool, tell)
    return Outcome(of_evolution(attempts), stopped)


async def _self_instruct(
    recipe: GenerationRecipe,
    tasks: Sequence[Task],
    teacher: Teacher,
    judging: Teacher,
    count: Count,
) -> Outcome:
    def proposed(proposal: Proposal) -> None:
        count("instructions read", 1)
        count("instructions new", proposal.reason is None)

    def made(made: Made) -> None:
        count("rows", sum(case.reason is None for case in made.cases))

    config = recipe.self_instruct or SelfInstructConfig()
    making = SelfInstruct(teacher, judging, config, recipe.teacher.sampling, recipe.seed)
    proposals, cases, stopped = await making.run(tasks, proposed, made)
    return Outcome(of_self_instruct(proposals, cases, config.variant), stopped)


async def _answer(
    recipe: GenerationRecipe,
    tasks: Sequence[Task],
    teacher: Teacher,
    judging: Teacher,
    count: Count,
) -> Outcome:
    config = recipe.answers or AnswersConfig()

    answered: list[Answered | None] = [None] * len(tasks)

    async def one(number: int, task: Task) -> None:
        seed = seed_of(recipe.seed, number, task.id)
        found = await answer(teacher, judging, task.question, config, recipe.teacher.sampling, seed)
        count("rows", found.fault is None)
        answered[number] = found

    stopped = await for_each(tasks, one, at_once(recipe))
    return Outcome(of_answers(tasks, answered), stopped)


def at_once(recipe: GenerationRecipe) -> int:
    """Tasks on their way at a time, each of which waits for one call.

    More than the teacher's window takes: between a task's calls stands the journal's disk.
    """
    return 2 * recipe.teacher.limits.concurrency
