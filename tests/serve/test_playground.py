"""The layer that serves the page at /, without a browser."""

import asyncio
import re

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.chain import Gateway
from serve.gateway.errors import send_json
from serve.gateway.playground import CONTENT_SECURITY_POLICY, Playground
from serve.gateway.readiness import Readiness
from serve.playground import FOLDER, PAGE, assets
from serve.settings import ServeSettings


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send_json(send, 200, {"path": scope["path"]})


def call(app: ASGIApp, method: str, path: str, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize("path", [PAGE, FOLDER + "main.js", FOLDER + "style.css"])
def test_the_page_and_its_files_come_whole_and_under_the_policy(path: str) -> None:
    answer = call(Playground(echo), "GET", path)
    assert answer.status_code == 200
    assert answer.content == assets()[path].content
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_policy_lets_in_nothing_inline_and_nothing_from_elsewhere() -> None:
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert {value for rule, value in rules.items() if rule.endswith("-src")} == {"'none'", "'self'"}


def test_the_files_name_no_address_outside() -> None:
    for path, asset in assets().items():
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", asset.content.decode()))
        # XML's name for SVG is no address that is asked for anything.
        assert addresses <= {"http://www.w3.org/2000/svg"}, path


def test_every_file_that_the_page_asks_for_is_there() -> None:
    named = {
        name
        for asset in assets().values()
        for name in re.findall(r"/playground/[\w.-]+", asset.content.decode())
    }
    assert FOLDER + "main.js" in named
    assert named <= set(assets())


def test_a_copy_that_is_still_right_is_not_sent_again() -> None:
    app = Playground(echo)
    etag = call(app, "GET", PAGE).headers["etag"]
    for given in (etag, f'"other", W/{etag}', "*"):
        answer = call(app, "GET", PAGE, **{"if-none-match": given})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert call(app, "GET", PAGE, **{"if-none-match": '"other"'}).status_code == 200


def test_head_is_get_without_the_body() -> None:
    got, head = (call(Playground(echo), method, PAGE) for method in ("GET", "HEAD"))
    assert head.content == b""
    assert head.headers == got.headers


def test_the_page_takes_no_posts() -> None:
    answer = call(Playground(echo), "POST", PAGE)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/playground", "/playground/", "/playground/index.html", "/playground/__init__.py"]
)
def test_other_paths_are_passed_on(path: str) -> None:
    assert call(Playground(echo), "GET", path).json() == {"path": path}


def test_a_path_cannot_climb_out_of_the_folder() -> None:
    for path in ("/playground/../settings.py", "/playground/%2e%2e/settings.py"):
        assert "path" in call(Playground(echo), "GET", path).json()


def test_the_page_is_there_before_the_model_is_and_only_if_it_is_wanted() -> None:
    for wanted, status in ((True, 200), (False, 404)):
        app = Gateway(ServeSettings(playground=wanted)).outside(Readiness())
        assert call(app, "GET", PAGE).status_code == status
