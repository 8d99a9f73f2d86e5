"""A teacher that answers by rules: an OpenAI endpoint with planted faults.

What goes wrong with a task stands in its words: an instruction with ``leak`` in it always leaks.
Whether the network misbehaves depends on a hash of the request, and only the first time.
"""

import asyncio
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

STEP = "and explain step {}"


class ScriptedTeacher:
    """The app, and what it was asked."""

    def __init__(
        self, *, trouble: bool = False, latency: float = 0.0, schemas: bool = True
    ) -> None:
        self.trouble = trouble
        self.latency = latency
        self.schemas = schemas
        self.answered: Counter[str] = Counter()
        """How often each request got a whole answer."""
        self.received: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.refuse_with: tuple[int, dict[str, Any]] | None = None
        """A status and an error that every call gets."""
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self._complete)

    async def _complete(self, request: Request) -> Response:
        raw = await request.body()
        body = json.loads(raw)
        key = hashlib.sha256(raw).hexdigest()
        self.received[key] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.refuse_with:
                status, error = self.refuse_with
                return JSONResponse({"error": error}, status)
            if not self.schemas and "response_format" in body:
                return JSONResponse({"error": {"message": "response_format: unknown"}}, 400)
            if self.trouble and self.received[key] == 1:
                troubled = await _trouble(int(key[:2], 16))
                if troubled:
                    return troubled
            if self.latency:
                await asyncio.sleep(self.latency)
            text, finish = reply_to(body["messages"][-1]["content"], int(body.get("seed", 0)))
            self.answered[key] += 1
            self.bodies.append(body)
            return JSONResponse(_completion(body, text, finish))
        finally:
            self.at_once -= 1


async def _trouble(number: int) -> Response | None:
    if number % 8 == 0:
        error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
        return JSONResponse(error, 429, {"retry-after": "0.05"})
    if number % 8 == 1:
        return JSONResponse({"error": {"message": "overloaded"}}, 503)
    if number % 8 == 2:
        # Says more than it sends, and the server closes the connection on it.
        return Response("{", media_type="application/json", headers={"content-length": "100"})
    if number % 8 == 3:
        await asyncio.sleep(0.05)
    return None


def _completion(body: dict[str, Any], text: str, finish: str) -> dict[str, Any]:
    asked = sum(len(each["content"].split()) for each in body["messages"])
    usage = {"prompt_tokens": asked, "completion_tokens": len(text.split())}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }


def reply_to(prompt: str, seed: int) -> tuple[str, str]:
    """The text and the finish reason."""
    if "#Given Instruction#" in prompt:
        return _evolved(prompt)
    if "Are they the same in what they ask?" in prompt:
        return _same(prompt), "stop"
    if prompt.startswith("Score an instruction"):
        return _scores(prompt), "stop"
    if "Go on with the list: write tasks" in prompt:
        return _new_tasks(prompt, seed), "stop"
    if prompt.startswith("Is this task a classification task?"):
        task = prompt.split("Task: ")[-1]
        return json.dumps({"classification": "classify" in task}), "stop"
    if prompt.startswith("Write examples of a"):
        return _instances(prompt), "stop"
    if "### before each task" in prompt:
        return _alpaca(prompt, seed)
    return _answer(prompt)


def _evolved(prompt: str) -> tuple[str, str]:
    given = prompt.rsplit("#Given Instruction#\n", 1)[1].split("\n\nWrite the ", 1)[0]
    if "silent" in given:
        return "", "stop"
    if "cut evolution" in given:
        return f"{given} and then", "length"
    if "leak" in given:
        return f"{given}, and do not repeat the given instruction", "stop"
    if "endless" in given:
        return f"{given} {'more ' * 60}".strip(), "stop"
    if "copycat" in given:
        return f'"{given}"', "stop"
    return f"{given} {STEP.format(given.count('explain step') + 1)}", "stop"


