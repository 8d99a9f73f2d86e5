"""A model of a given shape with random weights, as a folder that is a base like any other.

The folder is a function of shape, tokenizer and seed alone, so a run can always make it again.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_prep.tokenizer import Tokenizer, load_tokenizer
from llmkit.errors import UsageError
from llmkit.models.loading import quiet
from llmkit.models.settings import NewModel

ROWS_MULTIPLE = 64
"""Rows of the embeddings are rounded up to a multiple of this, which matrix products like; the
ids above the tokenizer's are never a target, so training makes them unlikely."""
LARGEST_DEVIATION = 0.02
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    "chat_template.jinja",
)


def initialize(shape: NewModel, tokenizer_folder: Path, folder: Path) -> dict[str, Any]:
    """Write a model folder with random weights in float32.

    Args:
        shape: how large, and the seed.
        tokenizer_folder: whose tokenizer it reads and writes with.
        folder: an empty folder.

    Returns:
        Figures: parameters, tokens and rows of the embeddings, the weights' deviation, and the loss
        of a model that knows nothing, which is that of a fair guess among its tokens.

    Raises:
        DataError: there is no tokenizer.
        UsageError: the tokenizer names no end-of-text token, or the weights do not fit in memory.
    """
    quiet()
    tokenizer = load_tokenizer(tokenizer_folder)
    config = _config(shape, tokenizer)
    count = _parameters(config)
    free = psutil.virtual_memory().available
    if 4 * count > free:
        raise UsageError(
            f"model.initialize: {count:,} weights at 4 bytes need {4 * count / 2**30:.1f} GiB; "
            f"{free / 2**30:.1f} GiB are free. Make it smaller: width, layers."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    _copy_tokenizer(tokenizer_folder, folder)
    return {
        "parameters": count,
        "tokens": _tokens(tokenizer),
        "embedding_rows": config.vocab_size,
        "deviation": round(config.initializer_range, 5),
        "loss_of_a_guess": round(math.log(config.vocab_size), 4),
    }


def outline(shape: NewModel, tokenizer_folder: Path, folder: Path) -> None:
    """Write what `initialize` writes, without the weights: enough to count shapes on.

    Raises:
        DataError: there is no tokenizer.
        UsageError: the tokenizer names no end-of-text token.
    """
    _config(shape, load_tokenizer(tokenizer_folder)).save_pretrained(folder)
    _copy_tokenizer(tokenizer_folder, folder)


def _copy_tokenizer(tokenizer_folder: Path, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).is_file():
            shutil.copyfile(tokenizer_folder / name, folder / name)


def _config(shape: NewModel, tokenizer: Tokenizer) -> LlamaConfig:
    bos, eos = (
        tokenizer.id_of(tokenizer.special.get(name, "")) for name in ("bos_token", "eos_token")
    )
    if eos is None:
        raise UsageError(
            f"{tokenizer.folder}: the tokenizer names no end-of-text token, so the model would "
            'never learn to stop. Name one in tokenizer_config.json: "eos_token".'
        )
    return LlamaConfig(
        vocab_size=_round_up(_tokens(tokenizer), ROWS_MULTIPLE),
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width or _round_up(-(-8 * shape.width // 3), 64),
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads or shape.heads,
        max_position_embeddings=shape.context,
        initializer_range=_deviation(shape.width),
        tie_word_embeddings=shape.tied,
        dtype="float32",
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=None,  # or its embedding would never train, and it may be the end of a text
    )


def _deviation(width: int) -> float:
    """The standard deviation of the weights.

    The usual 0.02 is too much for wide models: their logits would be sure of something before they
    have seen anything, and the first loss above that of a guess.

    Source:
        Small initialisation, Nguyen and Salazar (2019), arXiv 1910.05895.
    """
    return min(LARGEST_DEVIATION, math.sqrt(2 / (5 * width)))


def _tokens(tokenizer: Tokenizer) -> int:
    return max(tokenizer.backend.get_vocab().values()) + 1


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _parameters(config: LlamaConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in LlamaForCausalLM(config).parameters())
