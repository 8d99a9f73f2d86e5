"""What entering and leaving a run does, and what stages ask of each other."""

import json
import shutil
from pathlib import Path

import pytest

from data_prep.sources.config import SourceConfig
from llmkit import preparing, stages
from llmkit.console import QuietView
from llmkit.errors import UsageError
from llmkit.files import write_json
from llmkit.project import Project, open_run
from llmkit.recipe import Recipe, load_recipe
from llmkit.run import Run

RECIPE = "name: demo\nmodel: {base: ./none}\ndata: {sources: [{path: rows.jsonl}]}\n"


class Watcher(QuietView):
    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return Project(load_recipe(tmp_path / "recipe.yaml"), Run(tmp_path / "demo"), Watcher())


def made(project: Project) -> None:
    """A training stage that left an adapter."""

    def work() -> dict[str, int]:
        (project.folder / "adapter").mkdir()
        (project.folder / "adapter" / "weights").write_text("x")
        return {}

    project.run.stage("train", {}, ["adapter"], work)


def test_a_run_keeps_its_recipe_and_opens_again_from_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with project:
        pass
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_run(project.folder, QuietView()).recipe == project.recipe


def test_leaving_a_run_writes_its_report_frees_it_and_closes_the_view(project: Project) -> None:
    with project:
        pass
    assert project.report_path.read_text().startswith("<!doctype html>")
    assert project.view.closed == 1  # type: ignore[attr-defined]
    with Run(project.folder):
        pass


def test_a_failure_is_not_hidden_by_a_report_that_fails_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_project: Project) -> Path:
        raise RuntimeError("the report")

    monkeypatch.setattr(Project, "write_report", fail)
    with pytest.raises(ValueError, match="the stage"), project:
        raise ValueError("the stage")
    with Run(project.folder):
        pass
    assert project.view.closed == 1  # type: ignore[attr-defined]


def test_a_run_whose_recipe_cannot_be_written_is_let_go(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("llmkit.project.write_text", fail)
    with pytest.raises(OSError), project:  # noqa: PT011
        pass
    with Run(project.folder):
        pass


def test_the_output_of_a_stage_that_was_not_done_is_asked_for(project: Project) -> None:
    with project, pytest.raises(UsageError, match="adapter/ is not there yet; `llmkit train REC"):
        project.output_hash("train", "adapter")
    with (
        project,
        pytest.raises(UsageError, match=r"merged/ is not there.*`llmkit merge .*demo"),
    ):
        project.output_hash("merge", "merged")


def test_output_that_something_else_changed_is_not_used(project: Project) -> None:
    with project:
        made(project)
        assert len(project.output_hash("train", "adapter")) == 64
        (project.folder / "adapter" / "weights").write_text("another")
        with pytest.raises(UsageError, match=r"adapter was changed.*makes it again"):
            project.output_hash("train", "adapter")


def test_a_folder_without_a_recipe_is_no_run(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"stages": {}})
    with pytest.raises(UsageError, match="not a run directory"):
        open_run(tmp_path, QuietView())


def test_a_refused_recipe_does_not_replace_the_one_that_was_trained(project: Project) -> None:
    with project:
        made(project)
    kept = (project.folder / "recipe.yaml").read_text()
    other = project.recipe.model_copy(update={"name": "other"})
    with pytest.raises(UsageError), Project(other, Run(project.folder), QuietView()):
        raise UsageError("refused")
    assert (project.folder / "recipe.yaml").read_text() == kept
    with Project(other, Run(project.folder), QuietView()):
        pass
    assert "name: other" in (project.folder / "recipe.yaml").read_text()


