"""What is wrong with a recipe, in words: the place, what is allowed, and the nearest key.

pydantic says where a value failed in terms of its schema; a person looks for a line of a file.
"""

import copy
import difflib
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel
from ruamel.yaml.comments import CommentedMap, CommentedSeq

Location = tuple[str | int, ...]
"""Keys and indices from the top of a recipe down."""
Problem = tuple[Location, str]
"""Where in a recipe, and what is wrong there."""

OTHER_TOOLS = {
    "batch_size": "training.batch.rows",
    "micro_batch_size": "training.batch.rows",
    "per_device_train_batch_size": "training.batch.rows",
    "gradient_accumulation_steps": "training.batch.accumulate",
    "lr": "training.learning_rate",
    "lr_scheduler": "training.schedule",
    "lr_scheduler_type": "training.schedule",
    "num_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "lora_r": "training.adapter.rank",
    "lora_alpha": "training.adapter.alpha",
    "lora_dropout": "training.adapter.dropout",
    "lora_target_modules": "training.adapter.targets",
    "target_modules": "training.adapter.targets",
    "base_model": "model.base",
    "model_name_or_path": "model.base",
    "load_in_4bit": "model.quantization",
    "load_in_8bit": "model.quantization",
    "datasets": "data.sources",
    "max_length": "data.max_tokens",
    "sequence_len": "data.max_tokens",
    "cutoff_len": "data.max_tokens",
    "val_set_size": "data.validation",
    "sample_packing": "data.packing",
}
"""What TRL, axolotl and LLaMA-Factory call things -> the key here."""


class Conflicts(ValueError):
    """Settings that are each allowed and do not fit together, with the place of each."""

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__("; ".join(message for _, message in found))
        self.found = found


def conflicts_of(error: pydantic.ValidationError) -> list[Problem]:
    """The conflicts among what a validation found."""
    found = (problem.get("ctx", {}).get("error") for problem in error.errors(include_url=False))
    return [each for one in found if isinstance(one, Conflicts) for each in one.found]


def without_unknown_keys(
    error: pydantic.ValidationError, plain: Any, model: type[BaseModel]
) -> Any:
    """A document without the keys that a validation did not know."""
    known = copy.deepcopy(plain)
    for problem in error.errors(include_url=False):
        if problem["type"] == "extra_forbidden":
            (*parents, last), union, choice = _real_place(problem["loc"], model)
            if union is not None and choice != _choice_kind(_value_at(plain, union)):
                continue  # another kind of value is meant
            node = known
            for step in parents:
                node = node[step]
            node.pop(last, None)
    return known


def problems_of(
    error: pydantic.ValidationError, plain: Any, model: type[BaseModel]
) -> list[Problem]:
    """Say what a validation found, once for a value that fits no choice of a union.

    Args:
        error: what pydantic raised.
        plain: the document that was validated.
        model: what it was validated against.
    """
    found: list[Problem] = []
    choices: dict[Location, list[tuple[str, Location, str]]] = {}
    for problem in error.errors(include_url=False):
        conflicts = problem.get("ctx", {}).get("error")
        if isinstance(conflicts, Conflicts):
            found += conflicts.found
            continue
        location, union, choice = _real_place(problem["loc"], model)
        if problem["type"] in _TAG_PROBLEMS:
            location = (*location, problem["ctx"]["discriminator"].strip("'"))
        message = _say(problem, location, model)
        if union is None:
            found.append((location, message))
        else:
            choices.setdefault(union, []).append((choice, location, message))
    for union, entries in choices.items():
        kind = _choice_kind(_value_at(plain, union))
        meant = [entry for entry in entries if entry[0] == kind] if kind != "value" else []
        if meant:
            found += [(location, message) for _, location, message in meant]
        else:
            found.append((union, _say_choices([message for _, _, message in entries])))
    return found


