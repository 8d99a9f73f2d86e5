"""Encode text word by word and remember the words: the same ids for a third of the work.

Where a text may be cut for that, `word_parts` says.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import tokenizers

from data_prep.word_parts import Parting, parting

LONGEST = 40
"""Characters of a part worth remembering."""
MOST = 200_000
"""Parts remembered, some 50 MB; then it begins anew."""
AT_ONCE = 4_000_000
"""Characters encoded at once, so that a large text's parts do not fill the memory."""
BLOCK = 64
"""New parts encoded as one text: one at a time would cost more than encoding all of it plainly."""


class WordCache:
    """Remembers the ids of words; what it answers never depends on what it remembers."""

    def __init__(self, parting: Parting) -> None:
        self._parting = parting
        (self._separator_id,) = parting.backend.encode(
            parting.separator, add_special_tokens=False
        ).ids
        self._known: dict[str | int, list[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, as the tokenizer itself encodes it without adding any."""
        ids: list[list[int]] = []
        for group in _groups(texts):
            ids += self._encode(group)
        return ids

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        parted = list(map(self._parting.parts, texts))
        known = self._known
        unknown = set[str | int]().union(*parted) - known.keys()
        new = [part for part in unknown if isinstance(part, str)]
        known.update(zip(new, self._encode_new(new), strict=True))
        known.update((part, [part]) for part in unknown if isinstance(part, int))
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
        parting = self._parting
        joined = parting.backend.encode_batch_fast(
            [parting.separator.join(block) for block in blocks], add_special_tokens=False
        )
        for block, encoding in zip(blocks, joined, strict=True):
            found = _split(encoding.ids, self._separator_id)
            if len(found) != len(block):  # a part holds the separator, or makes a token with it
                alone = parting.backend.encode_batch_fast(block, add_special_tokens=False)
                found = [each.ids for each in alone]
            yield from found


def word_cache(backend: tokenizers.Tokenizer) -> WordCache | None:
    """A cache for a tokenizer, or None where words cannot be known to be encoded apart."""
    parted = parting(backend)
    return WordCache(parted) if parted else None


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
