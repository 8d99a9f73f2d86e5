"""Sentence embeddings with any sentence-transformers model, on CUDA or the CPU."""

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmkit.errors import UsageError
from llmkit.files import content_hash
from llmkit.models.catalog import Say, refuse_other_kind, resolve

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TEXTS = 4096
"""Texts that are cut into windows and sorted by length at a time."""
BATCH = 32
"""Windows that the model sees at a time."""
SPARE = 8
"""Tokens of a window left free: the pieces of a text may have a few tokens more than the whole."""
MOST_UNKNOWN = 0.1
"""A text of which a larger share of tokens is unknown to the model gets no vector: two texts in a
script that it never saw would be the same to it."""
MOST_SPELLED = 0.4
"""Nor does one of which a larger share of tokens is single letters: to all-MiniLM-L6-v2, which
spells Russian, an answer on teaching children to count and one on central banks are 0.94 alike."""
NOT_READ = {"README.md", "source.json", ".gitattributes"}
"""Files of a model folder that change nothing about its vectors."""


class SentenceEmbedder:
    """A `data_prep.embeddings.Embedder`.

    A model sees a few hundred tokens and drops the rest without a word, so two long texts that
    begin alike would be the same to it. Longer texts are embedded in windows; their vector is the
    mean of the windows' vectors, weighted by tokens, so that every part of a text counts.
    """

    def __init__(self, name: str, model: "SentenceTransformer") -> None:
        self.name = name
        self._model = model
        self._dimensions = model.encode([""], show_progress_bar=False).shape[1]
        self._window = _window(name, model)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: shape ``[texts]``; may be empty, or longer than the model's window.

        Returns:
            Shape ``[texts, dimensions]``: unit vectors, or zeros where the model cannot read the
            text. They do not depend on which texts are embedded together, up to rounding: no
            component of all-MiniLM-L6-v2's differed by more than 3e-7.
        """
        found = np.zeros((len(texts), self._dimensions), np.float32)
        for start in range(0, len(texts), TEXTS):
            some = list(texts[start : start + TEXTS])
            found[start : start + len(some)] = self._embed_some(some)
        return found

    def _embed_some(self, texts: list[str]) -> NDArray[np.float32]:
        cut = self._cut(texts)
        pieces = [piece for windows in cut for piece, _ in windows]
        weights = np.array([tokens for windows in cut for _, tokens in windows], np.float64)
        # encode() sorts by length, so that little is computed for padding.
        vectors = self._model.encode(
            pieces, batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True
        )
        starts = np.cumsum([0, *(len(windows) for windows in cut)])[:-1]
        means = np.add.reduceat(vectors * weights[:, None], starts, axis=0)
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (means / np.where(lengths, lengths, 1)).astype(np.float32)
        return unit

    def _cut(self, texts: list[str]) -> list[list[tuple[str, int]]]:
        """The windows of each text, and what each weighs."""
        if not self._window:
            return [[(text, 1)] for text in texts]
        tokenizer = self._model.tokenizer
        found = tokenizer(
            texts,
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        cut = []
        for text, ids, offsets in zip(
            texts, found["input_ids"], found["offset_mapping"], strict=True
        ):
            unknown = ids.count(tokenizer.unk_token_id)
            if unknown > MOST_UNKNOWN * len(ids) or spelled(text, offsets) > MOST_SPELLED:
                cut.append([("", 0)])
            else:
                cut.append(windows(text, [start for start, _ in offsets], self._window))
        return cut


def load_embedder(
    name: str, device: str = "auto", say: Say = lambda _text: None
) -> SentenceEmbedder:
    """Load a model that embeds sentences.

    Args:
        name: a catalogue name, a sentence-transformers folder, or a hub id.
        device: ``auto`` takes CUDA where there is one; else ``cpu`` or ``cuda``.
        say: told what takes time.

    Raises:
        UsageError: there is no such model, it is not one of sentence-transformers', it needs code
            of its own, it cannot be loaded, or the device is not there.
    """
    found = resolve(name, say)
    refuse_other_kind(name, "sentence embeddings", found.folder)
    import torch
    from sentence_transformers import SentenceTransformer

    from llmkit.models.loading import choose_device, quiet

    quiet()
    place = str(choose_device(device))
    try:
        model = SentenceTransformer(
            str(found.folder),
            device=place,
            local_files_only=True,
            # Rounding to 16 bits would move a similarity by as much as near-duplicates differ.
            model_kwargs={"dtype": torch.float32},
        )
    except Exception as error:  # a broken folder fails in as many ways as it has files
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{found.folder}: cannot be loaded to embed sentences: {words}") from error
    short = found.folder.name if Path(name).expanduser().is_dir() else name
    return SentenceEmbedder(f"{short}@{_hash(found.folder)[:16]}", model)


def spelled(text: str, offsets: Sequence[tuple[int, int]]) -> float:
    """The share of tokens that are one letter of a script with spaces, or a part of a character.

    ASCII does not count, since figures and formulas are rightly read sign by sign.
    """
    single, before = 0, -1
    for start, end in offsets:
        single += start == before or (end - start == 1 and "\u0080" <= text[start] < "\u0e00")
        before = start
    return single / max(1, len(offsets))


def windows(text: str, starts: Sequence[int], size: int) -> list[tuple[str, int]]:
    """Cut a text into pieces of at most ``size`` tokens, between words where there are any.

    Args:
        text: the whole.
        starts: the character at which each token begins.
        size: tokens that a piece may have.

    Returns:
        Pieces that make up the text, and the tokens of each; at least one piece.
    """
    bounds = [0]
    while len(starts) - bounds[-1] > size:
        latest = bounds[-1] + size
        earliest = latest - size // 2
        words = (i for i in range(latest, earliest, -1) if _begins_word(text, starts[i]))
        bounds.append(next(words, latest))
    bounds.append(len(starts))
    places = [0, *(starts[bound] for bound in bounds[1:-1]), len(text)]
    return [
        (text[begin:end], max(1, last - first))
        for (begin, end), (first, last) in zip(pairwise(places), pairwise(bounds), strict=True)
    ]


def _begins_word(text: str, place: int) -> bool:
    return text[place].isspace() or text[place - 1 : place].isspace()


def _window(name: str, model: "SentenceTransformer") -> int:
    """Tokens of text that the model sees at once; 0 when it sees all of any text."""
    longest = model.max_seq_length
    if not longest or math.isinf(longest):
        return 0
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(
            f"model {name!r} has a tokenizer without a tokenizer.json; llmkit could not tell which "
            "part of a long text it sees. Save it once with a fast tokenizer, or name another."
        )
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    taken = len(tokenizer(prompt)["input_ids"]) + SPARE
    if longest < 2 * taken:
        raise UsageError(
            f"model {name!r} sees {longest} tokens at once, of which its prompt and marks take "
            f"{taken}: too few to embed text with."
        )
    return int(longest) - taken


def _hash(folder: Path) -> str:
    """A hash of every file that the vectors depend on."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    lines = [f"{path} {content_hash(folder / path)}" for path in files if path.name not in NOT_READ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
