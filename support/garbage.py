"""Python's search for garbage, suspended while many objects are made that stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_search_for_garbage() -> Iterator[None]:
    """Python looks through all objects again and again while their number grows: not here."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
