"""A dataset with its databases: the outcome of stages 1 and 2, and the input of all others."""

from typing import NamedTuple

from dataset_loader import DatasetLoader
from db_manager import DatabaseManager
from similarity_search import Candidate, Pool, candidates
from support.hub.revisions import locate
from support.records import ModelRef
from support.storage.vectors import VectorTable


class System(NamedTuple):
    """A dataset and its databases."""

    dataset_loader: DatasetLoader
    db_manager: DatabaseManager

    def located(self, file: str, ref: ModelRef) -> ModelRef:
        """A model with its files, at the revision of its vectors in the databases' `file`."""
        return locate(ref, self.db_manager.recorded_revision(file, ref))

    def candidates(self, generated: bool | None = None) -> list[Candidate]:
        """The images that may be found now; captioned ones too, by default as config says."""
        hashes = self.dataset_loader.gallery_hashes
        return candidates(self.db_manager.captions, hashes, generated)

    def pool(self, vectors: VectorTable, generated: bool | None = None) -> Pool:
        """Where neighbors are found, as it stands now."""
        return Pool(self.candidates(generated), vectors.rows, vectors.matrix)
