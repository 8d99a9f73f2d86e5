"""``llmkit chat``: its commands, a session in a terminal, and questions from a pipe."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_stub import ChatStub, serving

from llmkit.chat.commands import COMMANDS, run_command
from llmkit.chat.conversation import PARAMETERS, Conversation
from llmkit.chat.endpoint import Answer, base_url
from llmkit.chat.terminal import printable, read_message
from llmkit.errors import UsageError

ROOT = Path(__file__).parents[2]
# A program that runs another in a terminal of its own and passes on what is typed and shown.
# Whoever starts the tests in the background has Ctrl-C ignored in all that they start.
IN_A_TERMINAL = (
    "import os, pty, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
)


@pytest.fixture
def stub() -> ChatStub:
    return ChatStub()


@pytest.fixture
def url(stub: ChatStub) -> Iterator[str]:
    with serving(stub) as root:
        yield root


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "dumb", **variables}


def piped(
    question: str | bytes, *words: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "llmkit", "chat", *words],
        input=question.encode() if isinstance(question, str) else question,
        capture_output=True,
        timeout=60,
        env=environment(**variables),
    )


class Terminal:
    """A chat in a terminal: type into it, and wait for what it shows."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-c", IN_A_TERMINAL, sys.executable, "-m", "llmkit", "chat"]
        self._process = subprocess.Popen(
            [*command, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._shown = ""

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def see(self, pattern: str) -> str:
        """Wait until something is shown, and take all up to its end."""
        deadline = time.monotonic() + 30
        while not (found := re.search(pattern, self._shown, re.DOTALL)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self._shown!r}"
            time.sleep(0.02)
            assert self._process.stdout is not None
            self._shown += (self._process.stdout.read() or b"").decode(errors="replace")
        shown, self._shown = self._shown[: found.end()], self._shown[found.end() :]
        return shown

    def end(self) -> int:
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def terminal(url: str) -> Iterator[Terminal]:
    opened = Terminal(url)
    yield opened
    opened.close()


def test_a_conversation_goes_on_and_starts_anew(terminal: Terminal, stub: ChatStub) -> None:
    terminal.see("base at http.*> ")
    terminal.type("one\n")
    terminal.see("base heard: one")
    terminal.see(r"TTFT .* tokens/s · 4 tokens")
    terminal.type("two\n")
    terminal.see("base heard: two")
    contents = [message["content"] for message in stub.requests[1]["messages"]]
    assert contents == ["one", "base heard: one", "two"]
    terminal.type("/reset\n")
    terminal.see("new conversation")
    terminal.type("//three\n")
    terminal.see("base heard: /three.*> ")
    assert [message["content"] for message in stub.requests[2]["messages"]] == ["/three"]
    terminal.type("/exit\n")
    assert terminal.end() == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat(terminal: Terminal, stub: ChatStub) -> None:
    terminal.see("> ")
    terminal.type("slow please\n")
    terminal.see("0 1 2 3 ")
    terminal.type("\x03")
    terminal.see("stopped.*> ")
    terminal.type("hello\n")
    terminal.see("base heard: hello.*> ")
    assert stub.gone == 1
    assert stub.requests[1]["messages"][1]["content"].startswith("0 1 2 3 ")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_ctrl_c_at_the_prompt_drops_the_line(terminal: Terminal, stub: ChatStub) -> None:
    terminal.see("> ")
    terminal.type("not this")
    terminal.see("not this")
    terminal.type("\x03")
    terminal.see("> ")
    terminal.type("this\n")
    terminal.see("base heard: this")
    assert [message["content"] for message in stub.requests[0]["messages"]] == ["this"]


def test_an_error_is_shown_and_the_chat_goes_on_without_what_failed(
    terminal: Terminal, stub: ChatStub
) -> None:
    terminal.see("> ")
    terminal.type("error please\n")
    terminal.see(r"400 invalid_request_error context_length_exceeded: cannot answer <b>error")
    terminal.type("/modle\n")
    terminal.see(r"Did you mean /model\?")
    terminal.type("hello\n")
    terminal.see("base heard: hello")
    assert [message["content"] for message in stub.requests[1]["messages"]] == ["hello"]


def test_a_question_from_a_pipe_is_answered_and_nothing_else_is_said(
    url: str, stub: ChatStub
) -> None:
    done = piped("two\nlines\n", url, "--model", "support@3", "--set", "temperature=0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"support@3 heard: two\nlines\n"
    assert stub.requests[0]["temperature"] == 0
    assert stub.requests[0]["messages"] == [{"role": "user", "content": "two\nlines"}]


@pytest.mark.parametrize(
    ("question", "code", "told"),
    [
        ("error x", 1, "error: 400 invalid_request_error context_length_exceeded: cannot"),
        ("break x", 1, "error: server_error engine_dead: engine died."),
        ("cut x", 1, "broke off before the answer was complete"),
        ("", 2, "standard input is empty"),
        (b"\xff", 2, "not UTF-8 at byte 0"),
    ],
)
def test_what_goes_wrong_with_a_piped_question_is_told(
    url: str, question: str | bytes, code: int, told: str
) -> None:
    done = piped(question, url)
    assert done.returncode == code
    assert told in done.stderr.decode()


def test_the_key_comes_from_the_environment_and_ours_comes_first() -> None:
    with serving(ChatStub(key="sk-right")) as url:
        refused = piped("hello", url)
        assert refused.returncode == 1
        assert "401 authentication_error invalid_api_key" in refused.stderr.decode()
        assert "LLMKIT_API_KEY" in refused.stderr.decode()
        keys = {"LLMKIT_API_KEY": "sk-right", "OPENAI_API_KEY": "sk-wrong"}
        assert piped("hello", url, **keys).returncode == 0
        assert piped("hello", url, OPENAI_API_KEY="sk-right").returncode == 0
        wrong = piped("hello", url, "--key", "sk-secret-wrong")
        assert wrong.returncode == 1
        assert "sk-secret-wrong" not in wrong.stderr.decode()


def test_without_a_key_none_is_sent(url: str, stub: ChatStub) -> None:
    assert piped("hello", url).returncode == 0
    assert stub.authorizations == {None}


def test_a_server_that_loads_is_waited_for() -> None:
    stub = ChatStub(ready=False)
    with serving(stub) as url:
        command = [sys.executable, "-m", "llmkit", "chat", url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment(), **pipes) as asking:  # type: ignore[call-overload]
            assert b"loading" in asking.stderr.readline()
            stub.ready = True
            out, _ = asking.communicate(b"hello", timeout=30)
    assert (asking.returncode, out) == (0, b"base heard: hello\n")


def test_no_server_is_told_with_what_to_do(url: str) -> None:
    done = piped("hello", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "llmkit serve MODEL" in done.stderr.decode()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "suport@3"], "Did you mean 'support@3'?"),
        (["--set", "temperature=9"], "a number from 0 to 2"),
        (["--set", "heat=1"], "write NAME=VALUE; names: temperature"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(
    url: str, stub: ChatStub, words: list[str], told: str
) -> None:
    done = piped("hello", url, *words)
    assert done.returncode == 2
    assert told in done.stderr.decode()
    assert stub.requests == []


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("localhost:8000", "http://localhost:8000/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("https://h/openai", "https://h/openai/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_a_url_is_completed(given: str, full: str) -> None:
    assert base_url(given) == full


@pytest.mark.parametrize("given", ["", "http://", "ftp://h", "http://h:99999", "http://[::1"])
def test_what_is_no_url_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="not a server's URL"):
        base_url(given)


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(["base", "support@3"], "base")


def test_commands_set_what_the_next_request_asks_for(conversation: Conversation) -> None:
    for line in ("/model support@3", "/system Be brief.", "/temperature 0", "/max_tokens 12"):
        run_command(line, conversation)
    conversation.say("hello")
    assert conversation.request() == {
        "model": "support@3",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hello"},
        ],
        "temperature": 0,
        "max_tokens": 12,
    }
    for line in ("/system default", "/temperature default", "/max_tokens default"):
        run_command(line, conversation)
    assert set(conversation.request()) == {"model", "messages"}
    assert conversation.request()["messages"][0]["role"] == "user"


def test_commands_without_an_argument_show_what_is_set(conversation: Conversation) -> None:
    assert run_command("/model", conversation).text == "* base\n  support@3"
    assert run_command("/temperature", conversation).text == "temperature default"
    shown = run_command("/settings", conversation).text
    assert all(name in shown for name in PARAMETERS)


@pytest.mark.parametrize(
    "line", ["/temperature 3", "/temperature nan", "/top_k 0.5", "/max_tokens 0", "/model other"]
)
def test_a_value_that_is_not_allowed_changes_nothing(conversation: Conversation, line: str) -> None:
    before = conversation.request()
    with pytest.raises(UsageError):
        run_command(line, conversation)
    assert conversation.request() == before


def test_again_asks_the_last_message_once_more(conversation: Conversation) -> None:
    with pytest.raises(UsageError, match="nothing was asked"):
        run_command("/again", conversation)
    conversation.say("one")
    conversation.hear("first")
    assert run_command("/again", conversation).ask
    assert conversation.messages == [{"role": "user", "content": "one"}]


def test_help_names_every_command(conversation: Conversation) -> None:
    shown = run_command("/help", conversation).text
    assert all(f"/{name}" in shown for name in COMMANDS)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        (["one\\", "two\\", "three"], "one\ntwo\nthree"),
        (['"""', "one", "", "  two", '"""'], "one\n\n  two"),
    ],
)
def test_a_message_may_have_several_lines(lines: list[str], message: str) -> None:
    rest = iter(lines)
    assert read_message(lambda prompt: next(rest)) == message


def test_an_answer_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\x9bc") == "a�[2Jb��c"
    assert printable("tab\tline\n👩‍🚀 é") == "tab\tline\n👩‍🚀 é"


def test_figures_are_of_what_came() -> None:
    answer = Answer("x", "length", tokens=11, sent=1.0, first=1.5, last=2.5)
    assert answer.figures() == "TTFT 0.50 s · 10.0 tokens/s · 11 tokens · cut at the token limit"
    assert Answer().figures() == ""
