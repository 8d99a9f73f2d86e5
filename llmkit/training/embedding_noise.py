"""NEFTune: uniform noise on the embeddings of training tokens.

The noise of a row has the scale ``alpha / sqrt(tokens of the row * width)``. transformers' own hook
takes the length of the whole sequence, which is that of a pack when rows are packed: rows would
get less noise the more neighbours they have.

Source: Jain et al. 2023, "NEFTune: Noisy Embeddings Improve Instruction Finetuning",
arXiv 2310.05914.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel


class EmbeddingNoise:
    """Adds the noise while the model is in training mode."""

    def __init__(self, base: PreTrainedModel, alpha: float) -> None:
        self._alpha = alpha
        self.row_starts: Sequence[int] = ()
        """Where the rows of the batch to come begin, and its length, ``[rows + 1]``."""
        base.get_input_embeddings().register_forward_hook(self._add)

    def _add(self, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """Embeddings ``[1, tokens, width]`` of laid-out rows, with noise."""
        del inputs
        if not module.training:
            return output
        # What may lie behind the rows is a row of its own.
        starts = torch.tensor([*self.row_starts, output.shape[1]], device=output.device)
        lengths = starts.diff()
        scale = self._alpha / (lengths * output.shape[-1]).sqrt()
        noise = torch.empty_like(output).uniform_(-1, 1)
        scales = scale.repeat_interleave(lengths, output_size=output.shape[1])
        return output + noise * scales[None, :, None].to(output.dtype)
