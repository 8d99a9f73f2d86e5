"""`llmkit prep --convert`: the rows of a recipe, or of a data file, as JSONL of another format."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from data_prep.converting import Conversion, convert_rows
from data_prep.formats.writing import WRITERS
from data_prep.settings import DataConfig
from llmkit.console import View
from llmkit.errors import UsageError
from llmkit.files import make_folder, remove_empty
from llmkit.recipe import load_recipe
from llmkit.recipe_problems import problems_of
from llmkit.stage_lines import unused_line

RECIPES = (".yaml", ".yml")

_NOT_APPLIED = (
    *("validation", "filters", "markers", "dedup", "contamination", "select", "mixture"),
    *("max_tokens", "overlong"),
)
"""What a recipe may say about rows that only preparing does."""


def convert(
    what: Path, overrides: Sequence[str], target: str, out: Path | None, runs: Path, view: View
) -> Path:
    """Convert rows, and say what became of them.

    Args:
        what: a recipe, of which ``sources``, ``roles`` and ``on_error`` count, and not what is
            held out or would be filtered; or data itself.
        overrides: ``key=value`` words for the recipe; of data, ``data.roles`` and
            ``data.on_error``.
        target: the format to write.
        out: the file to write; by default in the run's directory, or of a data file in the
            working directory.
        runs: where run directories are.
        view: told what became of the rows.

    Returns:
        The file that was written.

    Raises:
        UsageError: the recipe or an override is wrong, or the file is there already.
        DataError: the rows cannot be read or written in this format.
    """
    new: list[Path] = []
    if what.suffix.lower() in RECIPES:
        recipe = load_recipe(what, overrides)
        path = _new(out or runs / recipe.name / f"{target}.jsonl")
        data = recipe.data
        if out is None and target in WRITERS:
            new = make_folder(path.parent)
    else:
        data = _data(what, overrides)
        path = _new(out or Path(f"{_bare_name(what)}.{target}.jsonl"))
    try:
        found = convert_rows(
            data.sources,
            target,
            path,
            roles=data.roles,
            on_error=data.on_error,
            progress=lambda rows: view.count("rows read", rows),
        )
    except BaseException:
        remove_empty(new)
        raise
    finally:
        view.close()
    defaults = {name: field.get_default() for name, field in DataConfig.model_fields.items()}
    left_aside = [f"data.{n}" for n in _NOT_APPLIED if getattr(data, n) != defaults[n]]
    if any(source.weight is not None for source in data.sources):
        left_aside.append("the sources' weights")
    if left_aside:
        view.say(f"rows are written as they were read, without {', '.join(left_aside)}")
    _tell(view, found, path)
    return path


def _bare_name(data: Path) -> str:
    """What a file, a folder or a pattern is called, without endings and stars."""
    name = data.resolve().name.partition(".")[0]
    return re.sub(r"[*?\[\]]", "", name) or "rows"


def _new(path: Path) -> Path:
    if path.exists():
        raise UsageError(f"{path}: is there already. Remove it, or name another file: --out FILE")
    return path


def _data(what: Path, overrides: Sequence[str]) -> DataConfig:
    """The settings for a plain data file; words set them as they do in a recipe."""
    other = next((word for word in overrides if "=" not in word), None)
    if other:
        raise UsageError(
            f"{other!r}: a second file? One file, folder or pattern is converted at a time; a "
            "pattern wants quotes ('data/*.jsonl'), or the shell writes files in its place."
        )
    settings = dict(word.partition("=")[::2] for word in overrides)
    for key in settings:
        if key not in ("data.roles", "data.on_error"):
            raise UsageError(
                f"{key!r}: for a data file, data.roles and data.on_error can be set. Write a "
                "recipe for more."
            )
    given = {key.removeprefix("data."): value for key, value in settings.items()}
    values = {"sources": [{"path": str(what)}]} | given
    try:
        return DataConfig.model_validate(values)
    except ValidationError as error:
        found = problems_of(error, values, DataConfig)
        raise UsageError("; ".join(f"data: {message}" for _, message in found)) from None


def _tell(view: View, found: Conversion, path: Path) -> None:
    for source, how in found.formats.items():
        view.say(f"{source}: {how}")
    if found.unused:
        view.say(unused_line(found.unused))
    for line in found.examples:
        view.say(line)
    dropped = ", ".join(f"{count} {reason}" for reason, count in found.dropped.items())
    view.say(
        f"{path}: {found.rows_written} of {found.rows_in} rows"
        + (f"; dropped: {dropped}" if dropped else "")
        + (f"; {found.rows_merged} with repeated roles merged" if found.rows_merged else "")
    )
