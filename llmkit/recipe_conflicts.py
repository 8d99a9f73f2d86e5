"""Settings of a recipe that contradict each other: the key to change, and why."""

from collections.abc import Iterator

from data_prep.settings import DataConfig
from llmkit.evaluation.settings import EvaluationConfig
from llmkit.models.settings import ModelConfig
from llmkit.recipe_problems import Problem
from llmkit.training.settings import Method, PreferenceConfig, TrainingConfig

_WEIGHED_BY: dict[str, tuple[Method, ...]] = {
    "beta": ("dpo", "kto", "orpo"),
    "loss": ("dpo",),
    "label_smoothing": ("dpo",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
}
"""Setting of ``training.preference`` -> the methods that look at it."""


def method_conflicts(training: TrainingConfig) -> Iterator[Problem]:
    """Settings of one method under another, where they would do nothing."""
    method, preference = training.method, training.preference
    default = PreferenceConfig()
    for name, methods in _WEIGHED_BY.items():
        value = getattr(preference, name)
        if value != getattr(default, name) and method not in methods:
            yield (
                ("training", "preference", name),
                f"training.preference.{name} ({value}) does nothing under training.method={method}:"
                f" it is for {', '.join(methods)}. Leave it out, or choose that method",
            )
    if method == "dpo" and preference.label_smoothing and preference.loss != "sigmoid":
        yield (
            ("training", "preference", "label_smoothing"),
            f"training.preference.label_smoothing ({preference.label_smoothing}) belongs to "
            f"loss=sigmoid; loss={preference.loss} has no such thing",
        )
    if method == "kto" and not (preference.desirable_weight or preference.undesirable_weight):
        yield (
            ("training", "preference", "desirable_weight"),
            "training.preference: with desirable_weight=0 and undesirable_weight=0 no row weighs "
            "anything",
        )


def evaluation_conflicts(
    training: TrainingConfig, data: DataConfig, evaluation: EvaluationConfig
) -> Iterator[Problem]:
    """Settings about losses that are not measured, and about answers that are not given."""
    wanting = []
    if training.keep == "best":
        wanting.append(("keep", "training.keep=best chooses between validation losses"))
    if training.early_stopping:
        wanting.append(("early_stopping", "training.early_stopping looks at validation losses"))
    missing = [] if training.evaluate_every else ["training.evaluate_every"]
    missing += [] if data.validation else ["data.validation"]
    for key, why in wanting if missing else ():
        yield ("training", key), f"{why}, and none are measured: set {' and '.join(missing)}"
    if training.method == "reward" and (evaluation.generate or evaluation.questions):
        yield (
            ("evaluation", "generate" if evaluation.generate else "questions"),
            "a reward model scores answers and writes none, so it cannot be asked anything: leave "
            "evaluation out",
        )


def quantization_conflicts(training: TrainingConfig, model: ModelConfig) -> Iterator[Problem]:
    """Weights that are to train, and are held so that they cannot."""
    adapter = training.adapter
    if model.quantization == "none":
        return
    if adapter.kind == "lora":
        if adapter.init == "pissa":
            yield (
                ("training", "adapter", "init"),
                "training.adapter.init=pissa takes singular directions out of the base's weights, "
                f"and these are quantised (model.quantization={model.quantization}): set "
                "model.quantization=none, or init=zero",
            )
    elif adapter.kind == "full" or adapter.layers:
        yield (
            ("training", "adapter", "kind"),
            f"training.adapter.kind={adapter.kind} trains weights themselves, and quantised ones "
            f"(model.quantization={model.quantization}) cannot be trained: set "
            "model.quantization=none, or train an adapter",
        )
