"""Which gallery in Milvus is meant: its address, its name, and the models that made it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from image_embedder import BACKEND
from support.records import ModelRef


@dataclass(frozen=True)
class Address:
    """Where the gallery of a dataset is, and which models it belongs to."""

    url: str
    name: str  # the dataset's, as users call it
    clip: ModelRef  # with their revisions
    text: ModelRef

    def identity(self) -> dict[str, Any]:
        """What must be the same for vectors to be compared, as the gallery's description has it."""
        models = {"model": self.clip, "text_model": self.text}
        named = {kind: [ref.name, ref.revision] for kind, ref in models.items()}
        return {"dataset": self.name, "image_processor": BACKEND, **named}

    @property
    def prefix(self) -> str:
        """Of both collections: another model's are others."""
        text = json.dumps(self.identity(), sort_keys=True)
        return f"{self.name}_{sha256(text.encode()).hexdigest()[:10]}"


class Sizes(NamedTuple):
    """What models say of their vectors."""

    dimension: int
    text_dimension: int
    decoded_for: int | None  # see VectorTable.decoded_for


def said(identity: Mapping[str, Any]) -> str:
    """The models of a gallery in words."""
    models = identity["model"], identity["text_model"]
    return " and ".join(f"{name} ({str(revision)[:14]})" for name, revision in models)
