"""What only training would refuse, asked before rows are prepared for it: that may take hours."""

from pathlib import Path

from llmkit.models import trained
from llmkit.models.loading import choose_device, compute_dtype
from llmkit.planning.shapes import base_shapes, trained_shapes
from llmkit.recipe import Recipe
from llmkit.training.trainer_arguments import refuse_what_cannot_run


def refuse_what_cannot_train(recipe: Recipe, folder: Path) -> None:
    """Choose what trains, on the base's shapes; no weights are loaded.

    Args:
        recipe: what to train, and how.
        folder: the base model's folder.

    Raises:
        UsageError: the device, an optimiser or a tracker is not there, or the model does not have
            what is to train: its targets, its rank, its layers.
    """
    config, quantization = recipe.training, recipe.model.quantization
    device = choose_device(recipe.model.device)
    refuse_what_cannot_run(config, device)
    dtype = compute_dtype(device)
    held = trained.base_dtype(config.adapter, quantization, dtype, folder)
    trained_shapes(base_shapes(folder, quantization, held), config, [], dtype)
