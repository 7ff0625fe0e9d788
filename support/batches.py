"""The loop over batches, with its progress bar."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

import config

Item = TypeVar("Item")
Output = TypeVar("Output")
_shown: list[tqdm] = []  # the bars of loops that are running


def batches(
    items: Sequence[Item], size: int, description: str, unit: str, *, done: int = 0, least: int = 1
) -> Iterator[Sequence[Item]]:
    """Consecutive slices of `items`; the bar advances when the caller has worked on one.

    `done` items were finished before. Fewer than `least` items show no bar, and neither does a loop
    inside another.
    """
    total = done + len(items)
    hidden = total < least or not config.SHOW_PROGRESS or bool(_shown)
    with tqdm(total=total, initial=done, desc=description, unit=unit, disable=hidden) as bar:
        _shown.append(bar)
        try:
            for start in range(0, len(items), size):
                batch = items[start : start + size]
                yield batch
                bar.update(len(batch))
        finally:
            _shown.remove(bar)


def batches_read(
    items: Sequence[Item],
    size: int,
    description: str,
    unit: str,
    read: Callable[[Sequence[Item]], Output],
    ahead: bool,
) -> Iterator[Output]:
    """`read(batch)` for `batches`; `ahead`: while the caller works on the one before.

    That is worth it where the caller's work is done elsewhere, on a GPU say. On a CPU that is busy
    with one batch, reading the next one only takes turns with it.
    """
    if not ahead:
        yield from map(read, batches(items, size, description, unit))
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(read, items[:size])
        for start, _ in enumerate(batches(items, size, description, unit), 1):
            following = items[start * size : (start + 1) * size]
            current, coming = coming, thread.submit(read, following)
            yield current.result()
