"""Stage 1: a dataset of captioned images, split into experiments (queries) and gallery (the "training" images)."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

import config
import hub
from image_files import decode_image, decoding, read_file, to_rgb
from records import ImageError, Names, Sample, SettingError, clean_text, first_few
from sources import FolderSource, TableSource, open_source

log = logging.getLogger("captioning")


# --- The public interface --------------------------------------------------------------------------------------
class DatasetLoader:
    """A dataset, split: `get_experiment_data()` are the queries, `get_training_data()` is the gallery."""

    def __init__(
        self, samples: Sequence[Sample], name: str, experiments: int, mode: str = "hub", revision: str | None = None
    ):
        self.name = name  # Hub name, folder, or "demo"
        self.mode = mode
        self.revision = revision  # Hub commit; None for a local dataset
        self.unreadable: dict[str, str] = {}  # gallery images that could not be decoded: label -> reason
        self._experiments = [
            replace(sample, role="experiment", role_index=i) for i, sample in enumerate(samples[:experiments])
        ]
        self._gallery = [
            replace(sample, role="training", role_index=i) for i, sample in enumerate(samples[experiments:])
        ]
        self.gallery_hashes = frozenset(sample.content_hash for sample in self._gallery)

    def get_training_data(self) -> Sequence[Sample]:
        """The gallery, in the order of the split's rank; each a mapping whose image is decoded when asked for."""
        return self._gallery

    def get_experiment_data(self) -> Sequence[Sample]:
        """The experiment images 0, 1, 2 ..., each a mapping whose image is decoded when asked for."""
        return self._experiments


def load_and_split_dataset(names: Names | None = None) -> DatasetLoader:
    """The dataset of `names` (by default what config names), split by a hash of config.RANDOM_SEED and the bytes.

    Raises SettingError for a path that is not there, a column or split that cannot be found, or a dataset too small
    for config.EXPERIMENT_SAMPLES; HubError for a Hub dataset that cannot be had.
    """
    names = names or hub.resolve_names()
    source = open_source(names.dataset)
    samples = _merge_copies(_read_samples(source), names.dataset)
    ranked = sorted(samples, key=lambda sample: _rank(sample.content_hash))[: config.TOTAL_SAMPLES]
    if len(ranked) <= config.EXPERIMENT_SAMPLES:
        raise SettingError(_too_small(len(ranked), names.dataset))
    label = hub.dataset_label(names.dataset)
    return DatasetLoader(ranked, label, config.EXPERIMENT_SAMPLES, names.mode, source.revision)


def own_sample(image: str | Path | Image.Image) -> Sample:
    """A sample of a user's own image: a path, or a PIL image (known by its RGB pixels). Raises ImageError."""
    if isinstance(image, Image.Image):
        with decoding("the image given"):
            rgb = to_rgb(image.copy())  # to_rgb may shrink its argument in place
        digest = hashlib.sha256(f"RGB {rgb.size}".encode() + rgb.tobytes()).hexdigest()
        return Sample(content_hash=digest, label="image", open_image=rgb.copy)
    path = Path(image).expanduser().absolute()  # the databases remember it
    digest = hashlib.sha256(read_file(path)).hexdigest()
    label = clean_text(str(path))
    return Sample(content_hash=digest, label=label, open_image=lambda: decode_image(read_file(path), label))


# --- The split -------------------------------------------------------------------------------------------------
def _rank(content_hash: str) -> str:
    """A hash of seed and image: the place of an image depends on nothing else, so a new photo moves hardly any."""
    return hashlib.sha256(f"{config.RANDOM_SEED}:{content_hash}".encode()).hexdigest()


def _read_samples(source: FolderSource | TableSource) -> Iterator[Sample]:
    """The samples of a source in its order; rows without a file or a caption are left out and counted."""
    missing, uncaptioned = [], 0
    rows = tqdm(range(len(source)), desc="Reading images", unit="image", delay=2, disable=not config.SHOW_PROGRESS)
    for row in rows:
        try:
            data = source.read_bytes(row)
        except ImageError as error:
            missing.append(str(error))
            continue
        captions = clean_captions(source.captions(row))
        if not captions:
            uncaptioned += 1
            continue
        yield Sample(
            content_hash=hashlib.sha256(data).hexdigest(),
            label=source.label(row),
            open_image=partial(_decode_row, source, row),
            captions=captions,
            original_index=row,
        )
    if missing:
        log.warning(
            "%d of %d images cannot be read and are left out: %s", len(missing), len(source), first_few(missing)
        )
    if uncaptioned:
        log.warning("%d images have no caption and are left out.", uncaptioned)


def _decode_row(source: FolderSource | TableSource, row: int) -> Image.Image:
    return decode_image(source.read_bytes(row), source.label(row))


def _merge_copies(samples: Iterator[Sample], name: str) -> list[Sample]:
    """One sample for each distinct image; byte-identical copies give their captions to the first."""
    merged: dict[str, Sample] = {}
    copies = 0
    for sample in samples:
        first = merged.get(sample.content_hash)
        copies += first is not None
        captions = dict.fromkeys((first.captions if first else ()) + sample.captions)
        merged[sample.content_hash] = replace(first or sample, captions=tuple(captions))
    if copies:
        log.warning("%s holds %d byte-identical copies; each image counts once, with all its captions.", name, copies)
    return list(merged.values())


def _too_small(count: int, name: str) -> str:
    if count < 2:
        return f"The dataset '{name}' has {count} usable images with captions; at least 2 are needed."
    proposed = max(1, count // 5)
    return (
        f"EXPERIMENT_SAMPLES is {config.EXPERIMENT_SAMPLES}, but '{name}' has only {count} images and the gallery "
        f"needs at least one. Allowed: 1 to {count - 1}. Set it to {proposed}, say: --experiment-samples {proposed}"
    )


def clean_captions(captions: Sequence[str]) -> tuple[str, ...]:
    """Captions without surrounding white space, empty ones and repetitions; lone surrogates become U+FFFD."""
    texts = (clean_text(caption).strip() for caption in captions)
    return tuple(dict.fromkeys(text for text in texts if text))
