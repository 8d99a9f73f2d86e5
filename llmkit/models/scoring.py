"""Reward models: a language model's decoder, with one score a row in place of its head.

The score is taken at the last token of a row, as ``AutoModelForSequenceClassification`` does, and
in float32: its differences are what is learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from llmkit.errors import CheckFailed
from llmkit.models.packs import laid_out


def score_parameters(model: PreTrainedModel) -> Iterator[torch.nn.Parameter]:
    """The weights of a reward model's score; a language model has none."""
    score = getattr(model, "score", None)
    if isinstance(score, torch.nn.Module):
        yield from score.parameters()


def has_score(model: PreTrainedModel) -> bool:
    """Whether this is a reward model."""
    return next(score_parameters(model), None) is not None


def last_states(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """The decoder's hidden state at the last token of each row, ``[rows, width]``.

    Args:
        model: a reward model or a language model, adapters included, not its PEFT wrapper.
        batch: as `llmkit.training.batching.collate` makes it.
    """
    output = model.get_decoder()(**laid_out(batch), use_cache=False)
    ends = [start - 1 for start in batch["row_starts"][1:]]
    return output.last_hidden_state[0, ends]  # type: ignore[no-any-return]


def row_scores(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """A reward model's score of each row of a batch, ``[rows]``, float32."""
    states = last_states(model, batch)
    score: Any = model.score
    with torch.autocast(states.device.type, enabled=False):
        found = score(states.to(next(score.parameters()).dtype))
    return found[:, 0].float()  # type: ignore[no-any-return]


def save_scorer(
    model: PreTrainedModel,
    model_folder: Path,
    folder: Path,
    chat_template: str,
    stop_ids: Sequence[int],
) -> None:
    """Save weights, tokenizer and chat template as one folder for sequence classification.

    Transformers takes the score at the last token that is not padding. Many models pad with the
    very token that ends a turn: theirs would be taken for padding, and another token's be the
    score. Such a padding token is replaced.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_folder, local_files_only=True)
    tokenizer.chat_template = chat_template
    tokenizer.pad_token_id = _padding(tokenizer, stop_ids)
    tokenizer.save_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)


def _padding(tokenizer: Any, stop_ids: Sequence[int]) -> int:
    """A special token that ends no turn.

    Raises:
        CheckFailed: there is none.
    """
    own = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id]
    special = (index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
    for index in [*own, *special]:
        if index is not None and index not in stop_ids:
            return int(index)
    raise CheckFailed(
        "the model's only special tokens end a turn, so none of them can pad the rows of a reward "
        "model: transformers would take the end of a row for padding."
    )
