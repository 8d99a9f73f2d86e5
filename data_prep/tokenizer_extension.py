"""Write a tokenizer's files with new tokens behind the old ones."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.folders import new_folder
from data_prep.new_tokens import NewToken, refuse_other_models
from data_prep.tokenizer import Tokenizer, load_tokenizer

CARRIED = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files that stay as they are. ``vocab.json``, ``merges.txt`` and ``tokenizer.model`` say again
what ``tokenizer.json`` says, and would be without the new tokens: they are left behind."""
CARRIED_FOLDER = "additional_chat_templates"


def extend_tokenizer(folder: Path, tokens: Sequence[NewToken], out: Path) -> Tokenizer:
    """Write a tokenizer with new tokens into a new folder.

    Args:
        folder: where the old one is.
        tokens: in the order of their merges.
        out: a new folder.

    Raises:
        DataError: ``out`` is not empty, or the tokens do not fit the tokenizer.
    """
    with new_folder(out) as beside:
        write_extended(folder, tokens, beside)
    return load_tokenizer(out)


def write_extended(folder: Path, tokens: Sequence[NewToken], into: Path) -> list[int]:
    """Write a tokenizer's files with new tokens into a folder that is being filled.

    The new ids follow the largest old one. Added tokens are entered into the model's vocabulary as
    well: where their ids lay behind it, readers would otherwise count them up from its new end.

    Returns:
        The id of every new token.

    Raises:
        DataError: a token is there already, joins tokens that are not, or an old id would change.
    """
    old = load_tokenizer(folder)
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = described["model"]
    refuse_other_models(old, model)
    before = old.backend.get_vocab(with_added_tokens=True)
    vocabulary: dict[str, int] = model["vocab"]
    vocabulary.update({entry["content"]: entry["id"] for entry in described["added_tokens"]})
    first = max(before.values()) + 1
    as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
    for index, new in enumerate(tokens, first):
        _check(new, vocabulary)
        vocabulary[new.token] = index
        model["merges"].append(f"{new.left} {new.right}" if as_text else [new.left, new.right])
    model["vocab"] = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    (into / "tokenizer.json").write_text(text, encoding="utf-8")
    for name in CARRIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, into / name)
    if (folder / CARRIED_FOLDER).is_dir():
        shutil.copytree(folder / CARRIED_FOLDER, into / CARRIED_FOLDER)
    ids = list(range(first, first + len(tokens)))
    _refuse_other_ids(into, before | dict(zip([new.token for new in tokens], ids, strict=True)))
    return ids


def _check(new: NewToken, vocabulary: dict[str, Any]) -> None:
    if new.token in vocabulary:
        raise DataError(f"{new.token!r} is a token of this vocabulary already.")
    missing = next((part for part in (new.left, new.right) if part not in vocabulary), None)
    if missing is not None or new.left + new.right != new.token:
        raise DataError(
            f"{new.token!r} is not made of two tokens of this vocabulary "
            f"({new.left!r} + {new.right!r}): it was found for another tokenizer."
        )


def _refuse_other_ids(folder: Path, expected: dict[str, int]) -> None:
    found = load_tokenizer(folder).backend.get_vocab(with_added_tokens=True)
    wrong = next((token for token in sorted(expected) if found.get(token) != expected[token]), None)
    if wrong is not None or len(found) != len(expected):
        raise DataError(
            f"extending would change the vocabulary that there was: {wrong!r} would have id "
            f"{found.get(wrong or '')} in place of {expected.get(wrong or '')}. Nothing was kept."
        )
