"""Models whose positions depend on the longest row of a forward pass."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Phi3Config, Phi3ForCausalLM

from llmkit.errors import UsageError
from llmkit.models.adapters import attach
from llmkit.training.batching import Sequence
from llmkit.training.settings import LoraAdapter
from llmkit.training.token_checks import refuse_rows_that_move_others

FACTORS = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}


def phi(kind: str) -> Phi3ForCausalLM:
    rope = {"rope_type": kind, "rope_theta": 1e4}
    if kind == "longrope":
        rope |= FACTORS | {"original_max_position_embeddings": 16}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    config = Phi3Config(
        vocab_size=32,
        max_position_embeddings=64,
        original_max_position_embeddings=16,
        rope_parameters=rope,
        **sizes,
        **heads,
    )
    return Phi3ForCausalLM(config)


def row(tokens: int) -> Sequence:
    return Sequence.of_row([1] * tokens, [True] * tokens)


def test_a_row_that_would_move_its_neighbours_is_refused():
    packed = [Sequence.joined(row(20), row(4))]
    with pytest.raises(UsageError, match=r"row of 20 tokens.*longrope.*longer than 16"):
        refuse_rows_that_move_others(phi("longrope"), packed, 1)
    with pytest.raises(UsageError, match="longrope"):
        refuse_rows_that_move_others(phi("longrope"), [row(20), row(4)], 2)
    refuse_rows_that_move_others(phi("longrope"), [row(20), row(4)], 1)
    refuse_rows_that_move_others(phi("longrope"), [Sequence.joined(row(16), row(4))], 1)
    refuse_rows_that_move_others(phi("default"), packed, 1)


def test_a_model_without_linear_layers_has_no_adapters():
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 16, "n_positions": 8}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).to(torch.float32)
    with pytest.raises(UsageError, match="no linear layers for adapters"):
        attach(model, LoraAdapter(rank=2), seed=0)
