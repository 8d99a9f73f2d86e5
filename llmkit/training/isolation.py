"""Proof, on the model at hand, that we compute its own loss and that packed rows are apart.

Some architectures carry state from token to token outside attention, and some do not hand our row
boundaries to their attention layers. Then packing would train on neighbours in silence. So before
training, the last row of a real pack is run alone and in its pack, and its logits are compared.
"""

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from llmkit.errors import CheckFailed
from llmkit.models.attention import ROWS_ATTENTION
from llmkit.models.loading import computing_in
from llmkit.models.scoring import last_states
from llmkit.training.batching import Sequence, Sequences, collate, to_device
from llmkit.training.loss import supervised_logits

MOST_TOKENS = 1024
MOST_POSITIONS = 64
"""Predictions of a row that are compared: its first, where a state left over from a neighbour has
not faded, and its last, beyond windows. Of whole rows their logits took more memory than all of a
small training."""
LARGEST_DIVERGENCE = 0.02
"""Mean KL in nats a token. bfloat16 rounding alone was measured below 0.001; a visible neighbour
gives about 1."""
LARGEST_DIVERGENCE_INT8 = 0.1
"""The same where weights are int8: LLM.int8 multiplies the columns that hold an outlier in any row
of the batch apart, so that a neighbour changes the rounding. 0.025 was measured on SmolLM2."""

LARGEST_DRIFT = 0.1
"""Of a row's last state, as a share of its length."""


def check_rows_are_apart(
    model: PreTrainedModel, sequences: Sequences, dtype: torch.dtype
) -> dict[str, Any]:
    """Compare a row's logits in its pack with its logits alone.

    Returns:
        The mean KL divergence (nats) over the row's supervised positions, and their number;
        empty when there is one row only.

    Raises:
        CheckFailed: they differ by more than rounding.
    """
    packed = next((s for s in sequences if len(s.row_lengths) > 1), None)
    if packed is None and len(sequences) < 2:
        return {}
    pair = _two_rows(packed or Sequence.joined(sequences[0], sequences[1]))
    alone = pair.row(1)
    logits_alone = _logits(model, alone, dtype)
    logits_packed = _logits(model, pair, dtype)
    divergence = kl_divergence(logits_alone, logits_packed)
    if not divergence <= _largest_divergence(model):
        raise CheckFailed(
            f"rows of one forward pass see each other on this model ({type(model).__name__}): a "
            f"row's prediction moves by {divergence:.3f} nats a token when another row stands "
            "before it. Set data.packing=false and training.batch.rows=1."
        )
    return {"kl_packed_vs_alone": divergence, "positions": len(logits_alone)}


def check_loss_is_the_models_own(
    model: PreTrainedModel, sequences: Sequences, dtype: torch.dtype
) -> dict[str, Any]:
    """Compare the logits that the loss is taken from with the model's own forward pass.

    Ours skips positions without loss and replaces the attention; what an architecture does besides
    (attention sinks, factors on its logits) would be left out without a word.

    Returns:
        The mean KL divergence (nats) over a row's supervised positions.

    Raises:
        CheckFailed: they differ by more than rounding.
    """
    row = sequences[0].row(0, MOST_TOKENS)
    if not row.supervised[1:].any():
        row = sequences[0].row(0)
    batch = to_device(collate([row]), model.device)
    found = _logits(model, row, dtype)
    was_training = model.training
    model.eval()
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad(), computing_in(dtype, model.device):
            positions = _some_of_last_row(row, batch["predict_at"])
            own = _own_logits(model, batch["input_ids"], positions)
    finally:
        model.set_attn_implementation(ROWS_ATTENTION)
        model.train(was_training)
    divergence = kl_divergence(own, found)
    if not divergence <= _largest_divergence(model):
        raise CheckFailed(
            f"this model ({type(model).__name__}) computes something that training would leave "
            f"out: its own predictions are {divergence:.3f} nats a token away from those that the "
            "loss would be taken from. This architecture is not supported."
        )
    return {"kl_own_forward": divergence}


