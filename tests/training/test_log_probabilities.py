"""Log-probabilities in chunks: the values and gradients of the plain way, without its memory."""

from typing import Any

import pytest
import torch
from preference_units import packed, pairs

from llmkit.training.batching import collate
from llmkit.training.loss import row_log_probabilities


def _plain(model: Any, batch: Any) -> torch.Tensor:
    logits = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        row_starts=batch["row_starts"],
    ).logits[0, batch["predict_at"]]
    each = logits.float().log_softmax(-1).gather(-1, batch["shift_labels"][:, None])[:, 0]
    return torch.stack([row.sum() for row in each.split(batch["row_targets"])])


@pytest.mark.parametrize("chunk", [7, 512])
@pytest.mark.parametrize("what", ["layers", "head", "both"])
def test_values_and_gradients_are_those_of_the_plain_way(tiny_model, monkeypatch, chunk, what):
    monkeypatch.setattr("llmkit.training.loss.CHUNK", chunk)
    batch = collate(packed(pairs(6), 6))
    head = tiny_model.get_output_embeddings().weight
    layers = [p for n, p in tiny_model.named_parameters() if "layers" in n and "weight" in n]
    trained = {"layers": layers, "head": [head], "both": [*layers, head]}[what]
    for parameter in trained:
        parameter.requires_grad_()
    weights = torch.linspace(-2, 3, 12)  # every row counts for something else
    found, expected = (
        (values.detach(), torch.autograd.grad((values * weights).sum(), trained))
        for values in (row_log_probabilities(tiny_model, batch), _plain(tiny_model, batch))
    )
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert theirs.norm() > 0
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_no_logits_wait_for_the_backward_pass(tiny_model, monkeypatch):
    monkeypatch.setattr("llmkit.training.loss.CHUNK", 4)
    batch = collate(packed(pairs(6), 6))
    vocabulary = tiny_model.config.vocab_size
    positions = len(batch["predict_at"])
    tiny_model.get_output_embeddings().weight.requires_grad_()
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        row_log_probabilities(tiny_model, batch).sum().backward()
    largest = max(tensor.numel() for tensor in kept if tensor.shape[-1:] == (vocabulary,))
    assert largest <= 4 * vocabulary < positions * vocabulary
