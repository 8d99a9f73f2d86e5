"""Whether what a recipe names is there, without loading a model: `llmkit recipe check`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.chat_templates import known_templates
from data_prep.errors import DataError
from data_prep.filters.settings import perplexity_filter
from data_prep.settings import DataConfig
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import find_files, refuse_shared_files
from data_prep.tokenizer import load_tokenizer
from llmkit.beginnings import (
    find_local_tokenizer,
    load_recipe_template,
    refuse_another_vocabulary,
)
from llmkit.errors import UsageError
from llmkit.evaluation.answers import read_questions
from llmkit.models.catalog import Kind, context_length, find_local, refuse_other_kind
from llmkit.recipe import Recipe, read_recipe
from llmkit.recipe_problems import Location, Problem, explain


def check_recipe(path: Path, overrides: Sequence[str] = ()) -> list[str]:
    """Validate a recipe, and look whether what it names is there; as `load_checked`.

    Returns:
        What could not be looked at, a line each: what is not on this machine.
    """
    return list(_unseen(load_checked(path, overrides)))


def load_checked(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, and look whether what it names is there, without importing anything heavy.

    Args:
        path: the YAML file.
        overrides: ``key=value`` words.

    Raises:
        UsageError: every problem with its line; those of the recipe itself before those of what it
            names.
    """
    recipe, document = read_recipe(path, overrides)
    problems = _Problems()
    _look_at_files(recipe.data, problems)
    _look_at_models(recipe.data, problems)
    _look_at_base(recipe, problems)
    _look_at_last_stages(recipe, problems)
    if problems.found:
        raise UsageError(explain(problems.found, document, path, overrides))
    return recipe


@dataclass
class _Problems:
    """What went wrong while looking, and the key that named it."""

    found: list[Problem] = field(default_factory=list)

    @contextmanager
    def at(self, *place: str | int) -> Iterator[None]:
        """Note what goes wrong inside as a problem of this key, and go on."""
        try:
            yield
        except (DataError, UsageError) as error:
            self.found.append((place, str(error)))


def _look_at_files(data: DataConfig, problems: _Problems) -> None:
    for place, source in _sources(data):
        with problems.at(*place):
            find_files(source.path, source.split)
    if not problems.found:
        with problems.at("data", "sources"):
            refuse_shared_files(data.all_sources)


def _sources(data: DataConfig) -> Iterator[tuple[Location, SourceConfig]]:
    """Everything that rows are read from, and its key."""
    for index, source in enumerate(data.sources):
        yield ("data", "sources", index, "path"), source
    if isinstance(data.validation, SourceConfig):
        yield ("data", "validation", "path"), data.validation
    for index, each in enumerate(data.contamination.against if data.contamination else ()):
        yield ("data", "contamination", "against", index), SourceConfig(path=each.path)


def _look_at_models(data: DataConfig, problems: _Problems) -> None:
    for place, name, kind in data_models(data):
        with problems.at(*place):
            refuse_other_kind(name, kind, find_local(name))


def data_models(data: DataConfig) -> Iterator[tuple[Location, str, Kind]]:
    """The models that a person names to look at data: the key, the name, what it must be."""
    if data.dedup.semantic:
        yield ("data", "dedup", "semantic", "model"), data.dedup.semantic.model, EMBEDDER
    if data.contamination and data.contamination.semantic:
        model = data.contamination.semantic.model
        yield ("data", "contamination", "semantic", "model"), model, EMBEDDER
    if data.select and data.select.kind in ("mmr", "k_centre"):
        yield ("data", "select", "model"), data.select.model, EMBEDDER
    scored = perplexity_filter(data.filters)
    if scored and scored.model:
        place = ("data", "filters", data.filters.index(scored), "model")
        yield place, scored.model, "language model"


EMBEDDER: Kind = "sentence embeddings"


def _look_at_base(recipe: Recipe, problems: _Problems) -> None:
    """The base model, and what must fit it: template, teacher, and how long rows may be."""
    model, folder = recipe.model, None
    if model.initialize:
        with problems.at("model", "initialize", "tokenizer"):
            folder = find_local_tokenizer(model)
        with problems.at("model", "chat_template"):
            _look_at_template(recipe, folder)
        _look_at_teacher(recipe, folder, problems)
        return  # its context is the recipe's own, and was compared there
    with problems.at("model", "base"):
        found = find_local(model.base)
        refuse_other_kind(model.base, "language model", found)
        folder = found
    with problems.at("model", "chat_template"):
        _look_at_template(recipe, folder)
    _look_at_teacher(recipe, folder, problems)
    longest = context_length(folder) if folder else None
    lengths: tuple[tuple[Location, int | None], ...] = (
        (("data", "max_tokens"), recipe.data.max_tokens),
        (("serve", "max_model_len"), recipe.serve.max_model_len),
    )
    for place, wanted in lengths:
        if longest and wanted and wanted > longest:
            with problems.at(*place):
                raise UsageError(
                    f"{'.'.join(map(str, place))}: {wanted}, but {model.base} was made for "
                    f"{longest} tokens. Lower it."
                )


def _look_at_teacher(recipe: Recipe, folder: Path | None, problems: _Problems) -> None:
    """A distilled model, and whether it has the vocabulary of the one that trains."""
    distillation = recipe.training.distillation
    if distillation is None:
        return
    with problems.at("training", "distillation", "teacher"):
        teacher = find_local(distillation.teacher)
        refuse_other_kind(distillation.teacher, "language model", teacher)
        if teacher and folder:
            refuse_another_vocabulary(distillation.teacher, teacher, folder)


def _look_at_template(recipe: Recipe, folder: Path | None) -> None:
    """Measure the template on the model's tokenizer where that is here; else whether it exists."""
    choice = recipe.model.chat_template
    if folder:
        load_recipe_template(recipe, load_tokenizer(folder))
    elif choice != "keep" and choice not in known_templates() and not Path(choice).is_file():
        raise UsageError(
            f"chat template {choice!r}: neither a known name ({', '.join(known_templates())}), nor "
            "a file, nor 'keep'."
        )


def _look_at_last_stages(recipe: Recipe, problems: _Problems) -> None:
    questions, template = recipe.evaluation.questions, recipe.serve.chat_template
    if questions:
        with problems.at("evaluation", "questions"):
            read_questions(Path(questions))
    if template and not template.is_file():
        with problems.at("serve", "chat_template"):
            raise UsageError(f"{template}: no such file.")


def _unseen(recipe: Recipe) -> Iterator[str]:
    sources = [each for _, each in _sources(recipe.data)]
    for path in dict.fromkeys(s.path for s in sources if find_files(s.path, s.split) is None):
        yield f"not looked at: data set {path} (`datasets` loads it, maybe from the hub)"
    models = [name for _, name, _ in data_models(recipe.data)]
    distillation, shape = recipe.training.distillation, recipe.model.initialize
    models += [distillation.teacher] if distillation else []
    if shape and find_local_tokenizer(recipe.model) is None:
        yield f"not looked at: tokenizer {shape.tokenizer} (not on this machine yet)"
    for name in dict.fromkeys([*([] if shape else [recipe.model.base]), *models]):
        if find_local(name) is None:
            yield f"not looked at: model {name} (not on this machine yet)"
