"""The page in a real browser, against a stub of the API. Skipped where there is no Chromium."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import NEEDS_CHROMIUM, chromium
from chat_stub import ChatStub, serving
from playwright.sync_api import Browser, Page, expect

from serve.gateway.playground import Playground

pytestmark = NEEDS_CHROMIUM

NASTY = 'It\'s "quoted", $HOME `id` \\n and\na second line: ünï 🙂 </script> !'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def stub() -> ChatStub:
    return ChatStub()


@pytest.fixture
def url(stub: ChatStub) -> Iterator[str]:
    with serving(Playground(stub)) as root:
        yield root


@pytest.fixture
def complaints() -> list[str]:
    """What the browser finds wrong with the page: errors of scripts, breaches of the policy."""
    return []


@pytest.fixture
def page(browser: Browser, url: str, complaints: list[str]) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        opened = context.new_page()
        opened.set_default_timeout(10_000)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda line: _note(line, complaints))
        opened.goto(url)
        expect(opened.locator("#send")).to_be_enabled()
        yield opened


def _note(line: object, complaints: list[str]) -> None:
    text = str(getattr(line, "text", ""))
    # Chromium reports every answer over 399 by itself; the tests look at how they are shown.
    if getattr(line, "type", "") in ("error", "warning") and "Failed to load resource" not in text:
        complaints.append(text)


def ask(page: Page, question: str) -> None:
    """Send a message and wait until its answers are complete."""
    page.fill("#prompt", question)
    page.press("#prompt", "Enter")
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".turn").last.locator(".again")).to_be_visible()


def until(page: Page, condition: str) -> None:
    """Wait for it. (Playwright's own waiting evaluates in the page, which the policy forbids.)"""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


def answer(page: Page, side: int = 0) -> str:
    return page.locator(".turn").last.locator(".answer .text").nth(side).inner_text()


def test_the_page_names_what_is_served_and_asks_nobody_else(
    browser: Browser, url: str, stub: ChatStub
) -> None:
    with browser.new_context() as context:
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        expect(page.locator("#server-text")).to_have_text("ready")
        expect(page.locator("#model option")).to_have_text(["base", "support@3"])
        assert page.locator("#model optgroup").evaluate_all(
            "groups => groups.map((group) => group.label)"
        ) == ["Models", "Adapters"]
        assert all(address.startswith(url) for address in asked)


def test_an_answer_is_streamed_with_its_figures(
    page: Page, stub: ChatStub, complaints: list[str]
) -> None:
    ask(page, "hello there")
    assert answer(page) == "base heard: hello there"
    figures = page.locator(".figures").inner_text()
    assert figures.startswith("TTFT ")
    assert " tokens/s · 5 tokens · " in figures
    assert "logprobs" not in stub.requests[0]
    assert complaints == []


def test_the_answer_grows_while_it_comes(page: Page) -> None:
    page.fill("#prompt", "slow please")
    page.click("#send")
    text = page.locator(".answer .text")
    expect(text).to_contain_text("0 1 2 ")
    expect(text).to_contain_text(" 10 ")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    expect(page.locator(".figures")).to_contain_text("stopped")


def test_the_end_stays_in_sight_unless_the_reader_went_up(page: Page) -> None:
    page.set_viewport_size({"width": 700, "height": 360})
    page.fill("#prompt", "slow please")
    page.click("#send")
    until(page, "log.scrollHeight > log.clientHeight + 80")
    until(page, "log.scrollHeight - log.clientHeight - log.scrollTop < 4")
    page.evaluate("log.scrollTop = 0")
    page.wait_for_timeout(1500)
    assert page.evaluate("log.scrollTop") == 0
    page.keyboard.press("Escape")


def test_stop_ends_the_request_and_keeps_what_came(page: Page, stub: ChatStub) -> None:
    page.fill("#prompt", "slow please")
    page.click("#send")
    expect(page.locator(".answer .text")).to_contain_text("2 ")
    page.click("#stop")
    expect(page.locator("#send")).to_be_visible()
    assert answer(page).startswith("0 1 2")
    expect(page.locator(".figures")).to_contain_text("about ")
    page.wait_for_timeout(200)
    assert (stub.gone, stub.running) == (1, 0)


def test_the_conversation_goes_along_with_the_next_question(page: Page, stub: ChatStub) -> None:
    page.fill("#system", "Be brief.")
    ask(page, "one")
    ask(page, "two")
    assert stub.requests[1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "base heard: one"},
        {"role": "user", "content": "two"},
    ]
    page.click("#new-chat")
    ask(page, "three")
    assert [message["content"] for message in stub.requests[2]["messages"]] == [
        "Be brief.",
        "three",
    ]


