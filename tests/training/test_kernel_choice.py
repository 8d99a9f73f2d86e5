"""Faster forms are used where they are equal and no slower, and what was chosen stays chosen."""

import json
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from llmkit.errors import UsageError
from llmkit.models.attention import rows_attention
from llmkit.models.loading import load_base
from llmkit.models.packs import STEP, laid_out
from llmkit.training import loss
from llmkit.training.batching import Sequence, collate
from llmkit.training.kernels import choice
from llmkit.training.kernels.candidates import Candidate
from llmkit.training.kernels.gated import gates
from llmkit.training.kernels.head import target_losses
from llmkit.training.kernels.norm import norms

CPU = torch.device("cpu")


class FeedForward(nn.Module):
    def __init__(self, act=nn.SiLU):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(8, 24), nn.Linear(8, 24)
        self.down_proj, self.act_fn = nn.Linear(24, 8), act()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Clamped(FeedForward):
    """Looks like the usual one, and is not where values are large (DeepSeek V4)."""

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)).clamp(max=9) * self.up_proj(x))


def model_of(*layers):
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def found_by(forms, module, x):
    (candidate,) = forms(module)
    results = []
    for forward in (module.forward, candidate.forward):
        for each in (x, *module.parameters()):
            each.grad = None
        out = forward(x)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        results.append([out.detach(), *(p.grad.clone() for p in (x, *module.parameters()))])
    return results


@pytest.mark.parametrize(
    ("forms", "module"), [(norms, LlamaRMSNorm(8)), (gates, FeedForward())], ids=["norm", "gate"]
)
def test_a_form_gives_what_the_layer_gives(forms, module):
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for plain, fused in zip(*found_by(forms, model_of(module)[0], x), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


def test_a_norm_keeps_the_type_that_transformers_gives():
    norm = LlamaRMSNorm(8)
    (candidate,) = norms(norm)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(1, 5, 8).to(dtype)
        assert candidate.forward(x).dtype == norm(x).dtype
        torch.testing.assert_close(candidate.forward(x), norm(x))


def use(model, tmp_path, how="auto", *, resumed=False):
    return choice.use_kernels(
        model, how, dtype=torch.float32, tokens=16, folder=tmp_path, resumed=resumed
    )


def test_layers_that_only_look_alike_keep_their_own_way(tmp_path):
    model = model_of(GemmaRMSNorm(8), Clamped(), FeedForward(nn.GELU))
    found = {each.layer.split()[0]: each for each in use(model, tmp_path, "fused")}
    assert not found["GemmaRMSNorm"].used
    assert found["GemmaRMSNorm"].distance > 0.1
    assert [each.kind for each in found.values()] == ["norm"]  # the others are not even tried
    assert not any("forward" in vars(layer) for layer in model)


def test_equal_forms_are_used_and_said(tmp_path):
    model = model_of(LlamaRMSNorm(8), LlamaRMSNorm(8), FeedForward())
    before = [p.detach().clone() for p in model.parameters()]
    found = {each.kind: each for each in use(model, tmp_path, "fused")}
    assert found["norm"].used
    assert found["norm"].layers == 2
    assert found["gate"].used
    assert all("forward" in vars(layer) for layer in model)
    assert all(map(torch.equal, before, model.parameters()))  # trying leaves weights as they were
    assert [each["kind"] for each in json.loads((tmp_path / choice.FILE).read_text())] == [
        "norm",
        "gate",
    ]


def test_plain_is_plain(tmp_path):
    model = model_of(LlamaRMSNorm(8))
    assert use(model, tmp_path, "plain") == []
    assert "forward" not in vars(model[0])


def test_a_slower_form_is_left_out_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "_measure", lambda *_: (0.0, 1.0, 1.3))
    assert not use(model_of(LlamaRMSNorm(8)), tmp_path)[0].used
    assert use(model_of(LlamaRMSNorm(8)), tmp_path, "fused")[0].used
    monkeypatch.setattr(choice, "_measure", lambda *_: (0.0, 1.0, 1.2))  # it saves memory
    assert use(model_of(LlamaRMSNorm(8)), tmp_path)[0].used


def test_a_resumed_training_computes_as_it_began(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "_measure", lambda *_: (0.0, 1.0, 9.0))
    began = use(model_of(LlamaRMSNorm(8)), tmp_path)
    monkeypatch.setattr(choice, "_measure", lambda *_: (0.0, 1.0, 0.1))
    model = model_of(LlamaRMSNorm(8))
    assert use(model, tmp_path, resumed=True) == began
    assert "forward" not in vars(model[0])
    assert use(model, tmp_path)[0].used  # begun anew, it is measured anew


def test_one_wrong_gradient_is_noticed():
    layer = nn.Linear(8, 8)

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return layer(x)

        @staticmethod
        def backward(context, *gradients):
            return gradients[0]

    candidate = Candidate("lora", layer, (8, 8), Wrong.apply)
    layer.requires_grad_(requires_grad=False)
    distance, _, _ = choice._measure(candidate, torch.float32, 4)
    assert distance > choice.FAR[torch.float32]


