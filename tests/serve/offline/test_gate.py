"""How many lines run at a time."""

import asyncio
from dataclasses import dataclass

from serve.offline.gate import Gate


@dataclass
class Others:
    interactive: int = 0
    waiting: int = 0


async def settle() -> None:
    await asyncio.sleep(0.12)


async def entered(gate: Gate, lines: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(gate.enter()) for _ in range(lines)]
    await settle()
    return tasks


def test_alone_lines_take_every_place_and_no_more() -> None:
    async def scenario() -> None:
        gate = Gate(16, Others())
        tasks = await entered(gate, 20)
        assert sum(task.done() for task in tasks) == gate.running == 16
        gate.leave()
        await settle()
        assert sum(task.done() for task in tasks) == 17

    asyncio.run(scenario())


def test_beside_interactive_requests_few_run_and_beside_waiting_ones_none() -> None:
    async def scenario() -> None:
        others = Others(interactive=1)
        gate = Gate(16, others)
        tasks = await entered(gate, 20)
        assert gate.running == 2
        others.waiting = 1
        gate.leave()
        gate.leave()
        await settle()
        assert gate.running == 0
        others.interactive = others.waiting = 0
        await settle()
        assert gate.running == 16
        assert sum(task.done() for task in tasks) == 18

    asyncio.run(scenario())


def test_one_that_gives_up_leaves_its_place_to_the_next() -> None:
    async def scenario() -> None:
        gate = Gate(1, Others())
        await gate.enter()
        first, second = await entered(gate, 2)
        first.cancel()
        await settle()
        gate.leave()
        await settle()
        assert second.done()
        assert gate.running == 1
        # Given its place and cancelled in the same moment.
        third = asyncio.create_task(gate.enter())
        await settle()
        gate.leave()
        third.cancel()
        await settle()
        assert gate.running == 0

    asyncio.run(scenario())
