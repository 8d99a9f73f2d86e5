"""What an optimiser keeps of every parameter from step to step."""

from math import prod

from llmkit.training.settings import Optimizer

FULL_BELOW = 4096
"""bitsandbytes keeps the 8-bit states of tensors with fewer parameters in 32 bits."""
BLOCK = 256
"""Parameters whose 8-bit states share one scale."""

WORDS = {
    "adamw": "two moments in float32: 8 bytes a parameter",
    "adamw_8bit": "two moments in 8 bits and a scale for every 256: about 2.03 bytes a parameter",
    "paged_adamw": "two moments in float32: 8 bytes a parameter, in pages that CUDA moves",
    "paged_adamw_8bit": "two moments in 8 bits: about 2.03 bytes a parameter, in pages",
    "lion": "one moment in float32: 4 bytes a parameter",
    "adafactor": "sums of rows and columns: a few bytes for every row and column",
    "sgd": "nothing: no momentum",
}


def moments_of(optimizer: Optimizer, shape: tuple[int, ...]) -> list[int]:
    """The bytes of each state tensor of one float32 parameter.

    Args:
        optimizer: which.
        shape: of the parameter.
    """
    count = prod(shape)
    match optimizer:
        case "adamw" | "paged_adamw":
            return [4 * count, 4 * count]
        case "adamw_8bit" | "paged_adamw_8bit" if count >= FULL_BELOW:
            scales = 4 * -(-count // BLOCK)
            return [count, count, scales, scales]
        case "adamw_8bit" | "paged_adamw_8bit":
            return [4 * count, 4 * count]
        case "lion":
            return [4 * count]
        case "adafactor" if len(shape) > 1:
            return [4 * prod(shape[:-1]), 4 * prod((*shape[:-2], shape[-1]))]
        case "adafactor":
            return [4 * count]
        case "sgd":
            return []
