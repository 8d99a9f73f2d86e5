"""Where the files are that a recipe names: beside it, or in the working directory."""

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.settings import DataConfig
from data_prep.sources.config import SourceConfig
from llmkit.errors import UsageError

if TYPE_CHECKING:
    from llmkit.recipe import Recipe


@dataclass(frozen=True)
class Finder:
    """Finds what a recipe names, beside it or in the working directory."""

    folder: Path
    """Where the recipe is."""

    def file(self, name: str) -> str:
        """The absolute path of a file; the name itself where there is none.

        Raises:
            UsageError: there are two.
        """
        here, beside = Path(name).absolute(), self.folder.absolute() / name
        if here.exists() and beside.exists() and not here.samefile(beside):
            raise UsageError(
                f"{name!r} is both {here} and {beside}. Write the absolute path of "
                "the one you mean."
            )
        there = [path for path in (here, beside) if path.exists()]
        return os.path.normpath(there[0]) if there else name

    def source(self, config: SourceConfig) -> SourceConfig:
        """A source of rows with an absolute path, or pattern of paths."""
        path = self.file(config.path)
        if glob.has_magic(path) and not Path(path).exists():
            path = _pattern(path, self.folder)
        return config.model_copy(update={"path": path})

    def model(self, name: str) -> str:
        """A model's folder; a name without a slash is of the catalogue."""
        return self.file(name) if "/" in name else name


def located(recipe: "Recipe", folder: Path) -> "Recipe":
    """Find the files that a recipe names, beside it or in the working directory.

    Their paths become absolute, so that the recipe means the same from everywhere.

    Raises:
        UsageError: a relative path names one file in the working directory and another beside it.
    """
    finder = Finder(folder)
    found, source, named = finder.file, finder.source, finder.model
    model, serve, training = recipe.model, recipe.serve, recipe.training
    shape, distillation = model.initialize, training.distillation
    if shape:
        shape = shape.model_copy(update={"tokenizer": found(shape.tokenizer)})
    if distillation:
        distillation = distillation.model_copy(update={"teacher": named(distillation.teacher)})
    questions = recipe.evaluation.questions
    template = model.chat_template
    return recipe.model_copy(
        update={
            "data": _located_data(recipe.data, found, source),
            "model": model.model_copy(
                update={
                    "base": named(model.base),
                    "initialize": shape,
                    "chat_template": found(template) if template.endswith(".jinja") else template,
                }
            ),
            "training": training.model_copy(update={"distillation": distillation}),
            "evaluation": recipe.evaluation.model_copy(
                update={"questions": found(questions) if questions else None}
            ),
            "serve": serve.model_copy(
                update={
                    name: Path(found(str(path)))
                    for name in ("chat_template", "adapters_folder")
                    if (path := getattr(serve, name))
                }
            ),
        }
    )


def _pattern(pattern: str, folder: Path) -> str:
    """A pattern of files as an absolute one, in the working directory or in ``folder``."""
    # A folder may have a pattern's signs in its own name.
    ways = [Path(glob.escape(str(root)), pattern) for root in (Path.cwd(), folder.absolute())]
    # Not Path.glob: it finds hidden files, and sources do not.
    there = [way for way in ways if any(glob.iglob(str(way), recursive=True))]  # noqa: PTH207
    if len({os.path.realpath(way) for way in there}) > 1:
        raise UsageError(
            f"{pattern!r} finds files as {there[0]} and as {there[1]}. Write the absolute path of "
            "the ones you mean."
        )
    return os.path.normpath(there[0]) if there else pattern


def _located_data(
    data: DataConfig,
    found: Callable[[str], str],
    source: Callable[[SourceConfig], SourceConfig],
) -> DataConfig:
    """Find the files that the data names: sources, evaluation sets, folders of models."""

    def with_model(config: Any) -> Any:
        name = getattr(config, "model", None)
        if config is None or not name or "/" not in name:
            return config
        return config.model_copy(update={"model": found(name)})

    contamination = data.contamination
    if contamination:
        sets = [
            each.model_copy(update={"path": source(SourceConfig(path=each.path)).path})
            for each in contamination.against
        ]
        semantic = with_model(contamination.semantic)
        contamination = contamination.model_copy(update={"against": sets, "semantic": semantic})
    dedup = data.dedup.model_copy(update={"semantic": with_model(data.dedup.semantic)})
    validation = data.validation
    return data.model_copy(
        update={
            "sources": [source(entry) for entry in data.sources],
            "validation": source(validation)
            if isinstance(validation, SourceConfig)
            else validation,
            "filters": tuple(with_model(entry) for entry in data.filters),
            "dedup": dedup,
            "contamination": contamination,
            "select": with_model(data.select),
        }
    )
