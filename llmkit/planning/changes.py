"""Single changes to a recipe that make a training smaller, the least costly first."""

from collections.abc import Iterator
from typing import Any

from llmkit.recipe import Recipe
from llmkit.training.settings import LoraAdapter

SHORTEST = 256
"""Tokens below which shortening rows is not proposed."""


def smaller_recipes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Changes as a person would write them on the command line, and the recipe with each."""
    training, data = recipe.training, recipe.data
    adapter, rows = training.adapter, training.batch.rows
    if rows > 1:
        accumulate = rows * training.batch.accumulate
        batch = training.batch.model_copy(update={"rows": 1, "accumulate": accumulate})
        words = f"training.batch.rows=1 training.batch.accumulate={accumulate}"
        yield words, _training(recipe, batch=batch)
    if not training.gradient_checkpointing:
        words = "training.gradient_checkpointing=true"
        yield words, _training(recipe, gradient_checkpointing=True)
    is_lora = isinstance(adapter, LoraAdapter)
    if is_lora and recipe.model.quantization != "nf4" and getattr(adapter, "init", "") != "pissa":
        model = recipe.model.model_copy(update={"quantization": "nf4"})
        yield "model.quantization=nf4", recipe.model_copy(update={"model": model})
    if not is_lora and training.optimizer == "adamw":
        yield "training.optimizer=adafactor", _training(recipe, optimizer="adafactor")
    if data.max_tokens >= 2 * SHORTEST:
        shorter = data.model_copy(update={"max_tokens": data.max_tokens // 2})
        words = f"data.max_tokens={data.max_tokens // 2}"
        yield words, recipe.model_copy(update={"data": shorter})
    if not is_lora:
        yield "training.adapter={kind: lora}", _training(recipe, adapter=LoraAdapter())


def _training(recipe: Recipe, **update: Any) -> Recipe:
    changed = recipe.training.model_copy(update=update)
    return recipe.model_copy(update={"training": changed})