def check_scores_are_the_rows_own(
    model: PreTrainedModel, sequences: Sequences, dtype: torch.dtype
) -> dict[str, Any]:
    """Compare what a reward model scores of a row: packed, alone, and in the model's own way.

    The score itself is drawn at random before training; the state that it is taken of is not.

    Returns:
        How far the row's last state moves, as a share of its length, either way.

    Raises:
        CheckFailed: it moves by more than rounding.
    """
    pair = Sequence.joined(sequences[0], sequences[len(sequences) - 1]).without_kinds()
    pair = _two_rows(pair)
    batch, alone = (to_device(collate([rows]), model.device) for rows in (pair, pair.row(1)))
    was_training = model.training
    model.eval()
    with torch.no_grad(), computing_in(dtype, model.device):
        packed_state = last_states(model, batch)[-1].float()
        state = last_states(model, alone)[-1].float()
        model.set_attn_implementation("eager")
        own = model.get_decoder()(input_ids=alone["input_ids"], use_cache=False)
    model.set_attn_implementation(ROWS_ATTENTION)
    model.train(was_training)
    own_state = own.last_hidden_state[0, -1].float()
    found = {
        "state_packed_vs_alone": float((packed_state - state).norm() / state.norm()),
        "state_own_forward": float((own_state - state).norm() / own_state.norm()),
    }
    if not max(found.values()) <= LARGEST_DRIFT:
        raise CheckFailed(
            f"this model ({type(model).__name__}) scores a row otherwise than it would by itself "
            f"({', '.join(f'{name} {value:.2f}' for name, value in found.items())}): rows of one "
            "forward pass see each other, or training would leave something out. This "
            "architecture is not supported as a reward model."
        )
    return found


def kl_divergence(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Mean KL(expected || found) over positions, in nats; logits ``[positions, vocabulary]``."""
    expected_log, found_log = expected.log_softmax(-1), found.log_softmax(-1)
    return float((expected_log.exp() * (expected_log - found_log)).sum(-1).mean())


def _largest_divergence(model: PreTrainedModel) -> float:
    int8 = getattr(model, "is_loaded_in_8bit", False)
    return LARGEST_DIVERGENCE_INT8 if int8 else LARGEST_DIVERGENCE


def _two_rows(sequence: Sequence) -> Sequence:
    """The pack's first row, cut if it is long, and its last."""
    last = sequence.row(len(sequence.row_lengths) - 1)
    return Sequence.joined(sequence.row(0, MOST_TOKENS), last)


def _some_of_last_row(sequence: Sequence, predict_at: torch.Tensor) -> torch.Tensor:
    """Positions that predict in the last row: its first and its last, or all if they are few.

    Counted beside the tensor, so that a plan can follow on tensors without values.
    """
    last = sequence.row(len(sequence.row_lengths) - 1)
    at = predict_at[len(predict_at) - int(last.supervised[1:].sum()) :]
    half = MOST_POSITIONS // 2
    return at if len(at) <= MOST_POSITIONS else torch.cat([at[:half], at[-half:]])


def _own_logits(
    model: PreTrainedModel, input_ids: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Float32 logits of the model's own forward pass, ``[positions, vocabulary]``."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        found = model(input_ids=input_ids, use_cache=False, logits_to_keep=positions)
        return found.logits[0].float()  # type: ignore[no-any-return]
    return model(input_ids=input_ids, use_cache=False).logits[0, positions].float()  # type: ignore[no-any-return]


def _logits(model: PreTrainedModel, sequence: Sequence, dtype: torch.dtype) -> torch.Tensor:
    device = model.device
    batch = to_device(collate([sequence]), device)
    batch["predict_at"] = _some_of_last_row(sequence, batch["predict_at"])
    was_training = model.training
    model.eval()
    with computing_in(dtype, device):
        logits = supervised_logits(model, batch)
    model.train(was_training)
    return logits
