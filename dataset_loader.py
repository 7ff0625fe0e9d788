"""Stage 1: a dataset of captioned images, split into experiments (queries) and gallery.

The gallery is the "training" images, whose captions give context.
"""

import hashlib
import pkgutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral

from tqdm import tqdm

import config
from support.errors import ImageError, SettingError
from support.garbage import without_search_for_garbage
from support.hub.names import resolve_names
from support.log import log
from support.records import ResolvedNames, Sample, SplitHashes
from support.sources.columns import clean_captions, split_name
from support.sources.files import OutsideFolderError
from support.sources.images import decode_same
from support.sources.known import KnownHashes
from support.sources.source import Source, open_source
from support.text import first_few

# Looked up by name, as plugins are, when a notebook asks for the dataset alone: the stages do not
# import the demo. Everything else gets it from main.
DEMO = "demo:EMBEDDED"
NOT_SPLIT = (
    "No experiments are set aside of this dataset: it was opened for search or own images. For "
    "experiments, open it with initialize_system()."
)


class DatasetLoader:
    """A dataset, split: the experiments are the queries, the training data is the gallery."""

    def __init__(
        self,
        experiments: Sequence[Sample],
        gallery: Sequence[Sample],
        names: ResolvedNames,
        revision: str | None = None,
    ):
        self.name = names.label  # Hub name, folder, or "demo"
        self.mode = names.mode
        self.model = names.model  # the model of a kind that goes with it
        self.revision = revision  # Hub commit; None for a local dataset
        self.unreadable: dict[str, str] = {}  # images that cannot be decoded: label -> why
        self._experiments = _with_role("experiment", experiments)
        self._gallery = _with_role("training", gallery)
        self.hashes = SplitHashes(_hashes(self._gallery), _hashes(self._experiments))

    def __repr__(self) -> str:
        counts = f"{len(self._experiments)} experiments, {len(self._gallery)} gallery images"
        return f"<DatasetLoader {self.name}: {counts}>"

    def get_training_data(self) -> Sequence[Sample]:
        """The gallery, by rank; each a mapping whose image is decoded when it is read."""
        return self._gallery

    def get_experiment_data(self) -> Sequence[Sample]:
        """The experiment images 0, 1, 2 ..., each a mapping whose image is decoded when read."""
        return self._experiments

    def experiment(self, index: int | None = None) -> Sample:
        """The experiment image `index`, by default config.EXPERIMENT_IMAGE_INDEX.

        Raises SettingError outside the range.
        """
        index = config.EXPERIMENT_IMAGE_INDEX if index is None else index
        count = len(self._experiments)
        if not count:
            raise SettingError(NOT_SPLIT)
        whole = isinstance(index, Integral) and not isinstance(index, bool)  # NumPy's too
        if not whole or not 0 <= index < count:
            raise SettingError(
                f"The experiment index is {index!r}; it must be a whole number from 0 to "
                f"{count - 1}."
            )
        return self._experiments[int(index)]


def load_and_split_dataset(
    names: ResolvedNames | None = None, known: KnownHashes | None = None, split: bool = True
) -> DatasetLoader:
    """The dataset of `names` (by default what config names), split by config.RANDOM_SEED.

    Without `split` no experiments are set aside; images without captions always belong to the
    gallery. `known` are hashes of its images from earlier runs, and collects those of this one.
    Raises SettingError for a path that is not there, a column or split that cannot be found, or a
    dataset with too few captions for config.EXPERIMENT_SAMPLES; HubError for a Hub dataset that
    cannot be fetched; PipelineError for a table that is damaged.
    """
    names = names or resolve_names(pkgutil.resolve_name(DEMO), needed=())
    with without_search_for_garbage():
        hashes = known or KnownHashes()
        source = open_source(names.dataset, hashes)
        samples = _merge_copies(_read_samples(source), names.dataset)
        if known is None:
            hashes.forget()
    _log_uncaptioned(samples)
    ranked = sorted(samples, key=lambda sample: _rank(sample.content_hash))[: config.TOTAL_SAMPLES]
    if split and config.EXPERIMENT_SPLIT is not None:
        experiments, gallery = _own_splits(ranked, names)
    else:
        experiments = _experiments_of(ranked, names) if split else []
        chosen = _hashes(experiments)
        gallery = [sample for sample in ranked if sample.content_hash not in chosen]
    if not gallery:
        raise SettingError(f"The dataset '{names.dataset}' has no image that can be read.")
    return DatasetLoader(experiments, gallery, names, source.revision)


# --- The split ------------------------------------------------------------------------------------
def _rank(content_hash: str) -> str:
    """A hash of seed and image.

    The place of an image depends on nothing else, so a new photo moves hardly any other.
    """
    return hashlib.sha256(f"{config.RANDOM_SEED}:{content_hash}".encode()).hexdigest()


def _experiments_of(ranked: Sequence[Sample], names: ResolvedNames) -> list[Sample]:
    """The images that are set aside: the first with captions. Raises SettingError for too few."""
    captioned = [sample for sample in ranked if sample.captions]
    if len(captioned) <= config.EXPERIMENT_SAMPLES:
        raise SettingError(_too_few(len(captioned), len(ranked), names))
    return captioned[: config.EXPERIMENT_SAMPLES]


