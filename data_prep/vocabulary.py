"""New tokens for a vocabulary: found in a corpus, or named by a person.

A new token joins two tokens that there already are, as one more merge behind all others: byte-pair
encoding (Sennrich et al. 2016, arXiv 1508.07909) simply continued. So nothing old can change: a
text is first cut exactly as before, and only then are pieces joined::

    before      ▁k  uber  netes  ▁pod
    merge 1     ▁kuber    netes  ▁pod      ▁k + uber      -> ▁kuber       (a new row)
    merge 2     ▁kubernetes      ▁pod      ▁kuber + netes -> ▁kubernetes  (a new row)

Every new token stands for the old pieces it replaces, a text without new tokens has the ids it
had, and decoding gives what it gave. Tokens that are added beside the model instead
(``add_tokens``) keep none of this: they are cut out before the words are, inside longer words too,
leave a lone space in front, and in a byte-level vocabulary decode letters such as é wrongly.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise

import numpy as np

from data_prep.errors import DataError
from data_prep.new_tokens import SPACE, NewToken, Pair, Spelling
from data_prep.tokenizer import Tokenizer

BATCH = 256
"""Texts encoded at once, on all cores; decides speed, not the result."""


def propose_tokens(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    count: int,
    min_frequency: int = 5,
    progress: Callable[[int], None] = lambda _texts: None,
) -> list[NewToken]:
    """Find the tokens that shorten a corpus most.

    Each step joins the two neighbours inside a word that stand together most often, ties by the
    smaller ids; the corpus gets shorter by exactly the sum of the gains. Left alone: digits, white
    space (but one space in front), special tokens, and pairs whose join is a token already.

    Args:
        tokenizer: a BPE tokenizer.
        texts: the corpus, read once; only its distinct words are held in memory.
        count: how many tokens at most.
        min_frequency: a pair that stands together less often is not joined: nothing could be
            learned about it.
        progress: told how many more texts were read.

    Returns:
        At most ``count`` tokens, in the order of their merges.

    Raises:
        DataError: the tokenizer cannot be extended, or the corpus is empty.
    """
    spelling = Spelling.of(tokenizer)
    words = _count_words(tokenizer, spelling, texts, progress)
    return _Joins(spelling, words).choose(count, min_frequency)


def tokens_for_words(tokenizer: Tokenizer, words: Iterable[str]) -> list[NewToken]:
    """Make one token of each word, with a space in front and without.

    A word of more than two pieces needs the tokens in between as well: ``▁kuber`` above.

    Args:
        tokenizer: a BPE tokenizer.
        words: each as it stands in text; one that begins with a space is meant with it only.

    Returns:
        The tokens, in the order of their merges; none for words that are one token already.

    Raises:
        DataError: the tokenizer cannot be extended, or a word can never be one token: its
            pre-tokeniser cuts it, as at the space in ``New York``.
    """
    spelling = Spelling.of(tokenizer)
    made: dict[str, NewToken] = {}
    merges: dict[Pair, int] = {}
    for word in words:
        for form in spelling.forms(word):
            pieces = _pieces(tokenizer, spelling, form)
            ids = _join(pieces, merges)
            while len(ids) > 1:
                pair = next((p for p in pairwise(ids) if spelling.joined(p) is None), None)
                if pair is None:
                    raise DataError(
                        f"{form!r} cannot be one token: its pieces "
                        f"{[spelling.tokens[i] for i in ids]} join to other tokens. Leave it out."
                    )
                merges[pair] = spelling.add(pair)
                token = spelling.tokens[merges[pair]]
                made[token] = spelling.new_token(pair, gain=0)
                ids = _join(ids, merges)
    return list(made.values())


class _Joins:
    """The distinct words of a corpus while their pieces are joined, most frequent pair first."""

    def __init__(self, spelling: Spelling, words: Counter[tuple[int, ...]]) -> None:
        self._spelling = spelling
        self._words = [list(word) for word in words]
        self._counts = list(words.values())
        self._pairs: dict[Pair, int] = defaultdict(int)
        self._where: dict[Pair, set[int]] = defaultdict(set)
        for index in range(len(self._words)):
            self._account(index, 1)
        self._heap = [(-frequency, pair) for pair, frequency in self._pairs.items()]
        heapq.heapify(self._heap)

    def choose(self, count: int, min_frequency: int) -> list[NewToken]:
        """Join until there are enough tokens, or no pair is frequent enough."""
        found: list[NewToken] = []
        while self._heap and len(found) < count:
            negative, pair = heapq.heappop(self._heap)
            if -negative != self._pairs[pair]:  # it got rarer since it was put there
                if self._pairs[pair] > 0:
                    heapq.heappush(self._heap, (-self._pairs[pair], pair))
                continue
            if -negative < min_frequency:
                break
            if self._spelling.is_worth(pair):
                index = self._spelling.add(pair)
                found.append(self._spelling.new_token(pair, self._apply(pair, index)))
        return found

    def _apply(self, pair: Pair, joined: int) -> int:
        """Join a pair wherever it stands; answers how many tokens that saved."""
        saved = 0
        touched: set[Pair] = set()
        for index in sorted(self._where[pair]):
            word = self._words[index]
            self._account(index, -1)
            self._words[index] = _replace(word, pair, joined)
            self._account(index, 1)
            saved += (len(word) - len(self._words[index])) * self._counts[index]
            touched.update(p for p in pairwise(self._words[index]) if joined in p)
        for new in sorted(touched):
            heapq.heappush(self._heap, (-self._pairs[new], new))
        return saved

    def _account(self, index: int, sign: int) -> None:
        """Count a word's pairs in, or out."""
        for pair in pairwise(self._words[index]):
            self._pairs[pair] += sign * self._counts[index]
            if sign > 0:
                self._where[pair].add(index)
            else:
                self._where[pair].discard(index)


