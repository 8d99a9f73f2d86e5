"""Random weights of a given shape: always the same, as large as asked, and sure of nothing."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoTokenizer

from data_prep.tokenizer_training import TokenizerSettings, save_tokenizer, train_tokenizer
from llmkit.errors import UsageError
from llmkit.files import content_hash
from llmkit.models import initializing
from llmkit.models.initializing import initialize
from llmkit.models.loading import load_base
from llmkit.models.settings import ModelConfig, NewModel
from llmkit.training.batching import Sequences, collate
from llmkit.training.loss import supervised_loss

SHAPE = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 1, "context": 256}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `llmkit tokenizer train` writes it, without a chat template."""
    folder = tmp_path_factory.mktemp("trained") / "tokenizer"
    settings = TokenizerSettings(vocab_size=300)
    save_tokenizer(train_tokenizer(["to be or not to be"] * 9, settings), settings, folder)
    return folder


@pytest.fixture
def make(tokenizer: Path, tmp_path: Path):
    def go(name: str = "base", **changes) -> tuple[Path, dict]:
        folder = tmp_path / name
        folder.mkdir()
        shape = NewModel.model_validate({**SHAPE, "tokenizer": str(tokenizer), **changes})
        return folder, initialize(shape, tokenizer, folder)

    return go


def test_the_same_shape_and_seed_are_the_same_bytes(make):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, _ = make("first")
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's numbers are drawn
    torch.manual_seed(9)
    again, _ = make("again")
    other, _ = make("other", seed=1)
    assert content_hash(first) == content_hash(again) != content_hash(other)


def test_the_shape_is_the_one_asked_for(make, tokenizer):
    folder, figures = make(mlp_width=160, tied=False)
    config = AutoConfig.from_pretrained(folder)
    assert config.vocab_size == figures["embedding_rows"] == 320 - 320 % 64
    assert config.vocab_size >= figures["tokens"] > config.vocab_size - 64
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 64, 160)
    assert (config.num_attention_heads, config.num_key_value_heads) == (2, 1)
    assert config.max_position_embeddings == 256
    model = load_base(folder, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
    assert figures["parameters"] == sum(p.numel() for p in model.parameters())
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    written = AutoTokenizer.from_pretrained(folder)
    assert (
        config.eos_token_id
        == written.eos_token_id
        == written.convert_tokens_to_ids("<|endoftext|>")
    )
    assert (folder / "tokenizer.json").read_bytes() == (tokenizer / "tokenizer.json").read_bytes()


def test_every_row_of_the_embeddings_can_train(make):
    folder, _ = make()
    model = load_base(folder, quantization="none", device=torch.device("cpu"))
    assert model.get_input_embeddings().padding_idx is None
    assert float(model.get_input_embeddings().weight.abs().sum(-1).min()) > 0


def test_what_is_left_out_is_chosen(make):
    folder, _ = make(kv_heads=None)
    config = AutoConfig.from_pretrained(folder)
    assert (config.num_key_value_heads, config.intermediate_size) == (2, 192)  # 8/3 of 64, up
    assert config.tie_word_embeddings


@pytest.mark.parametrize("shape", [{}, {"width": 1024, "heads": 16, "layers": 1, "tied": False}])
def test_before_the_first_step_its_loss_is_that_of_a_guess(make, prepared, shape):
    folder, figures = make(**shape)
    model = load_base(folder, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
    sequences = Sequences(prepared(8).sequences("train"))
    batch = collate([sequences[0]])
    with torch.no_grad():
        loss = float(supervised_loss(model, batch)) / len(batch["shift_labels"])
    assert figures["loss_of_a_guess"] == pytest.approx(
        math.log(figures["embedding_rows"]), abs=1e-4
    )
    assert loss == pytest.approx(figures["loss_of_a_guess"], abs=0.35)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "must be a multiple of heads"),
        ({"heads": 4}, r"width / heads is 16.*say heads: 1 or 2"),
        ({"kv_heads": 2, "heads": 3, "width": 96}, "must be a multiple of kv_heads"),
        ({"width": 50, "heads": 1}, "choose a width that is a multiple"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change, words):
    with pytest.raises(ValidationError, match=words):
        NewModel.model_validate({**SHAPE, "tokenizer": "t", **change})


def test_a_model_has_one_beginning():
    shape = {**SHAPE, "tokenizer": "t"}
    for values in ({}, {"base": "a", "initialize": shape}):
        with pytest.raises(ValidationError, match="say one of them"):
            ModelConfig.model_validate(values)
    with pytest.raises(ValidationError, match=r"quantization \(nf4\).*leave it out"):
        ModelConfig.model_validate({"initialize": shape, "quantization": "nf4"})
    assert ModelConfig.model_validate({"initialize": shape}).name == "base"


def test_a_tokenizer_that_ends_no_text_is_refused(make, tokenizer, monkeypatch):
    import dataclasses

    load = initializing.load_tokenizer
    monkeypatch.setattr(
        initializing, "load_tokenizer", lambda path: dataclasses.replace(load(path), special={})
    )
    with pytest.raises(UsageError, match="names no end-of-text token"):
        make()


def test_weights_beyond_the_memory_are_refused_before_they_are_made(make, monkeypatch):
    memory = SimpleNamespace(available=100_000)
    monkeypatch.setattr(initializing.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(torch, "manual_seed", lambda _: pytest.fail("weights were made"))
    with pytest.raises(UsageError, match=r"weights at 4 bytes need .* GiB.*Make it smaller"):
        make()