def test_a_run_of_which_no_stage_was_done_leaves_nothing_that_looks_like_one(
    project: Project,
) -> None:
    with pytest.raises(UsageError), project:
        raise UsageError("no such data")
    assert not project.folder.exists()

    def fails_later() -> None:
        made(project)
        raise UsageError("the stage after")

    with pytest.raises(UsageError, match="the stage after"), project:
        fails_later()
    names = {path.name for path in project.folder.iterdir()}
    assert names == {".lock", "adapter", "manifest.json", "recipe.yaml", "report.html"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serve": {"max_model_len": 4096}}, r"serve\.max_model_len: 4096 tokens.*made for 512"),
        ({"data": {"max_tokens": 1024}}, r"data\.max_tokens: 1024.*made for 512"),
        ({"evaluation": {"questions": "none.jsonl"}}, r"none\.jsonl: cannot be read"),
    ],
)
def test_what_only_the_last_stages_need_is_looked_at_first(
    tiny: Path, tmp_path: Path, change: dict[str, dict[str, object]], message: str
) -> None:
    plain = {
        "name": "demo",
        "model": {"base": str(tiny)},
        "data": {"sources": [{"path": "rows.jsonl"}], "max_tokens": 64},
    }
    for section, values in change.items():
        plain[section] = plain.get(section, {}) | values  # type: ignore[operator]
    recipe = Recipe.model_validate(plain)
    project = Project(recipe, Run(tmp_path / "demo"), QuietView())
    with pytest.raises(UsageError, match=message):
        stages.check_ahead(project)


@pytest.mark.parametrize(
    ("key", "value"),
    [("base", "other"), ("quantization", "nf4"), ("chat_template", "zephyr-like.jinja")],
)
def test_an_adapter_is_not_merged_into_what_it_was_not_trained_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"how {i}", "completion": f"so {i}"} for i in range(4)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = shutil.copytree(tiny, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    source = (tiny / "chat_template.jinja").read_text()
    Path("zephyr-like.jinja").write_text(source.replace("\\n", "\\n\\n", 1))
    plain = {
        "name": "demo",
        "model": {"base": str(tiny)},
        "data": {"sources": [{"path": "rows.jsonl"}], "max_tokens": 64},
    }

    def project(**model: str) -> Project:
        recipe = plain | {"model": plain["model"] | model}
        return Project(Recipe.model_validate(recipe), Run(tmp_path / "demo"), QuietView())

    def train() -> dict[str, object]:
        (tmp_path / "demo" / "adapter").mkdir()
        return {}

    with project() as trained:
        preparing.prep(trained)
        inputs = {
            "model": trained.model.content_hash(),
            "quantization": "none",
            "data": trained.output_hash("prep", "data"),
        }
        trained.run.stage("train", inputs, ["adapter"], train)
        stages._refuse_another_base(trained)
    with pytest.raises(UsageError, match="changed since the adapter was trained"):
        stages._refuse_another_base(project(**{key: str(other) if key == "base" else value}))
    scored = Recipe.model_validate(plain | {"training": {"method": "reward"}})
    with pytest.raises(UsageError, match=r'training\.method: "sft" -> "reward"'):
        stages._refuse_another_base(Project(scored, Run(tmp_path / "demo"), QuietView()))


def test_the_hash_of_a_pattern_covers_which_files_there_are_and_what_they_hold(tmp_path: Path):
    def now() -> list[str]:
        sources = [SourceConfig(path=f"{tmp_path}{end}") for end in ("", "/*.jsonl", "/a.jsonl")]
        return [preparing.source_hash(source) for source in sources]

    def changed(before: list[str]) -> list[bool]:
        return [old != new for old, new in zip(before, now(), strict=True)]

    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "b.jsonl").write_text("{}")
    before = now()
    (tmp_path / "notes.md").write_text("no data")
    assert changed(before) == [False, False, False]
    (tmp_path / "b.jsonl").write_text("[]")
    assert changed(before) == [True, True, False]
    (tmp_path / "b.jsonl").write_text("{}")
    assert changed(before) == [False, False, False]
    (tmp_path / "b.jsonl").rename(tmp_path / "c.jsonl")
    assert changed(before) == [True, True, False]