def test_an_answer_asked_for_again_replaces_the_first(page: Page, stub: ChatStub) -> None:
    ask(page, "one")
    page.click(".again")
    expect(page.locator(".again")).to_be_visible()
    assert page.locator(".answer").count() == 1
    assert stub.requests[0] == stub.requests[1]


def test_side_by_side_asks_base_and_adapter_each_with_its_own_history(
    page: Page, stub: ChatStub
) -> None:
    page.check("#compare")
    ask(page, "one")
    assert (answer(page, 0), answer(page, 1)) == ("base heard: one", "support@3 heard: one")
    ask(page, "two")
    second = {body["model"]: body["messages"] for body in stub.requests[2:]}
    assert second["base"][1]["content"] == "base heard: one"
    assert second["support@3"][1]["content"] == "support@3 heard: one"


def test_one_model_alone_is_not_compared(browser: Browser) -> None:
    stub = ChatStub(models=(("base", None),))
    with serving(Playground(stub)) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#model option")).to_have_count(1)
        expect(page.locator("#compare")).to_be_disabled()


def test_adapters_are_told_from_the_base_and_its_other_name(browser: Browser) -> None:
    models = (("smollm2", None), ("base", "smollm2"), ("support@1", "smollm2"))
    stub = ChatStub(models=(*models, ("support", "support@1")))
    with serving(Playground(stub)) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#model optgroup[label=Models] option")).to_have_text(
            ["smollm2", "base"]
        )
        assert (page.input_value("#model"), page.input_value("#second")) == ("smollm2", "support@1")


def test_an_adapter_loaded_meanwhile_is_offered_in_a_new_chat(page: Page, stub: ChatStub) -> None:
    page.select_option("#model", "support@3")
    stub.models = (*stub.models, ("support@4", "base"))
    page.click("#new-chat")
    expect(page.locator("#model option")).to_have_text(["base", "support@3", "support@4"])
    assert page.input_value("#model") == "support@3"


def test_fields_that_are_filled_are_sent_and_no_others(page: Page, stub: ChatStub) -> None:
    page.fill("#temperature", "0")
    page.fill("#max_tokens", "12")
    page.click("#more summary")
    page.fill("#min_p", "0.05")
    page.fill("#stops", "END\n\n###")
    ask(page, "hello")
    sent = {
        name: value
        for name, value in stub.requests[0].items()
        if name not in ("model", "messages", "stream", "stream_options")
    }
    assert sent == {"temperature": 0, "max_tokens": 12, "min_p": 0.05, "stop": ["END", "###"]}


def test_a_value_out_of_range_is_pointed_at_and_not_sent(page: Page, stub: ChatStub) -> None:
    page.click("#more summary")
    page.fill("#min_p", "7")
    page.click("#more summary")
    page.click("#show-panel")
    page.fill("#prompt", "hello")
    page.press("#prompt", "Enter")
    expect(page.locator("#min_p")).to_be_focused()
    assert stub.requests == []
    assert page.input_value("#prompt") == "hello"


def test_tokens_are_coloured_by_probability_and_show_their_alternatives(
    page: Page, stub: ChatStub, complaints: list[str]
) -> None:
    page.check("#logprobs")
    ask(page, "a considerably")
    assert (stub.requests[0]["logprobs"], stub.requests[0]["top_logprobs"]) == (True, 5)
    doubts = page.locator(".token").evaluate_all(
        "tokens => tokens.map((t) => [t.textContent, t.style.getPropertyValue('--doubt')])"
    )
    assert doubts[2] == ["a ", "0.240"]
    assert float(doubts[3][1]) > 0.9
    page.hover(".token >> nth=2")
    tip = page.locator("#alternatives")
    expect(tip.locator(".row")).to_have_count(3)
    expect(tip.locator(".chosen")).to_contain_text("a␣76.0%")
    expect(tip).to_contain_text("third⏎0.7%")
    assert complaints == []


def test_the_token_that_ended_the_answer_is_told_apart_from_its_text(page: Page) -> None:
    page.check("#logprobs")
    ask(page, "hello")
    expect(page.locator(".token.ending")).to_have_text(["<|im_end|>"])


