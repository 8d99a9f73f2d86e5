"""Train a byte-level BPE tokenizer on a corpus, and write it as transformers and vLLM read it.

Byte-level, so that nothing is ever unknown: the 256 bytes are in the vocabulary from the start and
``decode(encode(text)) == text`` holds for every text. The `tokenizers` trainer counts words and
merges the most frequent pair, ties by the smaller ids: the same corpus gives the same bytes on any
number of threads (its Unigram trainer does not, which is why there is none here).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import tokenizers
from pydantic import BaseModel, ConfigDict, Field, field_validator
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from data_prep.errors import DataError
from data_prep.folders import new_folder

PreTokenizer = Literal["single-digits", "llama-3", "gpt-2"]
BATCH = 512
"""Texts handed over at once; decides speed, not the result."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {
    "single-digits": _WORDS.format(digits=""),
    "llama-3": _WORDS.format(digits="{1,3}"),
}


class TokenizerSettings(BaseModel):
    """What tokenizer to train."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(gt=0, le=4_000_000)
    """Tokens in all: special tokens, the 256 bytes, and what is learned."""
    min_frequency: int = Field(default=2, ge=1, le=2**31)
    """A pair of tokens that occurs less often is not merged."""
    special_tokens: tuple[str, ...] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    """They get the first ids. The first ends a text and pads; the last ends a turn."""
    pre_tokenizer: PreTokenizer = "single-digits"
    """What no token reaches across: words with the space or sign before them, runs of signs, and
    numbers: each digit apart (as Qwen does), by up to three (Llama 3), or whole (GPT-2)."""

    @field_validator("special_tokens")
    @classmethod
    def _usable(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({token for token in tokens if tokens.count(token) > 1})
        if twice:
            raise ValueError(f"special tokens given twice: {', '.join(map(repr, twice))}")
        if not tokens:
            raise ValueError("at least one special token is needed, to end a text with")
        plain = [t for t in tokens if t != t.strip() or len(t) < 2]
        if plain:
            raise ValueError(
                f"{plain[0]!r} cannot be a special token: it would be found inside ordinary text. "
                "Two characters at least, no space at either end."
            )
        return tokens


def train_tokenizer(
    texts: Iterable[str],
    settings: TokenizerSettings,
    progress: Callable[[int], None] = lambda _texts: None,
) -> tokenizers.Tokenizer:
    """Learn a vocabulary.

    Special tokens that stand in the corpus are left out of it: their letters teach no merges.

    Args:
        texts: the corpus, read once; only its distinct words are held in memory.
        settings: size, special tokens, pre-tokeniser.
        progress: told how many more texts were read.

    Returns:
        The tokenizer. It has fewer than ``vocab_size`` tokens when the corpus has no more pairs
        that occur ``min_frequency`` times: compare ``get_vocab_size()``.

    Raises:
        DataError: the corpus is empty, a text holds half a character, or ``vocab_size`` is smaller
            than the bytes and the special tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(settings.special_tokens)
    if settings.vocab_size < least:
        raise DataError(
            f"vocab_size={settings.vocab_size} is too small: {len(alphabet)} bytes and "
            f"{len(settings.special_tokens)} special tokens need {least}. Usual are thousands."
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = _pre_tokenizer(settings.pre_tokenizer)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        initial_alphabet=alphabet,
        special_tokens=[
            AddedToken(t, special=True, normalized=False) for t in settings.special_tokens
        ],
        show_progress=False,
    )
    backend.train_from_iterator(_batches(texts, settings, progress), trainer)
    return backend


def save_tokenizer(
    backend: tokenizers.Tokenizer,
    settings: TokenizerSettings,
    folder: Path,
    chat_template: str | None = None,
) -> None:
    """Write a trained tokenizer as a folder that transformers, vLLM and llmkit read.

    Args:
        backend: what `train_tokenizer` answered.
        settings: what it was trained with; they name the tokens that end and pad.
        folder: a new folder.
        chat_template: the source of a Jinja template to carry along.

    Raises:
        DataError: the folder is not empty.
    """
    first, last = settings.special_tokens[0], settings.special_tokens[-1]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": first,
        "eos_token": last if chat_template else first,
        "pad_token": first,
        "clean_up_tokenization_spaces": False,
    }
    with new_folder(folder) as beside:
        backend.save(str(beside / "tokenizer.json"))
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (beside / "tokenizer_config.json").write_text(text, encoding="utf-8")
        if chat_template:
            (beside / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def _pre_tokenizer(choice: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    if choice == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERNS[choice]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _batches(
    texts: Iterable[str], settings: TokenizerSettings, progress: Callable[[int], None]
) -> Iterator[list[str]]:
    longest_first = sorted(settings.special_tokens, key=len, reverse=True)
    special = re.compile("|".join(map(re.escape, longest_first)))
    batch: list[str] = []
    read = characters = 0
    for text in texts:
        _refuse_half_characters(text, read)
        read += 1
        pieces = [piece for piece in special.split(text) if piece]
        characters += sum(map(len, pieces))
        batch += pieces
        if len(batch) >= BATCH:
            yield batch
            batch = []
        if read % BATCH == 0:
            progress(BATCH)
    progress(read % BATCH)
    if not characters:
        raise DataError(
            f"the corpus is empty: {read} texts with no characters in all. "
            "Name sources with text in them."
        )
    yield batch


def _refuse_half_characters(text: str, index: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise DataError(
            f"text {index + 1} of the corpus: {half} at character {error.start + 1} is half a "
            "character, not text. Read the source with the right encoding."
        ) from None
