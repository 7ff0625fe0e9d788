"""Work in threads: for what lets other threads run, such as decoding images."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
