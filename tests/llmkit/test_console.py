"""What a person or a script sees."""

import io
import json

import pytest
from rich.console import Console

from llmkit.console import JsonView, QuietView, TerminalView
from llmkit.run import Outcome

DONE = Outcome({"rows": 3}, 12.4, skipped=False)
STEP = {"event": "step", "loss": 1.5, "tokens": 100, "seconds": 2.0, "memory_mib": 900}


@pytest.fixture
def log() -> tuple[TerminalView, io.StringIO]:
    """The view of a person who reads a log file."""
    file = io.StringIO()
    return TerminalView(Console(file=file, width=80, highlight=False)), file


def test_text_with_brackets_is_shown_as_it_is(log: tuple[TerminalView, io.StringIO]) -> None:
    view, file = log
    view.say("loading runs/[bold]x[/bold] [q_proj]")
    view.stage("train", "into [red] (base)", DONE)
    assert "runs/[bold]x[/bold] [q_proj]" in file.getvalue()
    assert "into [red] (base) (12 s)" in file.getvalue()


def test_lines_of_a_log_are_not_broken(log: tuple[TerminalView, io.StringIO]) -> None:
    view, file = log
    view.stage("prep", "word " * 60, DONE)
    view.say("path/" * 60)
    assert len(file.getvalue().splitlines()) == 2


def test_a_skipped_stage_says_so(log: tuple[TerminalView, io.StringIO]) -> None:
    view, file = log
    view.stage("prep", "3 rows", Outcome({}, 12.4, skipped=True))
    assert "3 rows (unchanged, skipped)" in file.getvalue()


def test_a_log_gets_about_ten_lines_of_a_long_training(
    log: tuple[TerminalView, io.StringIO],
) -> None:
    view, file = log
    for step in range(1, 501):
        view.step({**STEP, "step": step}, 500)
    lines = [line for line in file.getvalue().splitlines() if "step " in line]
    assert 10 <= len(lines) <= 12
    assert "step 500/500: loss 1.500, 50 tokens/s" in lines[-1]


def test_closing_gives_the_cursor_back_in_the_middle_of_a_training() -> None:
    file = io.StringIO()
    view = TerminalView(Console(file=file, width=80, force_terminal=True))
    view.step({**STEP, "step": 1}, 10)
    assert "\x1b[?25l" in file.getvalue(), "the bar hides the cursor"
    view.close()
    assert "\x1b[?25h" in file.getvalue()


def test_scripts_get_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = JsonView()
    view.say("note [x]")
    view.stage("prep", "3 rows", DONE)
    view.step({**STEP, "step": 1}, 10)
    with view.working("busy"):
        pass
    view.close()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"note": "note [x]"}
    assert lines[1] == {
        "stage": "prep",
        "text": "3 rows",
        "figures": {"rows": 3},
        "seconds": 12.4,
        "skipped": False,
    }
    assert lines[2]["total_steps"] == 10
    assert len(lines) == 4


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    view = QuietView()
    view.say("x")
    view.stage("prep", "x", DONE)
    view.step({**STEP, "step": 1}, 10)
    view.count("rows", 100_000)
    with view.working("busy"):
        pass
    view.close()
    assert capsys.readouterr() == ("", "")


def test_a_long_step_is_counted_on_a_terminal_and_told_now_and_then_in_a_log(monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("llmkit.console.time.monotonic", lambda: clock[0])
    file = io.StringIO()
    view = TerminalView(Console(file=file, width=80, highlight=False))
    for _ in range(45):
        clock[0] += 1
        view.count("embedding rows", 8)
    lines = [line.strip() for line in file.getvalue().splitlines()]
    assert lines[0] == "embedding rows: 88 (9/s)"
    assert len(lines) == 4
    terminal = io.StringIO()
    view = TerminalView(Console(file=terminal, width=80, force_terminal=True))
    view.count("embedding rows", 8)
    view.stage("prep", "8 rows", DONE)
    assert "embedding rows" in terminal.getvalue()
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h")
