"""The models that data preparation asks for by name."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.embeddings import Embedder
from data_prep.models import Scorer
from llmkit.models.catalog import Say


@dataclass(frozen=True)
class DataModels:
    """A `data_prep.models.Models` that finds models in the catalogue, in folders and on the hub."""

    base: Path
    """The folder of the recipe's base model."""
    base_name: str
    device: str
    say: Say

    def embedder(self, name: str) -> Embedder:
        """A sentence-embedding model.

        Raises:
            UsageError: there is none of this name, or it cannot be loaded.
        """
        from llmkit.models.embedding import load_embedder

        return load_embedder(name, self.device, self.say)

    def scorer(self, name: str | None, max_tokens: int) -> Scorer:
        """A causal language model.

        Raises:
            UsageError: there is none of this name, or it cannot be loaded.
        """
        from llmkit.models.catalog import resolve
        from llmkit.models.perplexity import PerplexityScorer

        folder = resolve(name, self.say).folder if name else self.base
        return PerplexityScorer(
            folder, name or self.base_name, max_tokens=max_tokens, device=self.device
        )