def test_tokens_can_be_walked_through_with_the_keyboard(page: Page) -> None:
    page.check("#logprobs")
    ask(page, "hello")
    page.focus(".token >> nth=0")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token >> nth=1")).to_be_focused()
    expect(page.locator("#alternatives .chosen")).to_contain_text("heard:")


def test_an_error_is_shown_as_the_api_gave_it_and_as_text(page: Page, stub: ChatStub) -> None:
    ask(page, "error please")
    box = page.locator(".error")
    expect(box.locator(".title")).to_have_text(
        "400 · invalid_request_error · context_length_exceeded · param messages"
    )
    expect(box.locator(".text")).to_have_text("cannot answer <b>error please</b>.")
    expect(box).to_contain_text("req-17")
    expect(box.locator("pre")).to_contain_text('"type": "invalid_request_error"')
    ask(page, "hello")
    assert [message["content"] for message in stub.requests[1]["messages"]] == ["hello"]


@pytest.mark.parametrize(
    ("question", "message"),
    [("break it", "engine died."), ("cut it", "broke off before the answer was complete")],
)
def test_an_answer_that_breaks_off_says_so_and_keeps_what_came(
    page: Page, question: str, message: str
) -> None:
    ask(page, question)
    expect(page.locator(".error")).to_contain_text(message)
    assert page.locator(".answer .text").first.inner_text().startswith("base heard: ")


def test_an_empty_answer_is_called_empty(page: Page) -> None:
    ask(page, "nothing")
    expect(page.locator(".body")).to_have_text("(empty answer)")


def test_a_server_that_is_gone_is_said_to_be(browser: Browser, stub: ChatStub) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        with serving(Playground(stub)) as url:
            page.goto(url)
            expect(page.locator("#model option")).to_have_count(2)
        ask(page, "hello")
        expect(page.locator(".error")).to_contain_text("The server does not answer")
        expect(page.locator("#server-text")).to_have_text("not reachable")


def test_the_key_is_asked_for_and_kept_in_this_tab_only(browser: Browser) -> None:
    stub = ChatStub(key="sk-right")
    with serving(Playground(stub)) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#notice")).to_contain_text("401")
        expect(page.locator("#key")).to_be_focused()
        page.fill("#key", "sk-wrong")
        with page.expect_response("**/v1/models"):
            page.keyboard.press("Tab")
        page.wait_for_timeout(50)
        expect(page.locator("#key")).not_to_be_focused()
        page.fill("#key", "sk-right")
        page.keyboard.press("Tab")
        expect(page.locator("#model option")).to_have_count(2)
        expect(page.locator("#notice")).to_be_hidden()
        ask(page, "hello")
        stored = page.evaluate("[JSON.stringify(sessionStorage), JSON.stringify(localStorage)]")
        assert "sk-right" in stored[0]
        assert "sk-right" not in stored[1]
        assert context.cookies() == []
        page.click("#show-code")
        assert "sk-right" not in page.locator("#code").inner_text()
        page.reload()
        expect(page.locator("#model option")).to_have_count(2)
        assert page.input_value("#key") == "sk-right"
        other = context.new_page()
        other.goto(url)
        assert other.input_value("#key") == ""


