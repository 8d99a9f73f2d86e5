"""The command line: exit codes, messages without tracebacks, and a help that is instant."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmkit import cli

RECIPES = Path(__file__).parents[2] / "recipes"
COMMANDS = ["quickstart", "run", "prep", "preview", "plan", "train", "merge", "verify", "evaluate"]
COMMANDS += ["serve", "chat", "doctor", "keys", "models", "recipe", "tokenizer"]
HEAVY = ["torch", "transformers", "vllm", "pyarrow", "rich.console", "numpy", "peft", "datasets"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths must not touch the repository, nor anything the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(cli, "_settings", {"debug": False})


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def llmkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run the command line in this process."""

    def call(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["llmkit", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)

    return call


def process(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from llmkit.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_help_takes_less_than_half_a_second() -> None:
    best = 9.0
    for _ in range(3):
        began = time.monotonic()
        assert process("--help").returncode == 0
        best = min(best, time.monotonic() - began)
    assert best < 0.5


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom llmkit import cli\n"
        "cli._guarded(cli.app)\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    for word in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True)
        assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("command", ["run", "train", "prep"])
def test_what_is_missing_is_said_before_torch_is_imported(tmp_path: Path, command: str) -> None:
    Path("demo.yaml").write_text(
        "name: demo\nmodel: {base: nowhere/at/all}\ndata: {sources: [{path: none.jsonl}]}\n"
    )
    slow = ("torch", "transformers", "openai")
    code = (
        "import sys\nfrom llmkit import cli\n"
        "code = cli._guarded(cli.app)\n"
        f"print(code, [name for name in {slow} if name in sys.modules])"
    )
    command_line = [sys.executable, "-c", code, command, "demo.yaml"]
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.stdout.strip() == "2 []"
    assert "demo.yaml:2: model 'nowhere/at/all' was not found" in done.stderr
    assert "demo.yaml:3: none.jsonl: no such file" in done.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_on_a_narrow_terminal(llmkit, command: str) -> None:  # type: ignore[no-untyped-def]
    listed = llmkit("--help")
    (line,) = [line for line in listed.out.splitlines() if line.startswith(f"  {command} ")]
    assert len(line) <= 80
    assert "..." not in line
    own = llmkit(command, "--help")
    assert (own.code, own.err) == (0, "")
    assert "Usage: llmkit" in own.out


def test_the_version_is_the_packages(llmkit) -> None:  # type: ignore[no-untyped-def]
    from importlib.metadata import version

    assert llmkit("--version").out == f"llmkit {version('llmkit')}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Usage: llmkit"),
        (["recipe"], "Usage: llmkit recipe"),
        (["bogus"], "No such command 'bogus'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "x.yaml", "--bogus"], "No such option: --bogus"),
        (["run", "none.yaml"], "none.yaml: no such recipe"),
        (["preview", "none.yaml", "--rows", "0"], "Invalid value for '--rows'"),
        (["recipe", "check", "none.yaml"], "none.yaml: no such recipe"),
        (["merge", "nothing"], "nothing: not a run directory"),
        (["verify", "."], "not a run directory"),
        (["evaluate", "nothing"], "llmkit run RECIPE"),
        (["serve", "nothing-here"], "Tried: the catalogue (smollm2-135m-instruct, "),
        (["serve", "nothing/here"], "the hub id 'nothing/here'"),
        (["models", "pull", "nothing-here"], "model 'nothing-here' was not found"),
    ],
)
def test_wrong_usage_ends_with_two_and_says_what_is_wrong(llmkit, words, said) -> None:  # type: ignore[no-untyped-def]
    result = llmkit(*words)
    assert result.code == 2
    assert said in result.err
    assert result.out == ""
    assert "Traceback" not in result.err


def test_a_good_recipe_is_ok_and_a_bad_one_says_why(llmkit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    good = llmkit("recipe", "check", str(RECIPES / "quickstart.yaml"))
    assert (good.code, good.err) == (0, "")
    assert good.out.endswith("quickstart.yaml: ok\n")
    bad = llmkit("recipe", "check", str(RECIPES / "quickstart.yaml"), "training.epoch=2")
    assert bad.code == 2
    assert "did you mean 'epochs'?" in bad.err


def test_the_schema_is_printed_as_json(llmkit) -> None:  # type: ignore[no-untyped-def]
    assert "training" in json.loads(llmkit("recipe", "schema").out)["properties"]


def test_the_catalogue_is_listed_with_source_and_licence(llmkit, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path))
    out = llmkit("models", "list").out
    assert "smollm2-135m-instruct  language model, HuggingFaceTB/SmolLM2-135M-Instruct, " in out
    assert "all-minilm-l6-v2       sentence embeddings, sentence-transformers/all-Min" in out
    assert out.count("Apache-2.0, not fetched yet") == 2


def test_the_doctor_is_tidy_and_names_what_is_missing(llmkit, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    lines = llmkit("doctor").out.splitlines()
    wide = len("sentence-transformers")
    assert all(line[wide] == " " and line[wide + 1] != " " for line in lines)
    monkeypatch.setattr("llmkit.doctor.package_versions", dict)
    assert "not installed; run: make install" in llmkit("doctor").out


def run_without(tmp_path: Path, *stages: str) -> str:
    """A run directory in which only these stages were done."""
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    recipe = "name: demo\nmodel: {base: ./none}\ndata: {sources: [{path: rows.jsonl}]}\n"
    (folder / "recipe.yaml").write_text(recipe)
    return str(folder)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("merge", "adapter/ is not there yet; `llmkit train RECIPE` makes it"),
        ("verify", "merged/ is not there yet; `llmkit merge "),
        ("evaluate", "merged/ is not there yet; `llmkit merge "),
    ],
)
def test_a_stage_before_its_turn_names_the_one_that_is_missing(  # type: ignore[no-untyped-def]
    llmkit, tmp_path: Path, command: str, said: str
) -> None:
    result = llmkit(command, run_without(tmp_path), "--quiet")
    assert result.code == 2
    assert said in result.err
    assert result.out == ""


def test_an_unverified_run_is_not_served_and_ends_with_three(llmkit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = llmkit("serve", run_without(tmp_path))
    assert result.code == 3
    assert "was not verified. Run `llmkit verify" in result.err


def test_a_failure_ends_with_one_and_asks_for_a_report(llmkit, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("llmkit.recipe_check.check_recipe", fail)
    result = llmkit("recipe", "check", "x")
    assert result.code == 1
    assert "unexpected ZeroDivisionError: by zero" in result.err
    assert "Traceback" not in result.err
    shown = llmkit("--debug", "recipe", "check", "x")
    assert shown.code == 1
    assert "Traceback" in shown.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/x"), "error: /x: Permission denied"),
        (ModuleNotFoundError("no", name="peft"), "peft is not installed here. Run: make install"),
    ],
)
def test_the_machines_errors_are_not_called_defects(llmkit, monkeypatch, error, said) -> None:  # type: ignore[no-untyped-def]
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("llmkit.recipe_check.check_recipe", fail)
    result = llmkit("recipe", "check", "x")
    assert result.code == 1
    assert said in result.err
    assert "defect" not in result.err


def test_debug_shows_the_traceback() -> None:
    done = process("--debug", "recipe", "check", "none.yaml")
    assert "Traceback" in done.stderr
    assert "error: none.yaml: no such recipe" in done.stderr
    assert done.returncode == 2


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    code = "from llmkit.cli import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code, "recipe", "schema"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr
