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


def refuse_rows_that_move_others(base: PreTrainedModel, sequences: Sequences, rows: int) -> None:
    """Look whether positions of a row depend on how long its neighbours are.

    Long RoPE and dynamic scaling choose their frequencies by the largest position of a whole
    forward pass: a short row beside a long one would get those that are meant for long ones.

    Args:
        base: the model.
        sequences: a split.
        rows: sequences in a forward pass.

    Raises:
        UsageError: a row is long enough for that, and is not always alone.
    """
    config = base.config.get_text_config()
    settings = getattr(config, "rope_parameters", None) or {}
    kinds = settings.values() if "rope_type" not in settings else [settings]
    for each in kinds:
        if not isinstance(each, dict) or each.get("rope_type") not in ("longrope", "dynamic"):
            continue
        most = each.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", config.max_position_embeddings
        )
        longest = max(int(sequence.row_lengths.max()) for sequence in sequences)
        together = rows > 1 or any(len(sequence.row_lengths) > 1 for sequence in sequences)
        if longest > most and together:
            raise UsageError(
                f"the data has a row of {longest} tokens, and this model (rope_type="
                f"{each['rope_type']}) computes the positions of all rows of a forward pass in "
                f"another way when one is longer than {most}. Set data.max_tokens={most}, or let "
                "every row be alone: data.packing=false training.batch.rows=1."
            )
