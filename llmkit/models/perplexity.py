"""How well a language model expects texts: what the perplexity filter asks for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmkit.errors import UsageError

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 4096
"""Tokens that are run through the model at once; one text may have more."""
CHUNK = 512
"""Positions whose logits exist at once: 512 x 49,152 float32 logits are 96 MiB."""


class PerplexityScorer:
    """Scores texts by their perplexity: exp of the mean negative log-likelihood of a token.

    Texts of about the same length are run together, laid end to end in one sequence: there is no
    padding, and none sees another. On the CPU, what a text scores does not depend on which texts it
    is scored with, but for the last bits of float32 sums: figures are rounded to 5 digits, in which
    they agree but for figures that lie within those bits of a rounding step. On a GPU the model
    computes in 16 bits, and other company may change the third digit.

    Args:
        folder: a model folder, weights and tokenizer.
        name: what the person called the model, for messages and manifests.
        max_tokens: of longer texts, the first so many are scored.
        device: where to compute: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: the folder holds no causal language model, or not one that fits in memory.
    """

    def __init__(
        self, folder: Path, name: str, *, max_tokens: int = 1024, device: str = "auto"
    ) -> None:
        import torch
        from transformers import AutoTokenizer

        from llmkit.models.catalog import context_length
        from llmkit.models.loading import choose_device, load_base, quiet

        quiet()
        self.name = name
        longest = context_length(folder)
        self.max_tokens = min(max_tokens, longest) if longest else max_tokens
        where = choose_device(device)
        # On a GPU the weights are held as for training: float32 would be twice the memory.
        dtype = torch.float32 if where.type == "cpu" else None
        try:
            self._model = load_base(folder, quantization="none", device=where, dtype=dtype)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"{folder}: {name} cannot be loaded to score perplexity: {reason}"
            ) from error

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Score texts.

        The model's beginning token, where it has one, stands before a text and is not scored; a
        model without one cannot score a text's first token.

        Args:
            texts: in any order; special tokens written in them are text like any other.

        Returns:
            Shape ``[texts]``, each at least 1; NaN for a text without a token to score: nothing is
            known of an empty text.

        Raises:
            UsageError: the model answers with something that is no number.
        """
        ids = self._tokenize(texts)
        found = np.full(len(texts), np.nan)
        for batch in _batches([len(row) for row in ids]):
            losses = self._mean_losses([ids[index] for index in batch])
            if np.isnan(losses).any():
                raise UsageError(
                    f"{self.name} cannot score perplexity: computing in {self._model.dtype}, it "
                    "answers with NaN. Check its weights, try model.device=cpu, or name another "
                    "model in the perplexity filter."
                )
            with np.errstate(over="ignore"):  # a text the model finds impossible scores infinity
                found[batch] = np.exp(losses)
        return _rounded(found)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, its beginning token included; cut to ``max_tokens``."""
        if not texts:
            return []
        begin = self._tokenizer.bos_token_id
        before = [] if begin is None else [int(begin)]
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        return [[*before, *row][: self.max_tokens] for row in encoded]

    def _mean_losses(self, rows: list[list[int]]) -> NDArray[np.float64]:
        """The mean negative log-likelihood of each row's tokens after its first."""
        import torch

        from llmkit.training.batching import Sequence as TokenSequence
        from llmkit.training.batching import collate, to_device
        from llmkit.training.loss import Head, hidden_states

        sequences = [TokenSequence.of_row(row, [True] * len(row)) for row in rows]
        batch = to_device(collate(sequences), self._model.device)
        with torch.inference_mode():
            hidden = hidden_states(self._model, batch)
            losses = _token_losses(Head(self._model), hidden, batch["shift_labels"])
        counts = np.array([len(row) - 1 for row in rows])
        starts = np.cumsum(counts) - counts
        means: NDArray[np.float64] = np.add.reduceat(losses, starts) / counts
        return means


def _token_losses(head: Any, hidden: "torch.Tensor", targets: "torch.Tensor") -> NDArray[Any]:
    """The negative log-likelihood of every target, in float64 for exact sums."""
    import torch
    from torch.nn.functional import cross_entropy

    parts = [
        cross_entropy(head.logits(hidden[start : start + CHUNK]), piece, reduction="none")
        for start, piece in zip(range(0, len(targets), CHUNK), targets.split(CHUNK), strict=True)
    ]
    found: NDArray[Any] = torch.cat(parts).double().cpu().numpy()
    return found


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts that are run together: neighbours in length, of 2 tokens at least."""
    batch: list[int] = []
    tokens = 0
    for index in sorted((i for i, n in enumerate(lengths) if n > 1), key=lambda i: (lengths[i], i)):
        if batch and tokens + lengths[index] > BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Five significant digits."""
    return np.array([float(f"{value:.5g}") for value in values], np.float64)
