"""Every method on real rows: its loss falls, and what it prefers grows apart.

The models are small and made here: a tokenizer of its own, random weights, and for the methods that
refine, weights that have learned real answers. So each of these trainings takes seconds.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytest
import torch

from data_prep.chat_templates import load_template, without_turns
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.settings import DataConfig
from data_prep.tokenizer import load_tokenizer
from data_prep.tokenizer_training import TokenizerSettings, save_tokenizer, train_tokenizer
from llmkit.models.initializing import initialize
from llmkit.models.loading import load_base
from llmkit.models.merging import merged_into, save_model
from llmkit.models.settings import NewModel
from llmkit.training.events import read_events
from llmkit.training.units import UNITS_OF

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ANSWERS = "alpaca_en_demo/alpaca_en_demo.json"
PAIRS = "dpo_en_demo/dpo_en_demo.json"
LABELLED = "kto_en_demo/kto_en_demo_half_a.json"
PLAYS = "tinyshakespeare/input.txt"
VOCABULARY = 1024


def path_of(name: str) -> str:
    if not (SHARED / name).is_file():
        pytest.skip(f"{SHARED / name} is not here")
    return str(SHARED / name)


class Trained(NamedTuple):
    """What a training left, and said of itself."""

    data: PreparedDataset
    folder: Path
    figures: dict[str, Any]

    def ends(self, name: str) -> tuple[float, float]:
        """A figure of the steps: the mean of the first quarter, and of the last."""
        events = read_events(self.folder / "events.jsonl")
        # A step with answers of one label has no margin.
        steps = [event for event in events if event["event"] == "step" and name in event]
        few = max(1, len(steps) // 4)
        return fmean(s[name] for s in steps[:few]), fmean(s[name] for s in steps[-few:])


@pytest.fixture(scope="module", autouse=True)
def exact() -> Iterator[None]:
    """In float32: for bfloat16, oneDNN compiles kernels for every length that a row can have."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("llmkit.training.train", "llmkit.models.loading"):
            patch.setattr(f"{module}.compute_dtype", lambda device: torch.float32)
        yield


@pytest.fixture(scope="module")
def newborn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights around a tokenizer that was trained on real texts."""
    folder = tmp_path_factory.mktemp("newborn")
    texts = [Path(path_of(name)).read_text("utf-8") for name in (PLAYS, ANSWERS)]
    settings = TokenizerSettings(vocab_size=VOCABULARY)
    save_tokenizer(train_tokenizer(texts, settings), settings, folder / "tokenizer")
    tokenizer = str(folder / "tokenizer")
    shape = NewModel(tokenizer=tokenizer, layers=2, width=128, heads=2, context=512)
    (folder / "base").mkdir()
    initialize(shape, folder / "tokenizer", folder / "base")
    return folder / "base"


@pytest.fixture(scope="module")
def rows(newborn: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PreparedDataset]:
    """Prepare rows of a set as a method learns from them."""
    tokenizer = load_tokenizer(newborn)

    def make(method: str, name: str, take: int, **settings: Any) -> PreparedDataset:
        plain = method == "pretrain"
        template = without_turns("keep", tokenizer) if plain else load_template("chatml", tokenizer)
        source = {"path": path_of(name), "take": take}
        source |= {"text_unit": "paragraph"} if plain else {}
        values = {"sources": [source], "max_tokens": 384, **settings}
        folder = tmp_path_factory.mktemp(method)
        config = DataConfig.model_validate(values)
        return prepare(config, template, folder, units=UNITS_OF[method])

    return make


@pytest.fixture(scope="module")
def trained(
    run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Trained]:
    """Train all weights of a model."""

    def go(data: PreparedDataset, model: Path, method: str, **settings: Any) -> Trained:
        folder = tmp_path_factory.mktemp("run")
        settings = {"batch": {"rows": 2}, "learning_rate": 3e-3, "warmup_steps": 4, **settings}
        settings |= {"method": method, "adapter": {"kind": "full"}}
        return Trained(data, folder, run(data, folder, model=model, **settings))

    return go


@pytest.fixture(scope="module")
def tuned(rows: Any, trained: Any, newborn: Path) -> Trained:
    """The random weights, fine-tuned on answers."""
    return trained(rows("sft", ANSWERS, 150, validation=10), newborn, "sft")


@pytest.fixture(scope="module")
def taught(tuned: Trained, newborn: Path) -> Path:
    """What fine-tuning made, as a base of its own."""
    base = load_base(newborn, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
    model = merged_into(base, tuned.folder / "result", torch.float32)
    folder, stop_ids = tuned.folder / "merged", tuned.data.figures["stop_ids"]
    template = load_template("chatml", load_tokenizer(newborn))
    save_model(model, newborn, folder, template.source, stop_ids)
    return folder


def test_pretraining_learns_plays_from_random_weights(rows, trained, newborn):
    data = rows("pretrain", PLAYS, 160, validation=10, max_tokens=128, overlong="split")
    found = trained(data, newborn, "pretrain", epochs=2)
    first, last = found.ends("loss")
    assert last < first - 0.5
    begin, end = (found.figures[f"validation_loss_{when}"] for when in ("start", "end"))
    assert begin == pytest.approx(math.log(VOCABULARY), abs=0.1)  # a guess among all tokens
    assert end < begin - 1


def test_fine_tuning_learns_answers(tuned):
    first, last = tuned.ends("loss")
    assert last < first - 0.5
    assert tuned.figures["validation_loss_end"] < tuned.figures["validation_loss_start"] - 0.5


def test_distillation_learns_a_teachers_predictions(rows, trained, newborn, taught):
    data = rows("distill", ANSWERS, 80, validation=8)
    teacher = {"teacher": "taught", "weight": 0.8}
    found = trained(data, newborn, "distill", distillation=teacher, teacher=taught)
    first, last = found.ends("loss")
    assert last < 0.8 * first
    begin, end = found.figures["watched"]["divergence"]  # on rows held out
    assert end < begin / 2
    begin, end = found.figures["watched"]["cross_entropy"]
    assert end < begin - 0.3


@pytest.mark.parametrize(
    ("method", "by"),
    [("dpo", 0.5), ("orpo", 0.01), ("reward", 0.1), ("kto", 0.1)],  # orpo's is beta times a mean
)
def test_preferred_answers_grow_apart_from_the_others(rows, trained, taught, method, by):
    data = rows(method, LABELLED if method == "kto" else PAIRS, 150)
    found = trained(data, taught, method, epochs=4, learning_rate=1e-3)
    first, last = found.ends("loss")
    assert last < first
    first, last = found.ends("margin")
    assert last > first + by
    assert found.ends("accuracy")[1] > 0.6
