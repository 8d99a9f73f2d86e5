"""The recipe of a generation: which tasks, which teacher, what is made of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_prep.contamination.settings import EvaluationSet
from data_prep.generate.answers import AnswersConfig
from data_prep.generate.evol_instruct import EvolConfig
from data_prep.generate.self_instruct import SelfInstructConfig
from data_prep.generate.settings import TeacherConfig
from data_prep.sources.config import SourceConfig
from llmkit.errors import UsageError
from llmkit.recipe_paths import Finder
from llmkit.recipe_reading import TRAINS, looks_like, read_document
from serve.settings import ServeSettings

Method = Literal["evol-instruct", "self-instruct", "answers"]
SECTIONS: dict[Method, str] = {
    "evol-instruct": "evolve",
    "self-instruct": "self_instruct",
    "answers": "answers",
}
"""The section of a recipe that each method reads; Evol-Instruct reads ``answers`` too."""


class ChecksConfig(BaseModel):
    """What is looked at once rows are made. Nothing is taken out here: `prep` does that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    coverage: str | None = "all-minilm-l6-v2"
    """The embedding model that coverage is measured with; null leaves it out."""
    near_duplicates: float = Field(default=0.8, gt=0, le=1)
    """The Jaccard similarity from which on rows count as near-duplicates."""
    contamination: list[EvaluationSet] = []
    """Evaluation sets that are looked for in the rows."""


class GenerationRecipe(BaseModel):
    """Everything about one generation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """The folder under ``generated/`` that it writes."""
    seeds: list[SourceConfig] = Field(min_length=1)
    """Where the tasks come from that it begins with: any file or data set that training takes, and
    plain instructions."""
    teacher: TeacherConfig
    evolve: EvolConfig | None = None
    """For `llmkit generate evol-instruct`; left out, its defaults."""
    self_instruct: SelfInstructConfig | None = None
    """For `llmkit generate self-instruct`; left out, its defaults."""
    answers: AnswersConfig | None = None
    """For `llmkit generate answers`, and the answers of evolved instructions."""
    checks: ChecksConfig = ChecksConfig()
    serve: ServeSettings | None = None
    """How the teacher is loaded where it answers in this process; left out, as it is served."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Decides operations, samples and the calls' own seeds."""


def generation_schema() -> dict[str, Any]:
    """The JSON schema that editors use to complete and check recipes of generations."""
    return GenerationRecipe.model_json_schema()


def read_generation(path: Path, overrides: Sequence[str] = ()) -> GenerationRecipe:
    """Read a recipe, and find the files that it names.

    Raises:
        UsageError: it does not fit the schema, or has settings that do not fit together; or it is
            a recipe of a training.
    """
    if looks_like(path, *TRAINS):
        raise UsageError(
            f"{path}: this is a recipe of a training (llmkit run {path}). One of a generation has "
            "'seeds' and a 'teacher'; see recipes/evol-instruct.yaml."
        )
    recipe, _ = read_document(path, overrides, GenerationRecipe)
    for problem in _conflicts(recipe):
        raise UsageError(f"{path}: {problem}")
    find = Finder(path.parent)
    sets = [
        each.model_copy(update={"path": find.source(SourceConfig(path=each.path)).path})
        for each in recipe.checks.contamination
    ]
    return recipe.model_copy(
        update={
            "seeds": [find.source(each) for each in recipe.seeds],
            "checks": recipe.checks.model_copy(update={"contamination": sets}),
        }
    )


def read_for(method: Method, path: Path, overrides: Sequence[str]) -> GenerationRecipe:
    """Read a recipe that a method is to run.

    Raises:
        UsageError: as `read_generation`, or the recipe is for another method.
    """
    recipe = read_generation(path, overrides)
    for other, section in SECTIONS.items():
        both = method == "evol-instruct" and other == "answers"
        if other != method and not both and getattr(recipe, section) is not None:
            raise UsageError(
                f"{path}: the recipe has a section {section!r}, which `llmkit generate {method}` "
                f"does not read. Run `llmkit generate {other} {path}`, or take it out."
            )
    return recipe


def _conflicts(recipe: GenerationRecipe) -> Iterator[str]:
    if recipe.serve is not None and recipe.teacher.base_url:
        yield (
            "'serve' says how a teacher is loaded in this process, and teacher.base_url names an "
            "endpoint: leave one of them out."
        )
    answers = recipe.answers
    if answers and answers.best_of > 1 and answers.judge is None:
        yield (
            f"answers.best_of ({answers.best_of}) needs a judge to say which is best: set "
            "answers.judge, or best_of to 1."
        )
