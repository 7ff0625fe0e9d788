"""Work in threads: for what lets other threads run, such as decoding images, or waiting."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Output = TypeVar("Output")

MOST_THREADS = 16  # each holds an image while it is decoded
MOST_AT_ONCE = 16  # items that a thread takes at once; to take each alone costs a tenth of a ms


def in_threads(work: Callable[[Item], Output], items: Sequence[Item]) -> list[Output]:
    """`work(item)` for each of `items`, in their order. Raises what the first that fails raises.

    The threads are gone afterwards: a process that forks later does not wait for them in vain.
    """
    count = min(len(items), os.cpu_count() or 1, MOST_THREADS)
    if count < 2:
        return [work(item) for item in items]
    size = max(1, min(MOST_AT_ONCE, len(items) // (4 * count)))
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(count) as threads:
        return [out for part in threads.map(lambda part: [*map(work, part)], parts) for out in part]


def in_daemon_threads(
    work: Callable[[Item, threading.Event], Output], items: Sequence[Item], count: int
) -> list[Output]:
    """`work(item, stop)` for each of `items`, in their order, `count` at once: for waiting.

    Raises the first error as soon as there is one, Ctrl-C too. `stop` is set then, and nothing
    waits for threads that still do: neither the caller nor the end of the process.
    """
    stop, jobs = threading.Event(), SimpleQueue[tuple[Item, Future[Output]]]()
    futures: list[Future[Output]] = [Future() for _ in items]
    for job in zip(items, futures, strict=True):
        jobs.put(job)
    for _ in range(min(count, len(items))):
        threading.Thread(target=_work_off, args=(work, jobs, stop), daemon=True).start()
    try:
        pending = set(futures)
        while pending:  # with a limit, since Windows heeds no Ctrl-C in a wait without
            done, pending = wait(pending, timeout=1.0, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
    finally:
        stop.set()
    return [future.result() for future in futures]


def _work_off(
    work: Callable[[Item, threading.Event], Output],
    jobs: "SimpleQueue[tuple[Item, Future[Output]]]",
    stop: threading.Event,
) -> None:
    with suppress(Empty):
        while not stop.is_set():
            item, future = jobs.get_nowait()
            try:
                future.set_result(work(item, stop))
            except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                future.set_exception(error)