@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_code_to_copy_asks_what_the_page_asked(
    page: Page, stub: ChatStub, language: str
) -> None:
    if language == "curl" and not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    page.fill("#system", NASTY)
    page.fill("#temperature", "0.5")
    page.click("#more summary")
    page.fill("#top_k", "40")
    page.check("#logprobs")
    ask(page, NASTY)
    page.click("#show-code")
    code = page.locator(f"#code-{language}").text_content()
    assert code is not None
    command = ["sh", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "LLMKIT_API_KEY": "sk-x"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert "heard" in done.stdout
    asked, again = stub.requests
    del asked["stream_options"]
    assert again == asked


def test_what_is_copied_is_the_code(browser: Browser, url: str) -> None:
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#model option")).to_have_count(2)
        page.click("#show-code")
        page.click("[data-copy=code-curl]")
        expect(page.locator("#copied")).to_have_text("Copied.")
        assert page.evaluate("navigator.clipboard.readText()").startswith("curl 'http://127")


def test_a_stream_is_read_wherever_the_network_cuts_it(page: Page) -> None:
    texts = ["ünï ", "🙂", "data: [DONE]\n", "数"]
    chunks = [json.dumps({"choices": [t]}, ensure_ascii=False) for t in texts]
    read = """async ([text, size]) => {
        const { chunks } = await import("/playground/api.js");
        const bytes = new TextEncoder().encode(text);
        const body = new ReadableStream({ start(controller) {
            for (let at = 0; at < bytes.length; at += size)
                controller.enqueue(bytes.slice(at, at + size));
            controller.close();
        } });
        const headers = { "content-type": "text/event-stream" };
        const found = [];
        for await (const chunk of chunks(new Response(body, { headers })))
            found.push(chunk.choices[0]);
        return found;
    }"""
    for end in ("\n", "\r\n"):
        events = "".join(f"data: {one}{end}{end}" for one in [*chunks, "[DONE]"])
        for size in (1, 2, 3, 7, 10_000):
            assert page.evaluate(read, [f": comment{end}{end}{events}", size]) == texts


def test_the_charts_follow_the_metrics(page: Page, stub: ChatStub) -> None:
    page.fill("#prompt", "slow please")
    page.click("#send")
    expect(page.locator("#chart-running b")).to_have_text("1")
    expect(page.locator("#chart-waiting b")).to_have_text("3")
    expect(page.locator("#chart-kv b")).to_have_text("42.5%")
    # The stub sends a token every 20 ms, the browser looks once a second.
    until(page, "Number(document.querySelector('#chart-speed b').textContent) > 5")
    page.click("#stop")
    label = page.locator("#chart-kv svg").get_attribute("aria-label")
    assert label == "KV cache: now 42.5%, at most 42.5%"


def test_a_server_that_loads_is_waited_for(browser: Browser) -> None:
    stub = ChatStub(ready=False)
    with serving(Playground(stub)) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#server-text")).to_have_text("loading")
        page.fill("#prompt", "kept until there is someone to ask")
        page.press("#prompt", "Enter")
        assert page.input_value("#prompt") != ""
        assert not {"/metrics", "/v1/models"} & set(stub.paths)
        stub.ready = True
        expect(page.locator("#server-text")).to_have_text("ready")
        expect(page.locator("#model option")).to_have_count(2)


def test_a_phone_has_room_for_all_of_it(browser: Browser, url: str) -> None:
    with browser.new_context(
        viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True
    ) as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#model option")).to_have_count(2)
        expect(page.locator("#panel")).to_be_hidden()
        page.tap("#show-panel")
        page.check("#logprobs")
        page.tap("#show-panel")
        page.check("#compare")
        page.fill("#prompt", "a_word_without_any_space_in_it_that_is_longer_than_a_phone_is_wide")
        page.tap("#send")
        expect(page.locator(".again")).to_be_visible()
        page.tap(".token >> nth=1")
        expect(page.locator("#alternatives")).to_be_visible()
        for element in ("document.documentElement", "document.getElementById('log')"):
            assert page.evaluate(f"{element}.scrollWidth <= {element}.clientWidth"), element
        expect(page.locator("#prompt")).to_be_in_viewport()


def test_the_colours_follow_the_system_until_the_button_says_otherwise(page: Page) -> None:
    def paper() -> object:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.emulate_media(color_scheme="light")
    light = paper()
    page.emulate_media(color_scheme="dark")
    dark = paper()
    assert light != dark
    page.click("#theme")
    assert (page.inner_text("#theme"), paper()) == ("Light", light)
    page.reload()
    assert paper() == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_that_shuts_people_out(
    browser: Browser, url: str, scheme: Literal["light", "dark"], width: int
) -> None:
    # The policy keeps axe itself out, hence the bypass.
    with browser.new_context(
        bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 800}
    ) as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#send")).to_be_enabled()
        if width < 600:
            page.click("#show-panel")
        page.check("#logprobs")
        if width < 600:
            page.click("#show-panel")
        page.check("#compare")
        ask(page, "hello")
        ask(page, "error please")
        assert_accessible(page)
        page.click("#show-code")
        assert_accessible(page)
        page.keyboard.press("Escape")
        page.click("#show-panel")
        assert_accessible(page)


def assert_accessible(page: Page) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_markup_and_signs_in_messages_are_text(page: Page, stub: ChatStub) -> None:
    ask(page, NASTY)
    assert stub.requests[0]["messages"][0]["content"] == NASTY
    assert answer(page) == f"base heard: {NASTY}"