def _own_splits(
    ranked: Sequence[Sample], names: ResolvedNames
) -> tuple[list[Sample], list[Sample]]:
    """Experiments and gallery by the dataset's own splits, as config names them.

    Raises SettingError for splits that are not there, that are the same, or that are too small.
    """
    wanted = split_name(config.EXPERIMENT_SPLIT or "")
    others = [split_name(name) for name in config.GALLERY_SPLIT.split(",")]
    counts = Counter(sample.split or "none" for sample in ranked)
    if wanted in others or not {wanted, *others} <= counts.keys():
        there = ", ".join(f"{name} ({count:,} images)" for name, count in counts.most_common())
        raise SettingError(
            f"EXPERIMENT_SPLIT is '{config.EXPERIMENT_SPLIT}' and GALLERY_SPLIT "
            f"'{config.GALLERY_SPLIT}'; they must be different splits of '{names.dataset}', which "
            f"has: {there}."
        )
    experiments = [s for s in ranked if s.split == wanted and s.captions]
    count = config.EXPERIMENT_SAMPLES
    if len(experiments) < (count or 1):
        raise SettingError(
            f"EXPERIMENT_SAMPLES is {count}, but the split '{wanted}' of '{names.dataset}' has "
            f"only {len(experiments)} images with captions. Set it to None for all: "
            "--experiment-samples all"
        )
    return experiments[:count], [s for s in ranked if s.split in others]


def _hashes(samples: Iterable[Sample]) -> frozenset[str]:
    return frozenset(sample.content_hash for sample in samples)


def _with_role(role: str, samples: Iterable[Sample]) -> list[Sample]:
    return [replace(sample, role=role, role_index=i) for i, sample in enumerate(samples)]


def _read_samples(source: Source) -> Iterator[Sample]:
    """The samples of a source in its order; rows without a file are left out."""
    missing: list[str] = []
    outside: list[str] = []
    rows = range(len(source))
    hidden = not config.SHOW_PROGRESS
    for row in tqdm(rows, desc="Reading images", unit="image", delay=2, disable=hidden):
        try:
            digest, captions = source.content_hash(row), clean_captions(source.captions(row))
        except OutsideFolderError as error:
            outside.append(str(error))
        except ImageError as error:
            missing.append(str(error))
        else:
            label = source.label(row)
            decode_row = partial(decode_same, partial(source.open, row), digest, label)
            yield Sample(digest, label, decode_row, captions, row, split=source.split(row))
    if missing:
        log.warning(
            "%d of %d images cannot be read and are left out: %s",
            len(missing),
            len(source),
            first_few(missing),
        )
    if outside:
        log.warning(
            "%d files lie outside the dataset's folder, and are left out: %s",
            len(outside),
            first_few(outside),
        )


def _log_uncaptioned(samples: Sequence[Sample]) -> None:
    """Logs how many images have no caption, where others have one."""
    without = sum(not sample.captions for sample in samples)
    if 0 < without < len(samples):
        log.warning(
            "%d of %d images have no caption: they are found by look, and give no context.",
            without,
            len(samples),
        )


def _merge_copies(samples: Iterable[Sample], name: str) -> list[Sample]:
    """One sample for each distinct image; byte-identical copies add their captions to it."""
    merged: dict[str, Sample] = {}
    copies, in_two = 0, []
    wanted = config.EXPERIMENT_SPLIT and split_name(config.EXPERIMENT_SPLIT)
    for sample in samples:
        first = merged.get(sample.content_hash)
        if first is None:
            merged[sample.content_hash] = sample
            continue
        copies += 1
        captions = tuple(dict.fromkeys(first.captions + sample.captions))
        if first.split != sample.split:
            in_two.append(first.label)
        split = wanted if wanted in (first.split, sample.split) else first.split
        merged[sample.content_hash] = replace(first, captions=captions, split=split)
    if in_two and config.EXPERIMENT_SPLIT is not None:
        log.warning(
            "%d images are in two splits, and count for the experiments if one of these is theirs: "
            "%s",
            len(in_two),
            first_few(in_two),
        )
    if copies:
        log.warning(
            "%s holds %d byte-identical copies; each image counts once, with all its captions.",
            name,
            copies,
        )
    return list(merged.values())


def _too_few(captioned: int, count: int, names: ResolvedNames) -> str:
    """Why experiments cannot be set aside, and what to do."""
    if captioned < 2:
        text = (
            f"--index, --all and evaluate need images with captions: '{names.dataset}' has "
            f"{captioned} among {count}; at least 2 are needed. Add a list of captions to it (see "
            '"Your own photos" in the README).'
        )
        own = f" --dataset '{names.dataset}'"
        return text + (
            f' Without captions it can be searched: main.py search{own} "a red car"; and '
            f"captioned: main.py{own} --image '{names.dataset}'"
            if names.own_dataset
            else ""
        )
    if config.TOTAL_SAMPLES is not None and captioned <= config.TOTAL_SAMPLES == count:
        return (
            f"TOTAL_SAMPLES (--total-samples) takes {count} images of '{names.dataset}', "
            f"EXPERIMENT_SAMPLES {config.EXPERIMENT_SAMPLES} of these, and the gallery needs at "
            "least one. Raise the first, or lower the second (--experiment-samples)."
        )
    proposed = max(1, captioned // 5)
    which = "" if captioned == count else " with captions"
    return (
        f"EXPERIMENT_SAMPLES is {config.EXPERIMENT_SAMPLES}, but '{names.dataset}' has only "
        f"{captioned} images{which} and the gallery needs at least one. Allowed: 1 to "
        f"{captioned - 1}. Set it to {proposed}, say: --experiment-samples {proposed}"
    )
