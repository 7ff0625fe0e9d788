"""A numpy array that grows at its end."""

import numpy as np


class GrowingArray:
    """One-dimensional; appending costs the same however long it is, and earlier views stay."""

    def __init__(self, dtype: type):
        self._room: np.ndarray = np.empty(16, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> np.ndarray:
        """(N,) what was added; a view."""
        return self._room[: self._size]

    def extend(self, values: np.ndarray | list) -> None:
        size = self._size + len(values)
        if size > len(self._room):
            room = np.empty(max(size, 2 * len(self._room)), self._room.dtype)
            room[: self._size] = self.values
            self._room = room
        self._room[self._size : size] = values
        self._size = size

    def detach(self) -> None:
        """Lets the views that were given out keep their values when this array's change."""
        self._room = self._room.copy()
