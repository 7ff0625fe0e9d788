"""A worker that one image kills, as a decoder with a fault would."""

import os
from typing import Any

from scale.rows import Row
from scale.workers import Indexer


class Poisoned(Indexer):
    """An Indexer that ends its process at an image of the bytes b"kills"."""

    def _decode(self, row: Row) -> Any:
        if row.image == b"kills":
            os._exit(1)
        return super()._decode(row)
