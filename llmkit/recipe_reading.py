"""A YAML file and ``key=value`` words become validated settings; or all problems are said."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError

from data_prep.sources.kinds import kind_of
from llmkit.errors import UsageError
from llmkit.recipe_problems import (
    Problem,
    conflicts_of,
    explain,
    infinite_numbers,
    problems_of,
    without_unknown_keys,
)

Settings = TypeVar("Settings", bound=BaseModel)

TRAINS = ("model", "data")
"""Keys by which a recipe of a training is known."""
GENERATES = ("seeds", "teacher")
"""And one of a generation."""


def looks_like(path: Path, *keys: str) -> bool:
    """Whether all of some keys stand in a recipe, without reading it as YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return all(re.search(rf"^{key}\s*:", text, re.MULTILINE) for key in keys)


def read_document(
    path: Path, overrides: Sequence[str], model: type[Settings]
) -> tuple[Settings, CommentedMap]:
    """Read a YAML file, set what the words say, and validate it.

    Types are taken strictly: ``"30"``, ``30.0`` and ``true`` are not the integer 30.

    Args:
        path: the file.
        overrides: ``key=value`` words; values are read as YAML.
        model: what it must fit.

    Returns:
        The settings, and the document, which knows the line of every key.

    Raises:
        UsageError: the file is missing, is not YAML, or does not fit the schema; the message
            lists every problem with file, line, and what is allowed.
    """
    kind = kind_of(path)
    if kind is not None and path.is_file():
        raise UsageError(
            f"{path}: this is data. A recipe is a YAML file that names it in data.sources; see "
            "recipes/ for some. `llmkit prep DATA --convert FORMAT` needs none."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe (looked in {Path.cwd()}).") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a text file (byte {error.start} is not UTF-8).") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from None
    document = _parse(text, str(path))
    for word in overrides:
        _override(document, word)
    plain = _plain(document)
    problems = list(infinite_numbers(plain))
    try:
        found = model.model_validate_json(json.dumps(plain, default=str), strict=True)
    except pydantic.ValidationError as error:
        problems += problems_of(error, plain, model)
        if not conflicts_of(error):
            problems += _conflicts_besides(error, plain, model)
    if problems:
        raise UsageError(explain(problems, document, path, overrides))
    return found, document


def _conflicts_besides(
    error: pydantic.ValidationError, plain: Any, model: type[BaseModel]
) -> list[Problem]:
    """Conflicts between the keys that are known; with unknown ones none are looked for."""
    known = without_unknown_keys(error, plain, model)
    try:
        model.model_validate_json(json.dumps(known, default=str), strict=True)
    except pydantic.ValidationError as other:
        return conflicts_of(other)
    return []


def _parse(text: str, name: str) -> CommentedMap:
    try:
        document = YAML().load(text)
    except DuplicateKeyError as error:
        key = re.search(r'duplicate key "(.*?)"', str(error.problem))
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UsageError(f"{name}:{line}: {key[1] if key else 'a key'!r} stands twice.") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else "?"
        problem = " ".join(str(error.problem or error.context).split())
        raise UsageError(f"{name}:{line}: not YAML: {problem}") from None
    except Exception as error:  # ruamel raises other kinds for broken tags and characters
        raise UsageError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        raise UsageError(f"{name}: the file is empty; see `recipes/` for a recipe.")
    if not isinstance(document, CommentedMap):
        raise UsageError(
            f"{name}: a recipe is a mapping of keys to values, not a {_kind(document)}; "
            "see `recipes/`."
        )
    return document


def _kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "single value"


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return node


def _override(document: CommentedMap, word: str) -> None:
    """Set one dotted path to a value, in place."""
    path, equals, text = word.partition("=")
    if not equals or not path:
        raise UsageError(
            f"{word!r}: overrides are written key=value, for example training.epochs=2"
        )
    try:
        # A word of the command line has no comments: "#" belongs to the value.
        value = text if " #" in text else YAML(typ="safe").load(text) if text else None
    except Exception as error:
        raise UsageError(f"{word!r}: the value is not YAML; quote it if it is text.") from error
    *parents, last = path.split(".")
    node: Any = document
    for step in parents:
        node = _step(node, step, path)
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UsageError(f"{word!r}: {'.'.join(parents)!r} holds a value, not a mapping.")


def _step(node: Any, step: str, path: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, step, path)]
    if not isinstance(node, dict):
        raise UsageError(f"{path!r}: {step!r} is below a plain value.")
    if node.get(step) is None:
        node[step] = CommentedMap()
    return node[step]


def _index(node: Sequence[Any], step: str, path: str) -> int:
    if not step.isdecimal() or int(step) >= len(node):
        raise UsageError(f"{path!r}: {step!r} is not an index into a list of {len(node)}.")
    return int(step)
