"""A recipe and its run directory, held together while stages work on them."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from data_prep.chat_templates import ChatTemplate
from data_prep.prepared import PreparedDataset
from data_prep.tokenizer import load_tokenizer
from llmkit.beginnings import find_tokenizer, load_recipe_template, make_new_model
from llmkit.console import View
from llmkit.errors import UsageError
from llmkit.files import write_text
from llmkit.models.catalog import ResolvedModel, resolve_language_model
from llmkit.recipe import Recipe, dump_recipe, load_recipe
from llmkit.run import Run


@dataclass
class Project:
    """A recipe, its run directory, and what both need."""

    recipe: Recipe
    run: Run
    view: View
    _open: ExitStack = field(default_factory=ExitStack)
    _before: tuple[str, dict[str, Any]] = field(default=("", {}), init=False)

    @cached_property
    def model(self) -> ResolvedModel:
        """The base model, fetched or made when needed."""
        if self.recipe.model.initialize:
            return make_new_model(self.recipe, self.run, self.view)
        with self.view.working(f"finding {self.recipe.model.base}"):
            return resolve_language_model(self.recipe.model.base, self.view.say)

    @cached_property
    def teacher(self) -> ResolvedModel | None:
        """The model that is distilled, fetched when needed."""
        distillation = self.recipe.training.distillation
        if distillation is None:
            return None
        with self.view.working(f"finding {distillation.teacher}"):
            return resolve_language_model(distillation.teacher, self.view.say)

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template that data is rendered with, saved and served."""
        model = self.recipe.model  # one that begins at random need not be made for it
        folder = find_tokenizer(model, self.view.say) if model.initialize else self.model.folder
        return load_recipe_template(self.recipe, load_tokenizer(folder))

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.run.folder

    @property
    def report_path(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    def output_hash(self, stage: str, output: str) -> str:
        """The recorded hash of a stage's output.

        Raises:
            UsageError: the stage was not done yet, or something else changed what it left.
        """
        record = self.run.record(stage)
        command = f"llmkit {stage} {'RECIPE' if stage in ('prep', 'train') else self.folder}"
        if record is None or not (self.folder / output).exists():
            raise UsageError(
                f"{self.folder}: {output}/ is not there yet; `{command}` makes it. "
                "`llmkit run RECIPE` does every stage."
            )
        damage = self.run.damage(stage)
        if damage:
            raise UsageError(f"{self.folder}: {'; '.join(damage)}. `{command}` makes it again.")
        return str(record["outputs"][output]["sha256"])

    def data(self) -> PreparedDataset:
        """The prepared data set.

        Raises:
            UsageError: it is not there, or something else changed it.
        """
        self.output_hash("prep", "data")
        return PreparedDataset.open(self.folder / "data")

    def write_report(self) -> None:
        """Write the run's HTML report from what the stages left."""
        from llmkit.report.html import render

        write_text(self.report_path, render(self.folder))

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self.run)
            path = self.folder / "recipe.yaml"
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            self._before = before, self.run.manifest()
            write_text(path, dump_recipe(self.recipe))
            self._open = opening.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Write the report, of what there is when a stage failed, and let the run go."""
        self.view.close()
        with self._open:
            if error is None:
                self.write_report()
                return
            with suppress(Exception):  # what failed first is what a person must read
                self._keep_recipe_of_what_is_there()
                if self.run.manifest()["stages"]:
                    self.write_report()

    def _keep_recipe_of_what_is_there(self) -> None:
        """Take the recipe back with which no stage was done: there is nothing it describes."""
        recipe, manifest = self._before
        path = self.folder / "recipe.yaml"
        if self.run.manifest() != manifest:
            return
        if manifest["stages"] and recipe:
            write_text(path, recipe)
        elif not manifest["stages"]:
            path.unlink(missing_ok=True)


def open_run(folder: Path, view: View) -> Project:
    """The project of an existing run directory.

    Raises:
        UsageError: there is no run there.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UsageError(f"{folder}: not a run directory (no recipe.yaml). Try: llmkit run RECIPE")
    return Project(load_recipe(folder / "recipe.yaml"), Run(folder), view)
