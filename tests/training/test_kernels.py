"""Faster forms give what the plain forms give: outputs and every gradient."""

import pytest
import torch

from llmkit.models.adapters import attach, base_of
from llmkit.models.attention import rows_attention
from llmkit.models.loading import load_base
from llmkit.training.batching import Sequences, collate
from llmkit.training.kernels.lora import lora_layers
from llmkit.training.loss import supervised_loss
from llmkit.training.settings import LoraAdapter

CPU = torch.device("cpu")


def _tuned(tiny, quantization="none", dtype=torch.float32, **settings):
    base = load_base(tiny, quantization=quantization, device=CPU, dtype=dtype)
    model = attach(base, LoraAdapter(rank=4, **settings), seed=0)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.train()


def use_lora_form(model, dtype):
    found = list(lora_layers(model, dtype))
    for candidate in found:
        candidate.use()
    return len(found)


def _loss_and_gradients(model, batch, dtype=torch.float32):
    model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = supervised_loss(base_of(model), batch)
    loss.backward()
    return float(loss.detach()), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"targets": ["q_proj", "down_proj"]}])
def test_the_form_of_lora_is_pefts_own(tiny, prepared, settings):
    batch = collate(list(Sequences(prepared().sequences("train")))[:2])
    model = _tuned(tiny, **settings)
    plain_loss, plain = _loss_and_gradients(model, batch)
    assert use_lora_form(model, torch.float32) == len(plain) / 2
    loss, gradients = _loss_and_gradients(model, batch)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for name, gradient in plain.items():
        assert (gradients[name] - gradient).norm() < 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_it_is_near_in_bfloat16_on_any_base(tiny, prepared, quantization):
    batch = collate(list(Sequences(prepared().sequences("train")))[:2])
    model = _tuned(tiny, quantization, torch.bfloat16)
    plain_loss, plain = _loss_and_gradients(model, batch, torch.bfloat16)
    assert use_lora_form(model, torch.bfloat16)
    loss, gradients = _loss_and_gradients(model, batch, torch.bfloat16)
    assert loss == pytest.approx(plain_loss, rel=0.01)
    for name, gradient in plain.items():
        assert torch.cosine_similarity(gradients[name].flatten(), gradient.flatten(), 0) > 0.98


def test_layers_whose_update_is_no_sum_keep_pefts_way(tiny):
    assert use_lora_form(_tuned(tiny, dropout=0.1), torch.float32) == 0
    assert use_lora_form(_tuned(tiny, dora=True), torch.float32) == 0


def test_an_adapter_switched_off_is_off(tiny, prepared):
    batch = collate(list(Sequences(prepared().sequences("train")))[:1])
    model = _tuned(tiny)
    with model.disable_adapter():
        before = float(supervised_loss(base_of(model), batch))
    use_lora_form(model, torch.float32)
    with model.disable_adapter():
        assert float(supervised_loss(base_of(model), batch)) == before
    assert float(supervised_loss(base_of(model), batch).detach()) != before


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_rows_attention_gives_autograds_gradients(heads):
    torch.manual_seed(0)
    starts, size = [0, 5, 6, 23, 40], 16
    shapes = [(1, heads[0], 40, size), (1, heads[1], 40, size), (1, heads[1], 40, size)]
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    weights = torch.randn(1, 40, heads[0], size)
    found = []
    for masked in (False, True):
        for each in inputs:
            each.grad = None
        if masked:
            rows = torch.repeat_interleave(torch.arange(4), torch.tensor(starts).diff())
            mask = (rows[:, None] == rows) & torch.ones(40, 40, dtype=torch.bool).tril()
            out = torch.nn.functional.scaled_dot_product_attention(
                *inputs, attn_mask=mask, enable_gqa=True
            ).transpose(1, 2)
        else:
            out, _ = rows_attention(torch.nn.Module(), *inputs, None, row_starts=starts)
        (out * weights).sum().backward()
        found.append([out.detach(), *(each.grad.clone() for each in inputs)])
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