def _replace(word: Sequence[int], pair: Pair, joined: int) -> list[int]:
    """Join a pair from left to right: of ``a a a`` the first two."""
    result: list[int] = []
    for index in word:
        if result and (result[-1], index) == pair:
            result[-1] = joined
        else:
            result.append(index)
    return result


def _join(ids: Sequence[int], merges: dict[Pair, int]) -> list[int]:
    """Apply merges, the earliest first; later ones have larger ids."""
    word = list(ids)
    while found := [pair for pair in pairwise(word) if pair in merges]:
        pair = min(found, key=merges.__getitem__)
        word = _replace(word, pair, merges[pair])
    return word


def _pieces(tokenizer: Tokenizer, spelling: Spelling, form: str) -> tuple[int, ...]:
    encoding = tokenizer.backend.encode(form, add_special_tokens=False)
    units = _units(spelling, encoding.ids, encoding.word_ids)
    if len(units) > 1 or not spelling.alone.isdisjoint(encoding.ids):
        cut = [tokenizer.decode(unit) for unit in units]
        raise DataError(
            f"{form!r} cannot be one token: this tokenizer always cuts it, into {cut}. "
            "Name words that it keeps together."
        )
    return tuple(encoding.ids)


def _count_words(
    tokenizer: Tokenizer,
    spelling: Spelling,
    texts: Iterable[str],
    progress: Callable[[int], None],
) -> Counter[tuple[int, ...]]:
    """How often each word of more than one piece stands in the corpus."""
    words: Counter[tuple[int, ...]] = Counter()
    rest = iter(texts)
    characters = 0
    while batch := list(islice(rest, BATCH)):
        characters += sum(map(len, batch))
        for encoding in tokenizer.backend.encode_batch(batch, add_special_tokens=False):
            units = _units(spelling, encoding.ids, encoding.word_ids)
            words.update(unit for unit in units if len(unit) > 1)
        progress(len(batch))
    if not characters:
        raise DataError("the corpus is empty: there is nothing to find tokens in.")
    return words


def _units(
    spelling: Spelling, ids: Sequence[int], words: Sequence[int | None]
) -> list[tuple[int, ...]]:
    """Cut a text's ids between words: no token may reach across."""
    if not ids:
        return []
    flat = np.array([-1 if word is None else word for word in words])
    cut = flat[1:] != flat[:-1]
    if not spelling.byte_level:  # the words of such a tokenizer are whole texts
        cut |= np.array([spelling.tokens[index].startswith(SPACE) for index in ids[1:]], bool)
    edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(ids)]
    return [tuple(ids[start:end]) for start, end in pairwise(edges)]
