r"""Encode text word by word and remember the words: the same ids for a third of the work.

Byte-level tokenizers split a text by a regular expression before they look anything up, and each
piece becomes ids for itself. In every expression known here, a match holds a space only as its
first character or among nothing but white space. So a new piece begins at each space that
follows something else, whatever else the text holds, and what lies between such spaces can be
encoded apart and remembered. The expressions look ahead only from white space, and no part ends
in it. NFC composes nothing with a space.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import tokenizers

LONGEST = 40
"""Characters of a part worth remembering."""
MOST = 200_000
"""Parts remembered, some 50 MB; then it begins anew."""
AT_ONCE = 4_000_000
"""Characters encoded at once, so that a large text's parts do not fill the memory."""
BLOCK = 64
"""New parts encoded as one text: one at a time would cost more than encoding all of it plainly."""

_PARTS = re.compile(r"(?s).[^ ]*(?:(?<![\w!-~]) [^ ]*)*").findall
"""Parts end before a space that follows a letter, a digit or an ASCII sign."""

_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace("{1,3}", "")
_EXPRESSIONS = (_LLAMA_3, _QWEN_2)


class WordCache:
    """Remembers the ids of words; what it answers never depends on what it remembers."""

    def __init__(self, backend: tokenizers.Tokenizer, separator: str, separator_id: int) -> None:
        self._backend = backend
        self._separator = separator
        self._separator_id = separator_id
        self._known: dict[str, list[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, as the tokenizer itself encodes it without adding any."""
        ids: list[list[int]] = []
        for group in _groups(texts):
            ids += self._encode(group)
        return ids

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        parted = [_PARTS(text) for text in texts]
        known = self._known
        new = list(set[str]().union(*parted) - known.keys())
        known.update(zip(new, self._encode_new(new), strict=True))
        ids = [list(chain.from_iterable(map(known.__getitem__, parts))) for parts in parted]
        for part in new:
            if len(part) > LONGEST:
                del known[part]
        if len(known) > MOST:
            known.clear()
        return ids

    def _encode_new(self, parts: list[str]) -> Iterator[list[int]]:
        """Ids of parts; a special token between them keeps them apart in one text."""
        blocks = [parts[start : start + BLOCK] for start in range(0, len(parts), BLOCK)]
        joined = self._backend.encode_batch_fast(
            [self._separator.join(block) for block in blocks], add_special_tokens=False
        )
        for block, encoding in zip(blocks, joined, strict=True):
            found = _split(encoding.ids, self._separator_id)
            if len(found) != len(block):  # a part holds the separator, or makes a token with it
                alone = self._backend.encode_batch_fast(block, add_special_tokens=False)
                found = [each.ids for each in alone]
            yield from found


def word_cache(backend: tokenizers.Tokenizer) -> WordCache | None:
    """A cache for a tokenizer, or None where words cannot be known to be encoded apart."""
    added = backend.get_added_tokens_decoder()
    strict = not any(
        token.lstrip or token.rstrip or token.single_word or " " in token.content
        for token in added.values()
    )
    model = backend.model
    if not strict or not isinstance(model, tokenizers.models.BPE) or model.dropout:
        return None
    if not _splits_at_spaces(backend):
        return None
    for index, token in sorted(added.items()):
        if token.special and not token.normalized and token.content != model.unk_token:
            return WordCache(backend, token.content, index)
    return None


def _splits_at_spaces(backend: tokenizers.Tokenizer) -> bool:
    normalizer, splitter = _settings(backend.normalizer), _settings(backend.pre_tokenizer)
    if normalizer not in ({}, {"type": "NFC"}):
        return False
    *first, last = splitter.get("pretokenizers") or [splitter]
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return False
    by_expression = [step for step in first if step["type"] == "Split"]
    known = all(
        step["pattern"].get("Regex") in _EXPRESSIONS
        and step["behavior"] == "Isolated"
        and not step["invert"]
        for step in by_expression
    )
    others = {step["type"] for step in first} - {"Split", "Digits"}
    return known and not others and bool(by_expression or last["use_regex"])


def _settings(component: Any) -> dict[str, Any]:
    """What a part of a tokenizer is, as tokenizer.json spells it."""
    return dict(json.loads(component.__getstate__())) if component else {}


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > AT_ONCE:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    yield group


def _split(ids: list[int], separator: int) -> list[list[int]]:
    found = []
    start = 0
    for _ in range(ids.count(separator)):
        end = ids.index(separator, start)
        found.append(ids[start:end])
        start = end + 1
    return [*found, ids[start:]]
