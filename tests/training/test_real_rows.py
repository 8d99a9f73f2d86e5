"""Every method on real rows: its loss falls, and what it prefers grows apart.

The model is small and made here: a tokenizer of its own, and weights that have read the answers of
an instruction set. So each of these trainings takes seconds.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytest

from data_prep.chat_templates import load_template, without_turns
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.settings import DataConfig
from data_prep.sources.config import SourceConfig
from data_prep.tokenizer import load_tokenizer
from llmkit.training.progress import read_events
from llmkit.training.units import UNITS_OF

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ALPACA = "alpaca_en_demo/alpaca_en_demo.json"
PAIRS = "dpo_en_demo/dpo_en_demo.json"
LABELLED = "kto_en_demo/kto_en_demo_half_a.json"
PLAYS = "tinyshakespeare/input.txt"
FULL = {"kind": "full"}


def path_of(name: str) -> str:
    if not (SHARED / name).is_file():
        pytest.skip(f"{SHARED / name} is not here")
    return str(SHARED / name)


@pytest.fixture(scope="module")
def newborn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights around a tokenizer that was trained on two of the sets."""
    from data_prep.tokenizer_training import TokenizerSettings, save_tokenizer, train_tokenizer
    from llmkit.models.initializing import initialize
    from llmkit.models.settings import NewModel

    folder = tmp_path_factory.mktemp("newborn")
    texts = [Path(path_of(name)).read_text("utf-8") for name in (PLAYS, ALPACA)]
    settings = TokenizerSettings(vocab_size=1024)
    save_tokenizer(train_tokenizer(texts, settings), settings, folder / "tokenizer")
    shape = {"layers": 2, "width": 128, "heads": 2, "context": 512}
    made = folder / "base"
    made.mkdir()
    initialize(
        NewModel(tokenizer=str(folder / "tokenizer"), **shape), folder / "tokenizer", made
    )
    return made


@pytest.fixture(scope="module")
def rows(newborn: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PreparedDataset]:
    """Prepare rows of a set as a method learns from them."""
    tokenizer = load_tokenizer(newborn)

    def make(method: str, name: str, take: int, **source: Any) -> PreparedDataset:
        text = without_turns("keep", tokenizer)
        template = text if method == "pretrain" else load_template("chatml", tokenizer)
        config = DataConfig(
            sources=[SourceConfig(path=path_of(name), take=take, **source)],
            max_tokens=384,
            overlong="split" if method == "pretrain" else "drop",
            validation=4,
        )
        folder = tmp_path_factory.mktemp(method)
        return prepare(config, template, folder, units=UNITS_OF[method])

    return make


class Trained(NamedTuple):
    """What a training said of itself."""

    folder: Path
    figures: dict[str, Any]

    def ends(self, name: str) -> tuple[float, float]:
        """A figure of the steps: the mean of the first quarter, and of the last."""
        steps = [e for e in read_events(self.folder / "events.jsonl") if e["event"] == "step"]
        few = max(1, len(steps) // 4)
        return fmean(s[name] for s in steps[:few]), fmean(s[name] for s in steps[-few:])


@pytest.fixture
def trained(run: Callable[..., Any], tmp_path: Path) -> Callable[..., Trained]:
    def go(data: PreparedDataset, model: Path, **settings: Any) -> Trained:
        settings = {"adapter": FULL, "batch": {"rows": 2}, "learning_rate": 3e-3, **settings}
        return Trained(tmp_path, run(data, tmp_path, model=model, **settings))

    return go


def test_pretraining_learns_plays(rows, trained, newborn):
    data = rows("pretrain", PLAYS, 300, text_unit="paragraph")
    found = trained(data, newborn, method="pretrain")
    print(found.figures["steps"], found.ends("loss"), found.figures["validation_loss_start"], found.figures["validation_loss_end"])


def test_fine_tuning_learns_answers(rows, trained, newborn):
    found = trained(rows("sft", ALPACA, 150), newborn, method="sft")
    print(found.figures["steps"], found.ends("loss"), found.figures["validation_loss_start"], found.figures["validation_loss_end"])


@pytest.mark.parametrize("method", ["dpo", "orpo", "reward", "kto"])
def test_preferences(rows, trained, newborn, method):
    name = LABELLED if method == "kto" else PAIRS
    found = trained(rows(method, name, 90), newborn, method=method, epochs=3, learning_rate=1e-3)
    print(method, found.figures["steps"], found.ends("loss"), found.ends("margin"), found.ends("accuracy"), found.figures["watched"])