def _say(problem: Any, location: Location, model: type[BaseModel]) -> str:
    dotted = _dotted(location)
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        hint = _of_other_kinds(problem["loc"], model)
        hint = hint or _suggest(dotted, model, _model_around(problem["loc"], model))
        return f"unknown key {dotted!r}{hint}"
    if kind == "missing":
        return f"{dotted!r} is missing"
    if kind in _TAG_PROBLEMS:
        return f"{dotted!r} {_say_tag(problem, model)}"
    if kind == "value_error":
        return f"{dotted!r}: {context.get('error', problem['msg'])}"
    if kind == "too_short":
        return f"{dotted!r} is empty; give at least {context['min_length']}"
    message = problem["msg"].replace("Input should", "must", 1)
    message = message.replace("String should", "must", 1)
    for theirs, ours in _YAML_WORDS.items():
        message = message.replace(theirs, ours)
    found = json.dumps(problem["input"], ensure_ascii=False, default=str)
    shown = found if len(found) <= 80 else found[:79] + "…"
    return f"{dotted!r}: {message} (found {shown}{_meant(problem)})"


def _meant(problem: Any) -> str:
    """The nearest of the words that are allowed, where only some are."""
    if problem["type"] != "literal_error" or not isinstance(problem["input"], str):
        return ""
    allowed = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    close = difflib.get_close_matches(problem["input"], allowed, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


_TAG_PROBLEMS = ("union_tag_invalid", "union_tag_not_found")
"""A mapping does not say, or says wrongly, which choice of a union it is: ``kind``."""


def _say_tag(problem: Any, model: type[BaseModel]) -> str:
    """What a ``kind`` may be, and which was meant."""
    key = problem["ctx"]["discriminator"].strip("'")
    choices = _members(_walk(problem["loc"], model)[-1])
    allowed = [tag for choice in choices for tag in _args(choice.model_fields[key])]
    listed = f"allowed: {', '.join(map(str, allowed))}"
    tag = problem["ctx"].get("tag")
    if tag is None:
        return f"is missing ({listed})"
    close = difflib.get_close_matches(tag, allowed, n=1, cutoff=0.6)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"names nothing that is known ({meant}{listed}; found {json.dumps(tag)})"


_YAML_WORDS = {
    "a valid number": "a number",
    "a valid integer": "a whole number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "an object": "a mapping of keys to values",
    "match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'": "begin with a letter or digit and have only "
    "letters, digits, '.', '_' and '-'",
    r"match pattern '\S'": "have more than white space",
}
"""pydantic speaks of JSON; recipes are YAML."""


def _say_choices(messages: Sequence[str]) -> str:
    """``'a': must be x (found 1)`` and ``'a': must be y (found 1)`` as one sentence."""
    split = [re.fullmatch(r"(.*?: )must be (.*?)( \(found .*\))", m, re.DOTALL) for m in messages]
    parts = [match for match in split if match]
    if len(parts) < len(messages):
        return "; ".join(dict.fromkeys(messages))
    ways = ", or ".join(dict.fromkeys(part[2] for part in parts))
    return f"{parts[0][1]}must be {ways}{parts[0][3]}"


def _real_place(
    location: Sequence[str | int], model: type[BaseModel]
) -> tuple[Location, Location | None, str]:
    """Drop the names that pydantic adds for the choices of a union.

    Returns:
        The place in the recipe; the place of the innermost union on the way, if any; and which
        kind of choice of it is meant: ``mapping``, ``list`` or ``value``.
    """
    real: Location = ()
    union: Location | None = None
    kind = ""
    annotations = _walk(location, model)
    for step, annotation, below in zip(location, annotations, annotations[1:], strict=False):
        if len(_members(annotation)) > 1:
            union, kind = real, _annotation_kind(below)
        else:
            real = (*real, step)
    return real, union, kind


def _walk(location: Sequence[str | int], model: type[BaseModel]) -> list[Any]:
    """The annotations on the way to a place: the model's, and one after each step."""
    way: list[Any] = [model]
    for step in location:
        members = _members(way[-1])
        if len(members) > 1:
            way.append(next((m for m in members if _is_called(m, str(step))), Any))
        else:
            way.append(_below(members[0], step))
    return way


def _model_around(location: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel] | None:
    """The model that a key is in, where a union's choice says which."""
    around = _walk(location, model)[-2]
    return around if isinstance(around, type) and issubclass(around, BaseModel) else None


def _members(annotation: Any) -> list[Any]:
    """The choices of an annotation, None left out: pydantic does not name that one."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, type(int | str)):
        return [m for a in get_args(annotation) if a is not type(None) for m in _members(a)]
    return [annotation]


def _is_called(annotation: Any, label: str) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        tags = [a for f in fields if get_origin(f.annotation) is Literal for a in _args(f)]
        return annotation.__name__ == label or label in tags
    return get_origin(annotation) is list and label.startswith("list[")


def _args(field: Any) -> tuple[Any, ...]:
    return get_args(field.annotation)


def _below(annotation: Any, step: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(step))
        return field.annotation if field else Any
    inner = get_args(annotation)
    if get_origin(annotation) is tuple and inner[-1:] == (Ellipsis,):
        return inner[0]
    return inner[-1] if inner and get_origin(annotation) in (list, dict) else Any


def _annotation_kind(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return "list" if get_origin(annotation) is list else "value"


def _choice_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "mapping"
    return "list" if isinstance(value, list) else "value"


def _value_at(node: Any, location: Location) -> Any:
    for step in location:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))


def _line(document: Any, location: Location) -> int:
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


def _of_other_kinds(location: Sequence[str | int], model: type[BaseModel]) -> str:
    """For which other kinds a key is, when it is not for the kind that stands there."""
    around, choices = _model_around(location, model), _members(_walk(location[:-2], model)[-1])
    if around is None or around not in choices:
        return ""
    theirs = [each for each in choices if location[-1] in getattr(each, "model_fields", {})]
    kinds, others = (
        [
            tag
            for each in some
            if "kind" in each.model_fields
            for tag in _args(each.model_fields["kind"])
        ]
        for some in ([around], theirs)
    )
    if not kinds or not others:
        return ""
    return (
        f" (not for kind {kinds[0]}, but for {', '.join(others)}; allowed here: "
        f"{', '.join(around.model_fields)})"
    )


def _suggest(dotted: str, model: type[BaseModel], around: type[BaseModel] | None) -> str:
    """The nearest keys that exist: at this place first, then anywhere in the schema."""
    key = dotted.rpartition(".")[2]
    paths = _all_keys(model)
    here = list(around.model_fields) if around else []
    close = difflib.get_close_matches(key, here, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]!r}?)"
    if key in OTHER_TOOLS:
        return f" (did you mean {OTHER_TOOLS[key]!r}?)"
    elsewhere = [path for path in paths if path.rpartition(".")[2] == key]
    near = difflib.get_close_matches(dotted, paths, n=1, cutoff=0.8)
    elsewhere += [path for path in near if not dotted.startswith(f"{path}.")]
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
    if get_origin(annotation) is tuple:
        return []  # of a list of choices: no path says which choice's keys are meant
    return [m for part in getattr(annotation, "__args__", ()) for m in _models_in(part)]


def infinite_numbers(node: Any, place: Location = ()) -> Iterator[Problem]:
    """The numbers that no setting can mean, with what to say of them."""
    if isinstance(node, float) and not math.isfinite(node):
        yield place, f"{_dotted(place)!r}: must be a finite number (found {node})"
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from infinite_numbers(value, (*place, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from infinite_numbers(value, (*place, index))


def explain(
    problems: Sequence[Problem],
    document: CommentedMap,
    path: Path,
    overrides: Sequence[str],
) -> str:
    """Every problem, one a line, with its place."""
    overridden = {word.partition("=")[0] for word in overrides}
    lines = []
    for location, message in problems:
        dotted = _dotted(location)
        if any(
            f"{dotted}.".startswith(f"{key}.") or key.startswith(f"{dotted}.") for key in overridden
        ):
            lines.append((0, f"  command line: {message}"))
        else:
            line = _line(document, location)
            lines.append((line, f"  {path}:{line}: {message}"))
    unique = list(dict.fromkeys(sorted(lines, key=lambda entry: entry[0])))
    count = f"{len(unique)} problem{'s' if len(unique) > 1 else ''}"
    return "\n".join([f"{path}: {count}", *(text for _, text in unique)])
