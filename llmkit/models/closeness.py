"""How near one model's decisions are to another's, measured on real rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from data_prep.prepared import Sample
from llmkit.models import adapters
from llmkit.models.loading import compute_dtype, computing_in
from llmkit.models.scoring import row_scores
from llmkit.training.batching import Sequence as TokenSequence
from llmkit.training.batching import collate, to_device
from llmkit.training.loss import supervised_logits

COMPARED_TOKENS = 2048
"""Tokens of real rows that models are compared on."""


@dataclass(frozen=True)
class Closeness:
    """How near a model's predictions are to another's, over supervised positions of real rows."""

    kl: float
    """Mean KL divergence, nats a token (reward models: a pair)."""
    top1_changed: float
    """Share of positions whose most likely token differs, of pairs whose preferred row does."""
    largest: float
    """Largest difference of a log-probability of the reference's most likely token, or row."""
    positions: int
    """Tokens, or pairs."""


@torch.no_grad()
def logits_on(model: torch.nn.Module, samples: Sequence[Sample]) -> Iterator[torch.Tensor]:
    """Float32 logits at the supervised positions of each row, ``[positions, vocabulary]``.

    Computed as in training: in the machine's compute type, one row at a time.
    """
    base = adapters.base_of(model)
    device = base.device
    dtype = compute_dtype(device)
    for sample in samples:
        batch = collate([TokenSequence.of_row(sample.ids, sample.supervised)])
        with computing_in(dtype, device):
            yield supervised_logits(base, to_device(batch, device))


@torch.no_grad()
def preferences_on(model: torch.nn.Module, samples: Sequence[Sample]) -> Iterator[torch.Tensor]:
    """A reward model's scores of every two rows, and of every row and nothing (0).

    Two scores are the logits of which row is preferred. So how near two reward models are is
    measured as for language models, a pair being a position.

    Yields:
        One tensor, ``[pairs, 2]``, float32.
    """
    base = adapters.base_of(model)
    dtype = compute_dtype(base.device)
    scores = [torch.zeros(1, device=base.device)]
    for sample in samples:
        batch = collate([TokenSequence.of_row(sample.ids, sample.supervised)])
        with computing_in(dtype, base.device):
            scores.append(row_scores(base, to_device(batch, base.device)))
    yield torch.combinations(torch.cat(scores))


def compare(
    reference: Sequence[torch.Tensor],
    model: torch.nn.Module,
    samples: Sequence[Sample],
    predictions: Callable[[torch.nn.Module, Sequence[Sample]], Iterator[torch.Tensor]] = logits_on,
) -> Closeness:
    """Measure a model against reference logits of the same rows."""
    kl, changed, positions, largest = 0.0, 0, 0, 0.0
    for expected, found in zip(reference, predictions(model, samples), strict=True):
        expected_log, found_log = expected.log_softmax(-1), found.log_softmax(-1)
        kl += float((expected_log.exp() * (expected_log - found_log)).sum())
        top = expected_log.argmax(-1, keepdim=True)
        changed += int((top != found_log.argmax(-1, keepdim=True)).sum())
        moved = (expected_log.gather(-1, top) - found_log.gather(-1, top)).abs()
        largest = max(largest, float(moved.max()))
        positions += len(expected)
    return Closeness(kl / positions, changed / positions, largest, positions)


def some_rows(samples: Sequence[Sample]) -> list[Sample]:
    """As many rows as fit in ``COMPARED_TOKENS``; at least one."""
    chosen: list[Sample] = []
    for sample in samples:
        if chosen and sum(len(s.ids) for s in chosen) + len(sample.ids) > COMPARED_TOKENS:
            break
        chosen.append(sample)
    return chosen
