"""Models that cannot be trained are refused by name, before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    LlamaModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from llmkit.errors import UsageError
from llmkit.models.kinds import refuse_what_writes_no_text
from llmkit.models.loading import load_base
from llmkit.recipe_check import check_recipe

SMALL = {"vocab_size": 300, "num_attention_heads": 2, "hidden_size": 16, "num_hidden_layers": 1}


def _t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )


def _bart() -> PreTrainedModel:
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))
    }
    return BartForConditionalGeneration(BartConfig(vocab_size=300, d_model=16, **sides))


def _bert() -> PreTrainedModel:
    return BertForMaskedLM(BertConfig(intermediate_size=16, **SMALL))


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def _checked(base: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: x\nmodel: {{base: {base}}}\ndata:\n  sources: [{{path: {tmp_path}/rows.jsonl}}]\n"
        "  max_tokens: 64\n"
    )
    check_recipe(recipe)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_t5, r"recipe.yaml:2.*T5ForConditionalGeneration\) has an encoder beside its decoder"),
        (_bart, r"recipe.yaml:2.*BartForConditionalGeneration\) has an encoder beside"),
        (_bert, r"recipe.yaml:2.*BertForMaskedLM\) is an encoder: it reads .* Name a causal"),
    ],
    ids=["t5", "bart", "bert"],
)
def test_encoders_are_refused(
    folder: Path, tmp_path: Path, make: Callable[[], PreTrainedModel], said: str
) -> None:
    _checked(folder, tmp_path)
    (folder / "model.safetensors").unlink()
    make().save_pretrained(folder)
    with pytest.raises(UsageError, match=said):
        _checked(folder, tmp_path)


def test_a_decoder_that_an_encoders_family_has_is_a_language_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["BertForMaskedLM"], "is_decoder": True}
    (folder / "config.json").write_text(json.dumps(config))
    refuse_what_writes_no_text("own", folder)


def test_a_folder_without_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"model has a config.json and no weights.*again, whole"):
        _checked(folder, tmp_path)


def test_weights_cut_short_are_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 5, 100, 5000, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"model.safetensors is cut short.*fetch it again"):
            _checked(folder, tmp_path)


def test_a_part_of_the_weights_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    parts = {"a.weight": "model-1-of-2.safetensors", "b.weight": "model-2-of-2.safetensors"}
    (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(UsageError, match=r"names 2 files.*1 are not there .model-2-of-2"):
        _checked(folder, tmp_path)


def test_weights_that_would_be_drawn_at_random_are_refused(tiny: Path, tmp_path: Path) -> None:
    """A decoder saved without its head: transformers would draw one, and say so in a warning."""
    LlamaModel.from_pretrained(tiny).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"1 weights are not in it.*lm_head.weight"):
        load_base(tmp_path, quantization="none", device=torch.device("cpu"))


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(UsageError, match=r"cannot be loaded|another shape"):
        load_base(folder, quantization="none", device=torch.device("cpu"))


def test_a_config_that_is_no_json_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["Llama')
    with pytest.raises(UsageError, match=r"config\.json: damaged"):
        refuse_what_writes_no_text("own", folder)
