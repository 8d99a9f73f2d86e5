"""What a recipe begins with: a model that is there or is made, its tokenizer and its template."""

import hashlib
from pathlib import Path

from data_prep.chat_templates import ChatTemplate, load_template, without_turns
from data_prep.errors import DataError
from data_prep.tokenizer import Tokenizer, load_tokenizer
from llmkit import stage_lines
from llmkit.console import View
from llmkit.errors import UsageError
from llmkit.files import whole_folder
from llmkit.models.catalog import ResolvedModel, Say, find_local, resolve, resolve_language_model
from llmkit.models.settings import MADE_HERE, ModelConfig
from llmkit.recipe import Recipe
from llmkit.run import Run, code_hash, flatten, package_inputs


def make_new_model(recipe: Recipe, run: Run, view: View) -> ResolvedModel:
    """The model that a recipe begins with at random, in the run's ``base/``; made if it must be.

    Raises:
        DataError: its tokenizer cannot be read.
        UsageError: it has no tokenizer, or does not fit in memory.
    """
    shape = recipe.model.initialize
    if shape is None:
        raise ValueError("the recipe begins with a base")
    tokenizer_folder = find_tokenizer(recipe.model, view.say)
    tokenizer = load_tokenizer(tokenizer_folder)
    inputs = flatten(shape.model_dump(mode="json", exclude={"tokenizer"}), "initialize.")
    inputs |= {
        "tokenizer": tokenizer.content_hash,
        "chat_template": hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest(),
        "code": code_hash("llmkit/models/initializing.py"),
        **package_inputs("torch", "transformers"),
    }

    def work() -> dict[str, object]:
        from llmkit.models.initializing import initialize

        with (
            view.working("making a model with random weights"),
            whole_folder(run.folder / MADE_HERE) as folder,
        ):
            return initialize(shape, tokenizer_folder, folder)

    outcome = run.stage("initialize", inputs, [MADE_HERE], work)
    view.stage("initialize", stage_lines.initialize_line(outcome.figures), outcome)
    return ResolvedModel(f"{recipe.name}-{MADE_HERE}", run.folder / MADE_HERE)


def find_tokenizer(model: ModelConfig, say: Say) -> Path:
    """The folder of the tokenizer that rows are read with, fetched when needed.

    Raises:
        UsageError: there is none of that name.
    """
    if model.initialize is None:
        return resolve_language_model(model.base, say).folder
    folder = find_local_tokenizer(model)
    return folder or resolve(model.initialize.tokenizer, say).folder


def find_local_tokenizer(model: ModelConfig) -> Path | None:
    """The folder of the tokenizer, without fetching anything; None when it must be fetched.

    Raises:
        UsageError: no model can have the name, or it is that of a folder without a tokenizer.
    """
    if model.initialize is None:
        return find_local(model.base)
    name = model.initialize.tokenizer
    folder = Path(name).expanduser()
    if not folder.is_dir():
        try:
            return find_local(name)
        except UsageError as error:
            make = f"`llmkit tokenizer train CORPUS --out {name}` makes a tokenizer."
            raise UsageError(f"{error} {make}") from None
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"model.initialize.tokenizer: {folder}: no tokenizer.json. `llmkit tokenizer train "
            "CORPUS --out FOLDER` makes one."
        )
    return folder


def load_recipe_template(recipe: Recipe, tokenizer: Tokenizer) -> ChatTemplate:
    """The chat template of a recipe, or for pre-training what is saved in its place.

    Raises:
        DataError: it cannot be trained and served with, or there is none and the method needs one.
    """
    model = recipe.model
    if recipe.training.method == "pretrain":
        return without_turns(model.chat_template, tokenizer, model.template_date)
    try:
        return load_template(model.chat_template, tokenizer, model.template_date)
    except DataError as error:
        if tokenizer.chat_template is None and model.chat_template == "keep":
            raise DataError(f"{error} Or learn plain text: training.method=pretrain.") from None
        raise


def refuse_another_vocabulary(teacher: str, teacher_folder: Path, folder: Path) -> None:
    """Refuse a teacher whose predictions are about other tokens than those of the model it teaches.

    Args:
        teacher: what the person calls it.
        teacher_folder: where it is.
        folder: of the tokenizer of the model that trains.

    Raises:
        UsageError: a token has another id in one than in the other.
    """
    theirs, ours = (load_tokenizer(each).backend.get_vocab() for each in (teacher_folder, folder))
    if theirs == ours:
        return
    other = sorted((i, t) for t, i in ours.items() if theirs.get(t) != i)
    other = other or sorted((i, t) for t, i in theirs.items() if ours.get(t) != i)
    token = other[0][1]
    raise UsageError(
        f"training.distillation.teacher: {teacher} has another vocabulary ({len(theirs)} tokens) "
        f"than the model that it teaches ({len(ours)}): {len(other)} tokens differ, the first is "
        f"{token!r} ({_id(ours.get(token))} here, {_id(theirs.get(token))} there), so the "
        "probabilities of the two cannot be compared. Choose a teacher of the same family, or "
        "train on texts that it wrote: training.method=sft."
    )


def _id(index: int | None) -> str:
    return "no such token" if index is None else f"id {index}"