def test_a_gradient_that_is_no_number_is_noticed():
    layer = nn.Linear(8, 8).requires_grad_(requires_grad=False)

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return layer(x)

        @staticmethod
        def backward(context, *gradients):
            return gradients[0] * torch.nan

    candidate = Candidate("lora", layer, (8, 8), Nothing.apply)
    assert choice._measure(candidate, torch.float32, 4)[0] == torch.inf


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [3, 7, 100])
def test_a_head_gives_autograds_losses_and_gradients(chunk, bias):
    torch.manual_seed(0)
    head = nn.Linear(8, 30, bias=bias)
    hidden = torch.randn(10, 8, requires_grad=True)
    targets = torch.randint(0, 30, (10,))
    losses = nn.functional.cross_entropy(head(hidden) * 1.0, targets, reduction="none")
    losses.sum().backward()
    found = target_losses(
        hidden.detach(),
        head.weight.detach(),
        head.bias.detach() if bias else None,
        targets,
        dtype=torch.float32,
        chunk=chunk,
        learns=(True, True, bias),
    )
    torch.testing.assert_close(found.losses, losses.detach())
    torch.testing.assert_close(found.hidden, hidden.grad)
    torch.testing.assert_close(found.weight, head.weight.grad)
    if bias:
        torch.testing.assert_close(found.bias, head.bias.grad)


def test_large_logits_neither_overflow_nor_lose_the_loss():
    hidden, weight = torch.tensor([[300.0], [-300.0]]), torch.tensor([[1.0], [-1.0], [0.0]])
    found = target_losses(hidden, weight, None, torch.tensor([1, 1]), dtype=torch.float32, chunk=2)
    assert found.losses.tolist() == [600.0, 0.0]
    assert found.hidden.isfinite().all()


@pytest.mark.parametrize("lengths", [[16], [1, 15, 40, 3], [300, 9]])
def test_attention_in_bfloat16_is_near_the_exact_one_also_where_scores_are_large(lengths):
    torch.manual_seed(0)
    tokens, starts = sum(lengths), [0, *torch.tensor(lengths).cumsum(0).tolist()]
    shapes = [(1, 6, tokens, 16), (1, 2, tokens, 16), (1, 2, tokens, 16)]
    inputs = [(6 * torch.randn(s)).bfloat16().requires_grad_() for s in shapes]
    upstream = torch.randn(1, tokens, 6, 16).bfloat16()
    out, _ = rows_attention(nn.Module(), *inputs, None, row_starts=starts)
    ours = torch.autograd.grad(out, inputs, upstream)
    exact = [each.detach().double().requires_grad_() for each in inputs]
    rows = [
        scaled_dot_product_attention(
            *(each[:, :, start:end] for each in exact), is_causal=True, enable_gqa=True
        )
        for start, end in pairwise(starts)
    ]
    theirs = torch.autograd.grad(torch.cat(rows, 2).transpose(1, 2), exact, upstream.double())
    for mine, wanted in zip(ours, theirs, strict=True):
        assert (mine.double() - wanted).norm() < 0.02 * wanted.norm()


def test_what_is_laid_behind_a_pack_is_a_row_of_its_own():
    batch = {
        "input_ids": torch.arange(40)[None],
        "position_ids": torch.arange(40)[None],
        "row_starts": [0, 40],
    }
    assert laid_out(batch)["row_starts"] == [0, 40]  # float32 has no kernels to be spared
    with torch.autocast("cpu", torch.bfloat16):
        found = laid_out(batch)
    assert found["input_ids"].shape[1] % STEP == 0
    assert found["row_starts"] == [0, 40, 64]
    assert found["position_ids"][0, 40:].tolist() == list(range(24))


def test_an_evaluation_takes_no_gradient_of_a_head_that_trains(tiny, monkeypatch):
    asked = []
    real = loss.target_losses
    monkeypatch.setattr(
        loss, "target_losses", lambda *a, **k: (asked.append(k["learns"]), real(*a, **k))[1]
    )
    model = load_base(tiny, quantization="none", device=CPU, dtype=torch.float32)
    model.get_output_embeddings().weight.requires_grad_()
    batch = collate([Sequence.of_row([5, 6, 7, 8], [False, True, True, True])])
    with torch.no_grad():
        loss.supervised_loss(model, batch)
    loss.supervised_loss(model, batch)
    assert not any(asked[0])
    assert asked[1][1]


def test_what_was_chosen_is_read_or_refused_with_the_remedy(tmp_path):
    assert choice.read_choices(tmp_path) == []
    (tmp_path / choice.FILE).write_text("{not json")
    with pytest.raises(UsageError, match=r"kernels.json: cannot be read.*Remove it"):
        choice.read_choices(tmp_path)
