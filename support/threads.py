"""Work in threads: for what lets other threads run, such as decoding images."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Output = TypeVar("Output")

MOST_THREADS = 16  # each holds an image while it is decoded


def in_threads(work: Callable[[Item], Output], items: Sequence[Item]) -> list[Output]:
    """`work(item)` for each of `items`, in their order. Raises what the first that fails raises.

    The threads are gone afterwards: a process that forks later does not wait for them in vain.
    """
    count = min(len(items), os.cpu_count() or 1, MOST_THREADS)
    if count < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(work, items))
