"""One pure function over many items, in several processes, answers in order.

The answers are those of a plain loop, whatever the number of workers.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from data_prep.errors import DataError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AHEAD = 2
"""Items that wait for each worker: enough to keep it busy, few enough to hold in memory."""


def available_workers() -> int:
    """Processes that this machine runs at once."""
    return max(
        1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def map_ordered(
    function: Callable[[Item], Answer], items: Iterable[Item], workers: int
) -> Iterator[Answer]:
    """Answer ``function(item)`` for every item, in the items' order.

    With one worker, or one item, nothing is started: it all happens in this process.

    Args:
        function: pure and picklable; each worker gets it once.
        items: taken as they are needed, `AHEAD` for each worker.
        workers: processes.

    Raises:
        DataError: a worker was killed, most likely because memory ran out; or could not start,
            because the script that is running does not protect its own start.
        Exception: what ``function`` raised, for the earliest item that made it.
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if workers <= 1 or len(first) < 2:
        for item in (*first, *rest):
            yield function(item)
        return
    # Forking a process that has threads (Arrow's, the tokenizer's) may hang the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _keep, (function,)) as pool:
        waiting: deque[Future[Answer]] = deque()
        try:
            for item in (*first, *islice(rest, max(0, AHEAD * workers - len(first)))):
                waiting.append(_submit(pool, item))
            while waiting:
                answer = waiting.popleft().result()
                waiting.extend(_submit(pool, item) for item in islice(rest, 1))
                yield answer
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, most likely because memory ran out. Use fewer "
                f"workers than {workers} (data.workers) or smaller shards (data.shard_rows); "
                "what was finished is kept, and the same command goes on from there. In a script "
                "of your own, workers import the script: what it does belongs below "
                "`if __name__ == '__main__':`, or ask for one worker."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, item: Any) -> Future[Any]:
    """Hand an item in, which may start a process.

    Ctrl-C goes to every process of a terminal. A worker inherits that it does not hear of it, and
    ends with the process that started it: in silence, and without half an item.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return pool.submit(_call, item)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_call, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_kept: list[Callable[..., Any]] = []


def _keep(function: Callable[..., Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # One process a core is enough: the tokenizer's own threads would fight for them.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _kept[:] = [function]


def _end_with_parent() -> None:
    """A parent that is killed tells nobody: its workers would wait for items for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(item: Any) -> Any:
    return _kept[0](item)
