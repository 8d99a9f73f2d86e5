"""QLoRA on the CPU: what trains, in which type, and that an evaluation does not break training."""

import pytest
import torch

from llmkit.errors import UsageError
from llmkit.models.adapters import attach, base_of
from llmkit.models.loading import choose_device, load_base, refuse_if_too_large
from llmkit.training.batching import Sequences, collate
from llmkit.training.cross_entropy import CrossEntropy
from llmkit.training.loss import supervised_loss
from llmkit.training.objective import accept_objectives
from llmkit.training.settings import LoraAdapter
from llmkit.training.trainer import measure


@pytest.fixture(params=["nf4", "int8"])
def quantized(request, tiny):
    base = load_base(
        tiny, quantization=request.param, device=torch.device("cpu"), dtype=torch.bfloat16
    )
    return attach(base, LoraAdapter(rank=4), seed=0)


def _gradients(model, batch):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        supervised_loss(base_of(model), batch).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def test_adapters_are_float32_on_a_quantized_base(quantized):
    trainable = [p for p in quantized.parameters() if p.requires_grad]
    assert trainable
    assert {p.dtype for p in trainable} == {torch.float32}
    layer = base_of(quantized).model.layers[0].mlp.up_proj.base_layer
    assert layer.weight.dtype in (torch.uint8, torch.int8)


def test_an_evaluation_leaves_the_gradients_of_training_as_they_are(quantized, prepared):
    """bitsandbytes repacks 4-bit weights at the first evaluation pass and loses their gradient."""
    sequences = list(Sequences(prepared().sequences("train")))
    batch = collate(sequences[:1])
    quantized.train()
    for name, parameter in quantized.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.01)
    before = _gradients(quantized, batch)
    accept_objectives(base_of(quantized))
    measure(quantized, CrossEntropy(), sequences, torch.bfloat16)
    after = _gradients(quantized, batch)
    first_layer = [name for name in before if ".layers.0." in name]
    assert first_layer
    for name in first_layer:
        assert before[name].norm() > 0
        torch.testing.assert_close(after[name], before[name], rtol=0.05, atol=1e-3)


def test_nf4_uses_double_quantisation(tiny):
    base = load_base(tiny, quantization="nf4", device=torch.device("cpu"), dtype=torch.bfloat16)
    state = base.model.layers[0].mlp.up_proj.weight.quant_state
    assert state.quant_type == "nf4"
    assert state.nested


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match=r"model\.device=cuda.*model\.device=cpu"):
        choose_device("cuda")


def test_a_model_larger_than_the_memory_is_refused_before_loading(tiny, monkeypatch):
    class Little:
        available = 1000

    monkeypatch.setattr("psutil.virtual_memory", Little)
    with pytest.raises(UsageError, match=r"weights at .* bytes need .* GiB"):
        refuse_if_too_large(tiny, "none", torch.device("cpu"), torch.bfloat16)


def test_a_folder_that_is_no_causal_model_is_refused(tiny, tmp_path):
    import json

    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="cannot be loaded as a causal language model"):
        load_base(tmp_path, quantization="none", device=torch.device("cpu"))
