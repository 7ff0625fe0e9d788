"""A dataset with its databases: the outcome of stages 1 and 2, and the input of all others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import config
from dataset_loader import DatasetLoader
from db_manager import DatabaseManager
from experiments.index import CaptionIndex, ImageIndex
from similarity_search import Candidate, CaptionPool, Pool, candidates
from support.hub.revisions import locate
from support.records import ModelRef, Models
from support.storage.vectors import VectorTable

Index = TypeVar("Index", ImageIndex, CaptionIndex)


class System(NamedTuple):
    """A dataset and its databases."""

    dataset_loader: DatasetLoader
    db_manager: DatabaseManager

    def located(self, file: str, ref: ModelRef) -> ModelRef:
        """A model with its files, at the revision of its vectors in the databases' `file`."""
        return locate(ref, self.db_manager.recorded_revision(file, ref))

    def all_located(self, refs: Models) -> Models:
        """Three models with their files, downloaded where they are missing."""
        return Models(
            clip=self.located(config.IMAGE_EMBEDDING_DB, refs.clip),
            vlm=locate(refs.vlm),
            text=self.located(config.CAPTION_EMBEDDING_DB, refs.text),
        )

    def candidates(self, generated: bool | None = None) -> list[Candidate]:
        """The images that may be found now; captioned ones too, by default as config says."""
        hashes = self.dataset_loader.gallery_hashes
        return candidates(self.db_manager.captions, hashes, generated)

    def pool(self, vectors: VectorTable, generated: bool | None = None) -> Pool:
        """Where neighbors are found, as it stands now; `generated` as in `candidates`."""
        generated = config.USE_GENERATED_AS_CONTEXT if generated is None else generated
        with self._index(ImageIndex, vectors) as index:
            return index.pool(generated)

    def caption_pool(self, vectors: VectorTable) -> CaptionPool:
        """What is searched by text, as it stands now."""
        with self._index(CaptionIndex, vectors) as index:
            return index.pool()

    @contextmanager
    def _index(self, kind: type[Index], vectors: VectorTable) -> Iterator[Index]:
        """The index of a kind, made anew only where that of before does not fit any more.

        One that was interrupted while it was brought up to date is of no use.
        """
        gallery, captions = self.dataset_loader.gallery_hashes, self.db_manager.caption_table
        indices = _indices.setdefault(self.db_manager, {})
        index = indices.pop(kind, None)
        if index is None or not index.changes.fit(captions, vectors, gallery):
            index = kind(captions, vectors, gallery)
        yield index
        indices[kind] = index


# Kept with the databases, not with the System: notebooks make a new one for each call.
_indices: WeakKeyDictionary[DatabaseManager, dict[type, Any]] = WeakKeyDictionary()
