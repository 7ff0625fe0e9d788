"""A dataset with its databases: the outcome of stages 1 and 2, and the input of all others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import config
from dataset_loader import DatasetLoader
from db_manager import DatabaseManager
from experiments.index import CaptionIndex, ImageIndex
from similarity_search import CaptionPool, Pool
from support.candidates import Candidate, Scope, candidates
from support.hub.revisions import locate
from support.records import ModelRef, Models
from support.server.captioner import served_model
from support.settings import check_settings
from support.storage.vectors import VectorTable

Index = TypeVar("Index", ImageIndex, CaptionIndex)


class System(NamedTuple):
    """A dataset and its databases."""

    dataset_loader: DatasetLoader
    db_manager: DatabaseManager

    def model(self, kind: str) -> ModelRef:
        """The model of a kind with its files, downloaded where they are missing.

        At the revision of its vectors in the databases, if there are any. The VLM is that of
        config.VLM_SERVER, where it is set. Raises HubError, ServerError, and SettingError.
        """
        check_settings()  # a notebook may have changed one since the last call
        if kind == "vlm" and config.VLM_SERVER is not None:
            return served_model(config.VLM_SERVER)
        ref = self.dataset_loader.model(kind)
        if kind in ("vlm", "clip_score"):
            return locate(ref)
        file = config.IMAGE_EMBEDDING_DB if kind == "clip" else config.CAPTION_EMBEDDING_DB
        return locate(ref, self.db_manager.recorded_revision(file, ref))

    def models(self) -> Models:
        """The three models with their files."""
        return Models(clip=self.model("clip"), vlm=self.model("vlm"), text=self.model("text"))

    def candidates(self) -> list[Candidate]:
        """The images that give context now; captioned ones too where config says so."""
        return candidates(self.db_manager.captions, self.dataset_loader.hashes)

    def pool(self, vectors: VectorTable, generated: bool | None = None) -> Pool:
        """Where neighbors are found, as it stands now; captioned images too where `generated`."""
        generated = config.USE_GENERATED_AS_CONTEXT if generated is None else generated
        with self._index(ImageIndex, vectors) as index:
            return index.pool(generated)

    def searched_images(self, vectors: VectorTable, within: Scope | None = None) -> Pool:
        """What is searched by look, as it stands now: all that is `within`, captioned or not."""
        with self._index(ImageIndex, vectors) as index:
            return index.searched(within)

    def caption_pool(self, vectors: VectorTable) -> CaptionPool:
        """What is searched by text, as it stands now."""
        with self._index(CaptionIndex, vectors) as index:
            return index.pool()

    @contextmanager
    def _index(self, kind: type[Index], vectors: VectorTable) -> Iterator[Index]:
        """The index of a kind, made anew only where that of before does not fit any more.

        One that was interrupted while it was brought up to date is of no use.
        """
        dataset, captions = self.dataset_loader.hashes, self.db_manager.caption_table
        indices = _indices.setdefault(self.db_manager, {})
        index = indices.pop(kind, None)
        if index is None or not index.changes.fit(captions, vectors, dataset):
            index = kind(captions, vectors, dataset)
        yield index
        indices[kind] = index


# Kept with the databases, not with the System: notebooks make a new one for each call.
_indices: WeakKeyDictionary[DatabaseManager, dict[type, Any]] = WeakKeyDictionary()
