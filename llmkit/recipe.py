"""The recipe: one strict YAML file that says everything about a run.

Strict means: unknown keys are errors with a suggestion, every problem is reported at once with
its line, conflicts between keys are found before anything is loaded, and ``key=value`` words
override dotted paths with the types of the schema.
"""

import difflib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from data_prep.pipeline import DataConfig
from data_prep.sources import SourceConfig
from llmkit.errors import UsageError
from llmkit.evaluation.settings import EvaluationConfig
from llmkit.models.settings import MergeConfig, ModelConfig
from llmkit.training.settings import TrainingConfig
from serve.settings import ServeSettings


class Recipe(BaseModel):
    """Everything about one run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run directory under ``runs/``, and the name the tuned model is served by."""
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    merge: MergeConfig = MergeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serve: ServeSettings = ServeSettings()

    @pydantic.model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        problems = []
        training, data, model = self.training, self.data, self.model
        if training.max_steps is not None and training.warmup_steps >= training.max_steps:
            problems.append(
                f"training.warmup_steps ({training.warmup_steps}) must be below training.max_steps "
                f"({training.max_steps}), or the learning rate never reaches its value"
            )
        if training.evaluate_every and not data.validation:
            problems.append("training.evaluate_every needs rows held out: set data.validation")
        if self.merge.target != "closest" and model.quantization == "none":
            problems.append("merge.target chooses between two only when model.quantization is set")
        if self.serve.max_model_len and self.serve.max_model_len < data.max_tokens:
            problems.append(
                f"serve.max_model_len ({self.serve.max_model_len}) is below data.max_tokens "
                f"({data.max_tokens}): rows it was trained on could not be served"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the YAML file. Relative paths of data files and templates inside it are relative
            to the working directory first, then to the recipe's own folder.
        overrides: words such as ``training.max_steps=30`` or ``data.sources.0.path=a.json``;
            values are read as YAML.

    Raises:
        UsageError: the file is missing, is not YAML, or does not fit the schema; the message
            lists every problem with file, line, and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe (looked in {Path.cwd()}).") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    document = _parse(text, str(path))
    for word in overrides:
        _override(document, word)
    try:
        recipe = Recipe.model_validate(_plain(document))
    except pydantic.ValidationError as error:
        raise UsageError(_explain(error, document, path, overrides)) from None
    return _located(recipe, path.parent)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out."""
    stream = io.StringIO()
    YAML().dump(recipe.model_dump(mode="json"), stream)
    return stream.getvalue()


def recipe_schema() -> dict[str, Any]:
    """The JSON schema that editors use to complete and check recipes."""
    return Recipe.model_json_schema()


def _parse(text: str, name: str) -> CommentedMap:
    try:
        document = YAML().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else "?"
        problem = " ".join(str(error.problem or error.context).split())
        raise UsageError(f"{name}:{line}: not YAML: {problem}") from None
    except Exception as error:  # ruamel raises other kinds for broken tags and characters
        raise UsageError(f"{name}: not YAML: {error}") from None
    if not isinstance(document, CommentedMap):
        raise UsageError(f"{name}: a recipe is a mapping of keys to values; see `recipes/`.")
    return document


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
    value = YAML(typ="safe").load(text) if text else None
    *parents, last = path.split(".")
    node: Any = document
    for step in parents:
        node = _step(node, step, path)
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    elif isinstance(node, Mapping):
        node[last] = value  # type: ignore[index]
    else:
        raise UsageError(f"{word!r}: {'.'.join(parents)!r} holds a value, not a mapping.")


def _step(node: Any, step: str, path: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, step, path)]
    if not isinstance(node, CommentedMap):
        raise UsageError(f"{path!r}: {step!r} is below a plain value.")
    if node.get(step) is None:
        node[step] = CommentedMap()
    return node[step]


def _index(node: Sequence[Any], step: str, path: str) -> int:
    if not step.isdecimal() or int(step) >= len(node):
        raise UsageError(f"{path!r}: {step!r} is not an index into a list of {len(node)}.")
    return int(step)


def _explain(
    error: pydantic.ValidationError, document: CommentedMap, path: Path, overrides: Sequence[str]
) -> str:
    """Every problem of a validation, one a line, with its place."""
    overridden = {word.partition("=")[0] for word in overrides}
    lines = []
    for problem in error.errors(include_url=False):
        location = _real_path(problem["loc"], document)
        dotted = ".".join(map(str, location))
        place = f"{path}:{_line(document, location)}"
        if any(dotted == key or dotted.startswith(f"{key}.") for key in overridden):
            place = "command line"
        lines.append(f"  {place}: {_say(problem, dotted)}")
    unique = list(dict.fromkeys(lines))
    count = f"{len(unique)} problem{'s' if len(unique) > 1 else ''}"
    return f"{path}: {count}\n" + "\n".join(unique)


def _say(problem: Any, dotted: str) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {dotted!r}{_suggest(dotted)}"
    if kind == "missing":
        return f"{dotted!r} is missing"
    if kind == "value_error":
        return str(context.get("error", problem["msg"]))
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{dotted!r}: {message} (found {problem['input']!r})"


def _real_path(location: Sequence[Any], document: Any) -> list[Any]:
    """Drop the names that pydantic adds for the branches of a union."""
    real: list[Any] = []
    node = document
    for index, step in enumerate(location):
        is_last = index == len(location) - 1
        inside = (isinstance(node, Mapping) and (step in node or is_last)) or (
            isinstance(node, list) and isinstance(step, int)
        )
        looks_like_type = isinstance(step, str) and not re.fullmatch(r"[a-z_]+", step)
        if not inside and (looks_like_type or not isinstance(node, Mapping)):
            continue
        real.append(step)
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            node = None
    return real


def _line(document: Any, location: Sequence[Any]) -> int:
    """The line of the deepest part of a path that stands in the file, from 1."""
    line = 1
    node = document
    for step in location:
        if (isinstance(node, CommentedMap) and step in node) or (
            isinstance(node, CommentedSeq) and isinstance(step, int) and step < len(node)
        ):
            position = node.lc.data.get(step) if node.lc.data else None
        else:
            break
        if position:
            line = position[0] + 1
        node = node[step]
    return line


def _suggest(dotted: str) -> str:
    """The nearest keys that exist: at this place first, then anywhere in the schema."""
    parent, _, key = dotted.rpartition(".")
    parent = re.sub(r"\.\d+", "", parent)
    paths = _all_keys(Recipe)
    here = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == parent]
    close = difflib.get_close_matches(key, here, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]!r}?)"
    elsewhere = [path for path in paths if path.rpartition(".")[2] == key]
    elsewhere += difflib.get_close_matches(dotted, paths, n=1, cutoff=0.8)
    if elsewhere:
        return f" (did you mean {elsewhere[0]!r}?)"
    return f" (allowed here: {', '.join(here)})" if here else ""


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for nested in _models_in(field.annotation):
            keys += _all_keys(nested, f"{prefix}{name}.")
    return keys


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models_in(part)]


def _located(recipe: Recipe, folder: Path) -> Recipe:
    """Find files that are named relative to the recipe's own folder."""

    def found(name: str) -> str:
        beside = folder / name
        return str(beside) if not Path(name).exists() and beside.exists() else name

    def source(config: SourceConfig) -> SourceConfig:
        return config.model_copy(update={"path": found(config.path)})

    validation = recipe.data.validation
    data = recipe.data.model_copy(
        update={
            "sources": [source(entry) for entry in recipe.data.sources],
            "validation": source(validation)
            if isinstance(validation, SourceConfig)
            else validation,
        }
    )
    template = recipe.model.chat_template
    model = recipe.model.model_copy(
        update={"chat_template": found(template) if template.endswith(".jinja") else template}
    )
    questions = recipe.evaluation.questions
    evaluation = recipe.evaluation.model_copy(
        update={"questions": found(questions) if questions else None}
    )
    return recipe.model_copy(update={"data": data, "model": model, "evaluation": evaluation})
