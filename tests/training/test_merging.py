"""The merged model is the trained one, and says so; a wrong merge is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MixtralConfig,
    MixtralForCausalLM,
)

from llmkit.errors import CheckFailed
from llmkit.models import adapters, closeness, merging
from llmkit.models.loading import load_base, stop_token_ids
from llmkit.models.settings import MergeConfig, ModelConfig
from llmkit.training.settings import LoraAdapter

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory) -> Path:
    """An adapter that changes the model visibly."""
    folder = tmp_path_factory.mktemp("adapter")
    base = load_base(tiny, quantization="none", device=CPU, dtype=torch.float32)
    model = adapters.attach(base, LoraAdapter(rank=4, alpha=8), seed=0)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapters.save(model, folder, "tiny", initial=folder)
    return folder


def _merge(tiny, adapter, samples, folder, quantization="none", **settings):
    folder.mkdir()
    return merging.merge(
        MergeConfig.model_validate(settings),
        ModelConfig(base="tiny", device="cpu", quantization=quantization),
        tiny,
        adapter,
        samples,
        chat_template="{{ messages }}",
        stop_ids=[2],
        folder=folder,
        kind=merging.LANGUAGE_MODEL,
    )


def test_merged_logits_are_those_of_the_adapter_on_its_base(tiny, adapter, prepared, tmp_path):
    samples = prepared(validation=6).samples()
    found = _merge(tiny, adapter, samples, tmp_path / "merged", dtype="float32")
    assert found["closeness"]["base"]["kl"] < 1e-3
    base = load_base(tiny, quantization="none", device=CPU, dtype=torch.float32)
    reference = list(closeness.logits_on(base, samples))
    merged = load_base(tmp_path / "merged", quantization="none", device=CPU, dtype=torch.float32)
    assert closeness.compare(reference, merged, samples).kl > 0.01  # the adapter does something


def test_merging_in_float32_is_exact(tiny, adapter):
    plain = load_base(tiny, quantization="none", device=CPU, dtype=torch.float32)
    tuned = adapters.load(
        load_base(tiny, quantization="none", device=CPU, dtype=torch.float32), adapter
    )
    merged = merging.merged_into(plain, adapter, torch.float32)
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(merged(ids).logits, tuned(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_base_is_merged_both_ways_and_the_closer_is_kept(
    tiny, adapter, prepared, tmp_path, quantization
):
    samples = prepared(validation=6).samples()
    found = _merge(tiny, adapter, samples, tmp_path / "merged", quantization, max_divergence=10)
    closeness = found["closeness"]
    assert set(closeness) == {"base", "dequantized"}
    assert found["target"] == min(closeness, key=lambda target: closeness[target]["kl"])
    assert closeness["dequantized"]["kl"] < closeness["base"]["kl"]


def test_a_wrong_merge_is_refused_and_leaves_nothing(
    tiny, adapter, prepared, tmp_path, monkeypatch
):
    right = merging.merged_into

    def wrong(base, folder, dtype):
        merged = right(base, folder, dtype)
        merged.model.layers[0].mlp.down_proj.weight.data.neg_()
        return merged

    monkeypatch.setattr(merging, "merged_into", wrong)
    with pytest.raises(CheckFailed, match="nats a token away from the trained one"):
        _merge(tiny, adapter, prepared(validation=6).samples(), tmp_path / "merged")
    assert list((tmp_path / "merged").iterdir()) == []


def test_the_saved_model_carries_template_and_stop_tokens(tiny, adapter, prepared, tmp_path):
    folder = tmp_path / "merged"
    _merge(tiny, adapter, prepared(validation=6).samples(), folder)
    assert stop_token_ids(folder) == [2]
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 2
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.eos_token_id == 2
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert "local" not in (folder / "config.json").read_text().lower()


def test_stop_tokens_follow_the_template_not_the_bases_end_of_text(tiny, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.generation_config.eos_token_id = 0
    model.config.eos_token_id = 0
    merging.save_model(model, tiny, tmp_path, "{{ messages }}", [2])
    assert stop_token_ids(tmp_path) == [2]
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|im_end|>"


def test_layers_without_an_adapter_are_dequantised_as_well(tiny, prepared, tmp_path):
    base = load_base(tiny, quantization="nf4", device=CPU, dtype=torch.float32)
    model = adapters.attach(base, LoraAdapter(rank=4, targets=["q_proj", "v_proj"]), seed=0)
    adapters.save(model, tmp_path / "adapter", "tiny", initial=tmp_path)
    samples = prepared(validation=6).samples()
    found = _merge(tiny, tmp_path / "adapter", samples, tmp_path / "merged", "nf4", dtype="float32")
    assert found["target"] == "dequantized"
    assert found["closeness"]["dequantized"]["kl"] < 1e-3 < found["closeness"]["base"]["kl"]


def test_a_merge_that_loses_the_adapter_is_refused(tiny, adapter, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "merged_into", lambda base, _adapter, dtype: base.to(dtype))
    samples = prepared(validation=6).samples()
    with pytest.raises(CheckFailed, match="merging lost what was trained"):
        _merge(tiny, adapter, samples, tmp_path / "merged", max_divergence=100)


def test_an_adapter_is_loaded_as_it_was_trained_also_on_a_base_in_bfloat16(tiny, adapter):
    base = load_base(tiny, quantization="none", device=CPU, dtype=torch.bfloat16)
    tuned = adapters.load(base, adapter)
    found = {p.dtype for n, p in tuned.named_parameters() if "lora_" in n}
    assert found == {torch.float32}


def test_sampling_values_of_the_base_do_not_stop_the_merge(tiny, adapter, prepared, tmp_path):
    import shutil

    folder = tmp_path / "base"
    shutil.copytree(tiny, folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.7}', encoding="utf-8")
    _merge(folder, adapter, prepared(validation=6).samples(), tmp_path / "merged")
    saved = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert saved["temperature"] == 0.7
    assert saved["do_sample"]


def test_experts_that_are_one_tensor_are_merged_exactly(tmp_path):
    config = MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=3,
        max_position_embeddings=32,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    base = load_base(tmp_path / "base", quantization="none", device=CPU, dtype=torch.float32)
    tuned = adapters.attach(base, LoraAdapter(rank=2, alpha=8), seed=0)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    assert any("experts" in name for name, p in tuned.named_parameters() if p.requires_grad)
    (tmp_path / "adapter").mkdir()
    adapters.save(tuned, tmp_path / "adapter", "base", initial=tmp_path)
    ids = torch.tensor([[3, 5, 7, 9, 11]])
    with torch.no_grad():
        wanted = tuned.eval()(ids, use_cache=False).logits
        plain = load_base(tmp_path / "base", quantization="none", device=CPU, dtype=torch.float32)
        merged = merging.merged_into(plain, tmp_path / "adapter", torch.float32)
        found = merged.eval()(ids, use_cache=False).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
