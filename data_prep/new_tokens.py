"""How the tokens of a vocabulary are written, the old ones and those that are being added."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from data_prep.errors import DataError
from data_prep.tokenizer import Tokenizer

SPACE = "\u2581"
"""How vocabularies of the SentencePiece family write a space."""

Pair = tuple[int, int]
"""Ids of two tokens that stand side by side."""


@dataclass(frozen=True)
class NewToken:
    """One more merge, and the token it makes."""

    token: str
    """As the vocabulary spells it: bytes as letters, ``Ġ`` or ``▁`` for a space."""
    left: str
    """The first of the two tokens it joins; old, or new and earlier in the list."""
    right: str
    pieces: tuple[int, ...]
    """The old ids it stands for."""
    gain: int
    """Tokens it saved on the corpus when it was chosen; 0 when a person named it."""


class Spelling:
    """The tokens of a vocabulary by id, old and new, and how they are written."""

    def __init__(self, tokens: dict[int, str], alone: frozenset[int], *, byte_level: bool) -> None:
        self.tokens = tokens
        self.alone = alone
        """Ids that are never joined: special and other added tokens, and spelled-out bytes."""
        self.byte_level = byte_level
        self._ids = {token: index for index, token in tokens.items()}
        self._next = max(tokens) + 1
        self._pieces: dict[int, tuple[int, ...]] = {}

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Spelling":
        """The spelling of a tokenizer.

        Raises:
            DataError: its vocabulary has no merges that could be continued.
        """
        described = json.loads(tokenizer.backend.to_str())
        model = described["model"]
        refuse_other_models(tokenizer, model)
        tokens = {i: token for token, i in tokenizer.backend.get_vocab().items()}
        added = frozenset(tokenizer.backend.get_added_tokens_decoder())
        spelled = frozenset(
            i for i, token in tokens.items() if model["byte_fallback"] and _spells_a_byte(token)
        )
        byte_level = '"ByteLevel"' in json.dumps(described["decoder"])
        return cls(tokens, added | spelled, byte_level=byte_level)

    def forms(self, word: str) -> Iterator[str]:
        """How a word stands in text.

        Raises:
            DataError: it has white space inside, or nothing else.
        """
        bare = word.removeprefix(" ")
        if not bare or any(c.isspace() for c in bare):
            raise DataError(
                f"{word!r} cannot be one token: no tokens with white space inside are made. "
                "Name single words."
            )
        if not self.byte_level:  # the tokenizer puts the space there itself
            yield bare
            return
        yield " " + bare
        if word == bare:
            yield bare

    def joined(self, pair: Pair) -> int | None:
        """The id of the token that two tokens would join to, if there is one already."""
        return self._ids.get(self.tokens[pair[0]] + self.tokens[pair[1]])

    def is_worth(self, pair: Pair) -> bool:
        """Whether two tokens may be joined unasked: within a word, and not in a number."""
        if self.joined(pair) is not None or not self.alone.isdisjoint(pair):
            return False
        text = self.text(self.tokens[pair[0]] + self.tokens[pair[1]]).removeprefix(" ")
        return bool(text) and not any(c.isspace() or c.isdigit() for c in text)

    def text(self, token: str) -> str:
        """What a token says; part of a character as U+FFFD."""
        if self.byte_level:
            return bytes(_BYTES[c] for c in token).decode(errors="replace")
        return token.replace(SPACE, " ")

    def add(self, pair: Pair) -> int:
        """Make the token that joins two others."""
        index, self._next = self._next, self._next + 1
        self.tokens[index] = self.tokens[pair[0]] + self.tokens[pair[1]]
        self._ids[self.tokens[index]] = index
        self._pieces[index] = self.pieces(pair[0]) + self.pieces(pair[1])
        return index

    def pieces(self, index: int) -> tuple[int, ...]:
        """The old ids that a token stands for."""
        return self._pieces.get(index, (index,))

    def new_token(self, pair: Pair, gain: int) -> NewToken:
        """What is told about the token that joins two others."""
        left, right = (self.tokens[index] for index in pair)
        pieces = self.pieces(pair[0]) + self.pieces(pair[1])
        return NewToken(left + right, left, right, pieces, gain)


def refuse_other_models(tokenizer: Tokenizer, model: dict[str, object]) -> None:
    """Refuse vocabularies without merges that could be continued.

    Raises:
        DataError: it is not BPE, or a kind of BPE whose result is not fixed by merges alone.
    """
    wrong = next(
        (
            key
            for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
            if model.get(key)
        ),
        None,
    )
    kind = model.get("type", "unknown")
    if kind != "BPE" or wrong:
        found = f"a BPE with {wrong}" if kind == "BPE" else f"a {kind} model"
        raise DataError(
            f"{tokenizer.folder}: the tokenizer is {found}; only plain byte-pair encoding can be "
            "extended (GPT-2, Llama, Mistral, Qwen, SmolLM and their kind). "
            "Train a new one: llmkit tokenizer train"
        )


def _spells_a_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the others follow U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTES = _byte_letters()
