"""The recipe: one strict YAML file that says everything about a run.

Strict means: unknown keys are errors with a suggestion, every problem is reported at once with
its line, conflicts between keys are found before anything is loaded, and ``key=value`` words
override dotted paths with the types of the schema.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from data_prep.filters.settings import perplexity_filter
from data_prep.settings import DataConfig
from data_prep.units import settings_that_do_not_fit
from llmkit.errors import UsageError
from llmkit.evaluation.settings import EvaluationConfig
from llmkit.models.settings import MergeConfig, ModelConfig
from llmkit.recipe_conflicts import (
    evaluation_conflicts,
    method_conflicts,
    quantization_conflicts,
)
from llmkit.recipe_paths import located
from llmkit.recipe_problems import (
    Conflicts,
    Problem,
)
from llmkit.recipe_reading import GENERATES, looks_like, read_document
from llmkit.training.settings import TrainingConfig
from llmkit.training.units import UNITS_OF
from serve.settings import ServeSettings


class Recipe(BaseModel):
    """Everything about one run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """The run directory under ``runs/``, and the name the tuned model is served by."""
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    merge: MergeConfig = MergeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serve: ServeSettings = ServeSettings()

    @pydantic.model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        found = list(_conflicts(self))
        if found:
            raise Conflicts(found)
        return self


def _conflicts(recipe: Recipe) -> Iterator[Problem]:
    """Settings that contradict each other: the key to change, and why."""
    training, data, model, serve = recipe.training, recipe.data, recipe.model, recipe.serve
    if training.max_steps is not None and training.warmup_steps >= training.max_steps:
        yield (
            ("training", "warmup_steps"),
            f"training.warmup_steps ({training.warmup_steps}) must be below training.max_steps "
            f"({training.max_steps}), or the learning rate never reaches its value",
        )
    for key, why in settings_that_do_not_fit(data, UNITS_OF[training.method]):
        yield ("data", key), f"{why} (training.method={training.method})"
    if training.evaluate_every and not data.validation:
        yield (
            ("training", "evaluate_every"),
            "training.evaluate_every needs rows held out: set data.validation",
        )
    yield from method_conflicts(training)
    yield from evaluation_conflicts(training, data, recipe.evaluation)
    yield from quantization_conflicts(training, model)
    if recipe.evaluation.generate and not data.validation:
        yield (
            ("evaluation", "generate"),
            "evaluation.generate asks the prompts of rows held out: set data.validation, or ask "
            "your own with evaluation.questions",
        )
    yield from _conflicts_of_pretraining(recipe)
    yield from _conflicts_of_a_new_model(recipe)
    if recipe.merge.target != "closest" and model.quantization == "none":
        yield (
            ("merge", "target"),
            f"merge.target ({recipe.merge.target}) chooses between two bases of a quantised model: "
            "set model.quantization, or leave merge.target out",
        )
    if serve.max_model_len and serve.max_model_len < data.max_tokens:
        yield (
            ("serve", "max_model_len"),
            f"serve.max_model_len ({serve.max_model_len}) is below data.max_tokens "
            f"({data.max_tokens}): rows it was trained on could not be served",
        )


def _conflicts_of_pretraining(recipe: Recipe) -> Iterator[Problem]:
    """What is made for turns, where all rows are plain text."""
    if recipe.training.method != "pretrain":
        return
    if recipe.data.supervise == "last":
        yield (
            ("data", "supervise"),
            "data.supervise (last) is for rows with turns, and training.method=pretrain learns all "
            "of a text: leave it out",
        )
    if recipe.evaluation.generate:
        yield (
            ("evaluation", "generate"),
            "evaluation.generate asks the prompts of chat rows, and training.method=pretrain "
            "learns plain text, which has none: leave it out",
        )


def _conflicts_of_a_new_model(recipe: Recipe) -> Iterator[Problem]:
    """What a model that begins at random cannot do, or be too small for."""
    shape, training = recipe.model.initialize, recipe.training
    if shape is None:
        return
    if training.adapter.kind != "full":
        yield (
            ("training", "adapter", "kind"),
            f"training.adapter.kind ({training.adapter.kind}) leaves weights as they are, and "
            "those of model.initialize are random: set it to full",
        )
    if training.method not in FROM_NOTHING:
        yield (
            ("training", "method"),
            f"training.method ({training.method}) weighs what a model can write already, and "
            "model.initialize begins with one that can write nothing: train it first "
            f"({', '.join(FROM_NOTHING)}), then name that run's merged folder as model.base",
        )
    lengths = (
        (("data", "max_tokens"), recipe.data.max_tokens),
        (("serve", "max_model_len"), recipe.serve.max_model_len),
    )
    for place, length in lengths:
        if length and length > shape.context:
            yield (
                place,
                f"{'.'.join(place)} ({length}) is above model.initialize.context "
                f"({shape.context}): make that longer, or this shorter",
            )
    scored = perplexity_filter(recipe.data.filters)
    if scored and not scored.model:
        yield (
            ("data", "filters", recipe.data.filters.index(scored), "model"),
            "a perplexity filter asks the base unless it names a model, and model.initialize "
            "begins with one that knows nothing: name one",
        )


FROM_NOTHING = ("pretrain", "distill", "sft")
"""Methods that teach a model to write."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe; as `read_recipe`, without the document."""
    return read_recipe(path, overrides)[0]


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, CommentedMap]:
    """Read and validate a recipe.

    Args:
        path: the YAML file. Relative paths of data files and templates inside it are found in
            the working directory or in the recipe's own folder, and made absolute.
        overrides: words such as ``training.max_steps=30`` or ``data.sources.0.path=a.json``;
            values are read as YAML.

    Returns:
        The recipe, and the document it was made of, which knows the line of every key.

    Raises:
        UsageError: as `read_document`; it is a recipe of a generation; or a relative path names
            one file in the working directory and another beside the recipe.
    """
    if looks_like(path, *GENERATES):
        raise UsageError(
            f"{path}: this is a recipe of a generation (llmkit generate evol-instruct {path}). One "
            "of a training has a 'model' and 'data'; see recipes/quickstart.yaml."
        )
    recipe, document = read_document(path, overrides, Recipe)
    return located(recipe, path.parent), document


def dump_recipe(recipe: BaseModel) -> str:
    """A recipe of any kind as YAML, every default written out."""
    stream = io.StringIO()
    YAML().dump(recipe.model_dump(mode="json"), stream)
    return stream.getvalue()


def recipe_schema() -> dict[str, Any]:
    """The JSON schema that editors use to complete and check recipes."""
    return Recipe.model_json_schema()
