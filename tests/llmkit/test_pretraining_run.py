"""From random weights to a merged model, as a person runs it; and what its recipe must not say."""

import json
from pathlib import Path

import pytest

from llmkit import preparing, stages
from llmkit.cli import _guarded, app
from llmkit.console import QuietView
from llmkit.errors import UsageError
from llmkit.files import content_hash
from llmkit.project import Project
from llmkit.recipe import load_recipe
from llmkit.run import Run
from llmkit.training.events import read_events

LINES = ["To be, or not to be,", "that is the question:", "Whether 'tis nobler in the mind"]
RECIPE = """
name: demo
model: {initialize: {tokenizer: tokenizer, layers: 2, width: 64, heads: 2, context: 128}}
data: {sources: [{path: play.txt, format: text}], max_tokens: 64, validation: 4}
training:
  method: pretrain
  adapter: {kind: full}
  max_steps: 8
  learning_rate: 3.0e-3
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe beside a text and a tokenizer that was trained on it."""
    from data_prep.tokenizer_training import TokenizerSettings, save_tokenizer, train_tokenizer

    monkeypatch.chdir(tmp_path)
    lines = [f"{LINES[n % 3]} {n * n}" for n in range(60)]
    Path("play.txt").write_text("\n".join(lines))
    settings = TokenizerSettings(vocab_size=290)
    save_tokenizer(train_tokenizer(lines, settings), settings, Path("tokenizer"))
    Path("recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def opened(recipe: Path, *words: str) -> Project:
    loaded = load_recipe(recipe, words)
    return Project(loaded, Run(recipe.parent / "runs" / loaded.name), QuietView())


def test_a_model_grows_from_random_weights_to_a_merged_one(recipe: Path):
    with opened(recipe) as project:
        stages.check_ahead(project)
        preparing.prep(project)
        figures = stages.train(project).figures
        merged = stages.merge(project).figures
        made = project.run.record("initialize")
        steps = project.run.record("train")
        folder = project.folder
    events = [e for e in read_events(folder / "events.jsonl") if e["event"] == "step"]
    assert events[0]["loss"] == pytest.approx(made["figures"]["loss_of_a_guess"], abs=0.3)
    assert figures["validation_loss_end"] < figures["validation_loss_start"] - 0.3
    assert figures["trainable_parameters"] == made["figures"]["parameters"]
    assert made["outputs"]["base"]["sha256"] == content_hash(folder / "base")
    assert steps["inputs"]["model"]
    assert merged["closeness"]["base"]["kl"] < 0.01 < merged["kl_without_adapter"]
    assert not (folder / "merged" / "chat_template.jinja").exists()
    generation = json.loads((folder / "merged" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [0]
    samples = project.data().samples()
    assert samples
    assert all(sample.prompt and not sample.messages for sample in samples)


def test_the_random_model_is_made_once_and_again_when_its_shape_changes(recipe: Path):
    with opened(recipe) as project:
        first = project.model.content_hash()
    began = (project.folder / "base" / "model.safetensors").stat().st_mtime_ns
    with opened(recipe) as project:
        assert project.model.content_hash() == first
    assert (project.folder / "base" / "model.safetensors").stat().st_mtime_ns == began
    with opened(recipe, "model.initialize.layers=1") as project:
        assert project.model.content_hash() != first
    with opened(recipe) as project:
        assert project.model.content_hash() == first


def test_a_trained_model_is_not_merged_into_other_random_weights(recipe: Path):
    with opened(recipe, "training.max_steps=2") as project:
        preparing.prep(project)
        stages.train(project)
    with (
        opened(recipe, "training.max_steps=2", "model.initialize.seed=1") as project,
        pytest.raises(UsageError, match="recipe was changed since the adapter was trained"),
    ):
        stages.merge(project)


@pytest.fixture
def command(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `llmkit` here; the exit code and all that was printed, on one line."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["llmkit", *words])
        code = _guarded(app)
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return run


CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}


def test_chat_rows_are_refused_where_plain_text_is_learned(command):
    Path("chat.jsonl").write_text(json.dumps(CHAT) + "\n")
    code, said = command("prep", "recipe.yaml", "data.sources=[{path: chat.jsonl}]")
    assert code == 2
    assert "chat row" in said
    assert "pre-training learns plain text" in said


def test_a_model_without_a_template_is_refused_for_chat_and_told_of_pretraining(command):
    Path("chat.jsonl").write_text(json.dumps(CHAT) + "\n")
    words = ("data.sources=[{path: chat.jsonl}]", "training.method=sft")
    code, said = command("prep", "recipe.yaml", *words)
    assert code == 2
    assert "carries no chat template. Set model.chat_template" in said
    assert "training.method=pretrain" in said


def test_data_prepared_for_another_method_is_prepared_again(command):
    Path("rows.jsonl").write_text('{"text": "To be"}\n{"text": "or not"}\n{"text": "to be"}\n')
    words = ("data.sources=[{path: rows.jsonl}]", "data.validation=1", "model.chat_template=chatml")
    assert command("prep", "recipe.yaml", *words)[0] == 0
    said = command("prep", "recipe.yaml", *words, "training.method=sft")[1]
    assert "prep is done again: rows: plain text -> absent" in said


def test_preview_and_check_know_the_tokenizer_before_the_model_is_made(command):
    code, said = command("preview", "recipe.yaml", "--rows", "1")
    assert code == 0
    assert "To\u27e6 be, or not to be, 0<|endoftext|>\u27e7" in said  # all but the first token
    assert command("recipe", "check", "recipe.yaml") == (0, "recipe.yaml: ok")
    assert not Path("runs").exists()
    code, said = command("recipe", "check", "recipe.yaml", "model.initialize.tokenizer=play")
    assert code == 2
    assert "model 'play' was not found" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.adapter={rank: 4}"], "those of model.initialize are random: set it to full"),
        (["training.method=dpo"], "begins with one that can write nothing"),
        (["data.max_tokens=256"], "data.max_tokens (256) is above model.initialize.context (128)"),
        (["serve.max_model_len=256"], "serve.max_model_len (256) is above"),
        (["data.filters=[{kind: perplexity, max: 9}]"], "begins with one that knows nothing"),
        (["data.supervise=last"], "data.supervise (last) is for rows with turns"),
        (["evaluation.generate=2"], "learns plain text, which has none"),
        (["model.base=smollm2-135m-instruct"], "say one of them"),
        (["model.initialize.heads=3"], "must be a multiple of heads"),
        (["model.initialize.width=100"], "vLLM serves heads of 32, 64"),
        (["training.method=distill"], "method=distill needs a teacher"),
        (["training.distillation={teacher: x}"], "distillation is for method=distill"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_said_before_anything_is_done(command, words, message):
    code, said = command("prep", "recipe.yaml", *words)
    assert code == 2
    assert message in said
    assert not Path("runs/demo/base").exists()


def test_questions_are_not_asked_of_a_model_without_a_template(recipe: Path):
    Path("questions.jsonl").write_text('{"question": "a", "expect": ["b"]}\n')
    project = opened(recipe, "evaluation.questions=questions.jsonl")
    with pytest.raises(UsageError, match=r"asked as chat, and base carries no chat template"):
        stages.check_ahead(project)
    stages.check_ahead(
        opened(recipe, "evaluation.questions=questions.jsonl", "model.chat_template=chatml")
    )


def test_a_teacher_of_another_vocabulary_is_refused_first(command, tiny: Path):
    words = (
        "training.method=distill",
        f"training.distillation={{teacher: {tiny}}}",
        "model.chat_template=chatml",
    )
    code, said = command("run", "recipe.yaml", *words)
    assert code == 2
    assert "has another vocabulary" in said
    assert not Path("runs/demo/data").exists()
    code, said = command("recipe", "check", "recipe.yaml", *words)
    assert (code, "recipe.yaml" in said, "has another vocabulary" in said) == (2, True, True)


def test_the_teacher_is_an_input_of_the_training(tiny: Path, recipe: Path, tmp_path: Path):
    import shutil

    teacher = shutil.copytree(tiny, tmp_path / "teacher")
    words = (
        f"model={{base: {tiny}}}",
        "training.method=distill",
        "training.adapter={rank: 2}",
        "training.max_steps=1",
        f"training.distillation={{teacher: {teacher}}}",
    )
    with opened(recipe, *words) as project:
        preparing.prep(project)
        stages.train(project)
        assert project.run.record("train")["inputs"]["teacher"] == project.teacher.content_hash()
        assert stages.train(project).skipped
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps(config | {"rope_theta": 9000.0}))
    with opened(recipe, *words) as project:
        assert not stages.train(project).skipped


def test_a_plan_beside_a_process_that_holds_the_run_leaves_its_folder_alone(recipe: Path):
    from llmkit.planning.command import plan_project

    planned = plan_project(opened(recipe), with_probe=False)
    assert not (recipe.parent / "runs").exists()
    with opened(recipe, "training.max_steps=7") as training:
        preparing.prep(training)
        before = content_hash(training.folder)
        beside = plan_project(opened(recipe, "model.initialize.width=128"), with_probe=False)
        same = plan_project(opened(recipe), with_probe=False)
        assert content_hash(training.folder) == before
        made = training.model.folder
    assert beside.shapes.parameters > 2 * planned.shapes.parameters
    assert same.source.startswith("the longest of")
    assert planned.shapes.file == pytest.approx(
        (made / "model.safetensors").stat().st_size, rel=0.1
    )
