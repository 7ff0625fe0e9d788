"""The loop over batches, with its progress bar."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

import config

Item = TypeVar("Item")
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
