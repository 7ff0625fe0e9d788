"""Where pages and cards find the images of results: in the dataset, or where the user has them."""

from functools import partial
from pathlib import Path

from PIL import Image

from experiments.system import System
from support.errors import ImageError
from support.records import Sample
from support.sources.files import open_file
from support.sources.images import decode_same


class Pictures:
    """The images of a system's databases; None for one that is not there any more.

    Large JPEGs are decoded as small as pictures of `side` pixels allow.
    """

    def __init__(self, system: System):
        self._dataset_loader, self._db_manager = system
        self._samples: dict[str, Sample] | None = None

    def key_of(self, index: int) -> str | None:
        """The content hash of the image with a number of the databases."""
        return self._db_manager.caption_table.key_of(index)

    def by_number(self, index: int, side: int) -> Image.Image | None:
        """The image with a number of the databases."""
        key = self.key_of(index)
        return None if key is None else self.by_hash(key, side)

    def by_hash(self, key: str, side: int) -> Image.Image | None:
        """The image with a content hash."""
        try:
            sample = self._samples_by_hash().get(key)
            if sample is not None:
                return sample.picture(side)
            record = self._db_manager.captions.get(key)
            if record is None:
                return None
            # An image in memory has no file; a file may hold another picture by now.
            path = record["image"]
            return decode_same(partial(open_file, Path(path)), key, path, side=side)
        except ImageError:
            return None

    def _samples_by_hash(self) -> dict[str, Sample]:
        """The dataset's samples; found once, not for each picture."""
        if self._samples is None:
            loader = self._dataset_loader
            samples = [*loader.get_training_data(), *loader.get_experiment_data()]
            self._samples = {sample.content_hash: sample for sample in samples}
        return self._samples
