"""Whether a model knows the tokens of its data, and which of them it has yet to learn."""

from pathlib import Path

from transformers import PreTrainedModel

from llmkit.errors import UsageError
from llmkit.models.vocabulary import read_extension
from llmkit.training.batching import Sequences
from llmkit.training.settings import Full, LoraAdapter, TrainingConfig


def tokens_to_learn(config: TrainingConfig, folder: Path, sequences: Sequences) -> list[int]:
    """Tokens that were added to the model and have embeddings of their own to learn.

    Raises:
        UsageError: rows use some of them, and they would stay the means they were made as.
    """
    extension = read_extension(folder)
    if extension is None:
        return []
    added = {row.id: row.token for row in extension.added}
    adapter = config.adapter
    if isinstance(adapter, Full) or (not isinstance(adapter, LoraAdapter) and adapter.embeddings):
        return []
    if isinstance(adapter, LoraAdapter) and adapter.new_tokens:
        return list(added)
    used = sorted({index for each in sequences for index in each.input_ids} & added.keys())
    if used:
        named = ", ".join(repr(added[index]) for index in used[:5])
        setting = "new_tokens" if isinstance(adapter, LoraAdapter) else "embeddings"
        raise UsageError(
            f"{folder}: the data uses {len(used)} of the {len(added)} tokens that were added to "
            f"this model ({named}, ...), and nothing would train their embeddings: they would stay "
            f"the mean of their pieces. Set training.adapter.{setting}=true."
        )
    return []


def refuse_ids_without_embedding(base: PreTrainedModel, sequences: Sequences) -> None:
    """Look whether the model knows every token of the data.

    Raises:
        UsageError: it has no embedding for one.
    """
    rows = len(base.get_input_embeddings().weight)  # type: ignore[arg-type]
    largest = max(int(sequence.input_ids.max()) for sequence in sequences)
    if largest >= rows:
        raise UsageError(
            f"the data has token id {largest}, but the model has embeddings for 0 to {rows - 1}: "
            "its tokenizer or chat template uses tokens that were added without enlarging the "
            "model. Choose a template of tokens that the model knows: model.chat_template."
        )
