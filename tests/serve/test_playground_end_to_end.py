"""The page and the terminal chat on the real engine."""

import os
import subprocess
import sys

import httpx
import pytest
from browsing import NEEDS_CHROMIUM, chromium
from playwright.sync_api import expect

from serve.process import ServerProcess

pytestmark = pytest.mark.end_to_end

QUESTION = "What is the capital of France?"


@NEEDS_CHROMIUM
def test_the_page_shows_what_the_engine_answers_token_by_token(server: ServerProcess) -> None:
    complaints: list[str] = []
    with chromium() as browser, browser.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.goto(server.root_url)
        expect(page.locator("#model")).to_have_value(server.model.name)
        page.fill("#temperature", "0")
        page.fill("#max_tokens", "30")
        page.check("#logprobs")
        page.fill("#prompt", QUESTION)
        page.press("#prompt", "Enter")
        expect(page.locator(".again")).to_be_visible(timeout=60_000)
        tokens = page.locator(".token:not(.ending)").all_text_contents()
        figures = page.locator(".figures").inner_text()
        page.hover(".token >> nth=0")
        expect(page.locator("#alternatives .row")).to_have_count(5)
        expect(page.locator("#chart-running b")).to_have_text("0")
        ending = page.locator(".token.ending").all_text_contents()
    answer = httpx.post(
        f"{server.url}/chat/completions",
        json={
            "model": server.model.name,
            "messages": [{"role": "user", "content": QUESTION}],
            "temperature": 0,
            "max_tokens": 30,
        },
        timeout=60,
    ).json()
    assert "Paris" in "".join(tokens)
    assert "".join(tokens) == answer["choices"][0]["message"]["content"]
    assert f" {answer['usage']['completion_tokens']} tokens " in figures
    assert ending in ([], ["<|im_end|>"])
    assert complaints == []


def test_the_terminal_chat_prints_what_the_engine_answers(server: ServerProcess) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmkit", "chat", server.root_url, "--set", "temperature=0"],
        input=QUESTION,
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")},
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