def _same(prompt: str) -> str:
    if "mumbler" in prompt:
        return "I could not say."
    if "sloppy" in prompt:
        return "Sure!\n```json\n{'same': false,}\n```"
    return json.dumps({"same": "equal" in prompt})


def _scores(prompt: str) -> str:
    if "unscorable" in prompt:
        return "ten out of ten"
    quality = (
        2 if "poor" in prompt else 5 + int(hashlib.sha256(prompt.encode()).hexdigest()[0], 16) % 5
    )
    return json.dumps({"difficulty": 1 + prompt.count("explain step") % 10, "quality": quality})


def _answer(prompt: str) -> tuple[str, str]:
    if "refused" in prompt:
        return "I'm sorry, but I cannot help with that.", "stop"
    if "blank" in prompt:
        return "... and so, of the, to!", "stop"
    if "unfinished" in prompt:
        return "It begins well and then it", "length"
    return (
        f"Here is what you asked for: {hashlib.sha256(prompt.encode()).hexdigest()[:12]}.",
        "stop",
    )


WORDS = (
    *("river", "mountain", "engine", "poem", "budget", "recipe", "planet", "contract", "garden"),
    *("violin", "harbour", "theorem", "election", "bakery", "glacier", "novel", "bridge", "market"),
    *("vaccine", "lantern", "orchard", "satellite", "ballad", "ledger", "compass", "festival"),
)
VERBS = ("Describe", "Compare", "Summarise", "Explain", "Invent", "Criticise", "Translate", "List")


def _task(number: int) -> str:
    digest = hashlib.sha256(str(number).encode()).digest()
    words = [WORDS[byte % len(WORDS)] for byte in digest[1:7]]
    return f"{VERBS[digest[0] % len(VERBS)]} {' '.join(words)} number {number}"


def _new_tasks(prompt: str, seed: int) -> str:
    first = int(re.search(r"write tasks (\d+) to", prompt)[1])
    repeated = re.search(r"^1\. (.*)$", prompt, re.M)[1]
    lines = [
        f"{first}. {_task(seed % 100_000)}",
        f"{first + 1}. Draw a picture of a {WORDS[seed % 26]} for me please",
        f"{first + 2}. {repeated}",
        f"{first + 3}. Too short",
        f"{first + 4}. Write a program that counts {WORDS[seed % 26]}s",
        f"{first + 5}. classify the {WORDS[seed % 26]} number {seed}"
        f" by its {WORDS[seed // 26 % 26]}",
    ]
    return "\n".join(lines)


def _instances(prompt: str) -> str:
    task = prompt.rsplit("Task: ", 1)[1].strip()
    number = int(re.search(r"number (\d+)", task)[1])
    if number % 11 == 0:
        return "I do not know any.\nExample 1\nInput: nothing"
    if "Label: " in prompt or "label first" in prompt:
        return "Example 1\nLabel: big\nInput: whale\n\nExample 2\nLabel: small\nInput: mouse\n"
    if number % 7 == 0:
        return "Example 1\nInput: one\nOutput: first\n\nExample 2\nInput: one\nOutput: second\n"
    return f"Example 1\nInput: <noinput>\nOutput: An answer to {task}.\n"


def _alpaca(prompt: str, seed: int) -> tuple[str, str]:
    repeated = re.search(r"^1\. Instruction: (.*)$", prompt, re.M)[1]
    text = (
        f" {_task(seed % 100_000)}\n4. Input:\n<noinput>\n4. Output:\nAll about it.\n"
        f"###\n5. Instruction: {repeated}\n5. Input:\n<noinput>\n5. Output:\nAgain.\n"
        f"###\n6. Instruction: {_task(seed % 99_991 + 1)}\n"
        "6. Input:\nsome text\n6. Output:\nDone.\n"
        "###\n7. Instruction: This one was cut in the"
    )
    return text, "length"


@contextmanager
def serving(teacher: ScriptedTeacher) -> Iterator[str]:
    """Serve a teacher on loopback; gives its base URL."""
    config = uvicorn.Config(
        teacher.app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join()
