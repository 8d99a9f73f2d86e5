"""A tokenizer as data preparation needs it: ids, special tokens and the chat template it carries.

Reads the files that transformers writes (``tokenizer.json``, ``tokenizer_config.json``,
``chat_template.jinja``) with the ``tokenizers`` library alone, so that preparing data imports
no torch. The same ``tokenizer.json`` is what transformers and vLLM load.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import xxhash
from numpy.typing import NDArray

from data_prep.errors import DataError
from data_prep.word_cache import WordCache, word_cache


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer and what its folder says about it."""

    folder: Path
    backend: tokenizers.Tokenizer
    special: dict[str, str]
    """``bos_token``, ``eos_token``, ... -> the token's text, where the folder names one."""
    chat_template: str | None

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: it remembers words of its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_words"}

    @cached_property
    def _words(self) -> WordCache | None:
        return word_cache(self.backend)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; special tokens in the text count, none are added.

        Args:
            texts: shape ``[rows]``.

        Returns:
            Ids, shape ``[rows][tokens]``.
        """
        if self._words:
            return self._words.encode(texts)
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of some ids, special tokens included."""
        return self.backend.decode([int(index) for index in ids], skip_special_tokens=False)

    def id_of(self, token: str) -> int | None:
        """The id of one token of the vocabulary, or None."""
        return self.backend.token_to_id(token)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of every special token."""
        added = self.backend.get_added_tokens_decoder()
        named = (self.id_of(token) for token in self.special.values())
        marked = (index for index, token in added.items() if token.special)
        return frozenset(marked) | frozenset(index for index in named if index is not None)

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """The texts of the special tokens: typed inside a message, they would become real turns."""
        return tuple(sorted({self.text_of(index) for index in self.special_ids} - {""}))

    @cached_property
    def text_prefix_ids(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before plain text: often the beginning-of-text token."""
        # Not every tokenizer has a token for an x: the first text that it has one for will do.
        for text in chain("x", self.backend.get_vocab(with_added_tokens=False)):
            framed = self.backend.encode(text, add_special_tokens=True)
            if 0 in framed.special_tokens_mask:
                return tuple(framed.ids[: framed.special_tokens_mask.index(0)])
        return ()

    def doubles_bos(self, ids: Sequence[int]) -> bool:
        """Whether a text begins with the beginning-of-text token twice."""
        bos = self.id_of(self.special.get("bos_token", ""))
        return bos is not None and list(ids[:2]) == [bos, bos]

    def text_of(self, index: int) -> str:
        """The text of one token of the vocabulary as it stands there; empty if there is none."""
        return self.backend.id_to_token(index) or ""

    @cached_property
    def content_hash(self) -> str:
        """A hash of everything that decides ids: the tokenizer and its special tokens."""
        named = json.dumps(self.special, sort_keys=True)
        return xxhash.xxh3_128_hexdigest((self.backend.to_str() + named).encode())


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer from a model folder.

    Raises:
        DataError: the folder has no ``tokenizer.json`` or it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(
            f"{folder}: no tokenizer.json. Save the fast tokenizer there: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise DataError(f"{path}: not a tokenizer: {error}") from None
    backend.no_truncation()
    backend.no_padding()
    settings = _settings(folder)
    return Tokenizer(folder, backend, _special_tokens(settings), _chat_template(folder, settings))


def _settings(folder: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            try:
                settings = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{path}: not JSON: {error}") from None
            if not isinstance(settings, dict):
                raise DataError(f"{path}: expected a JSON object.")
            merged |= settings
    return merged


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"):
        value = settings.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def read_template(path: Path) -> str:
    """The text of a .jinja file.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}") from None


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return read_template(path)
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        entries = (entry for entry in template if isinstance(entry, dict))
        named = {entry.get("name"): entry.get("template") for entry in entries}
        template = named.get("default")
    return template if isinstance(template, str) else None
