"""What a user waits for before anything is shown."""

import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

import config
import main as pipeline
from benchmarks.speed.databases import synced
from benchmarks.speed.made import make_photos
from benchmarks.speed.measure import Line, alone, beside, run_program, seconds
from caption_embedder import CaptionEmbedder
from demo import EMBEDDED
from image_embedder import ImageEmbedder
from support.hub.names import SETTINGS_OF_MODELS
from support.sources.known import SETTLED_NS, KnownHashes
from vlm_captioner import Captioner

PHOTOS, ROWS = 10_000, 8_000
SETTLED = SETTLED_NS / 10**9


def start(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """Stage 1 on a dataset that is known already."""
    photos = _captioned_photos(folder / "folder", PHOTOS)
    table = _as_parquet(photos, folder / "table.parquet", ROWS)
    with Settings(DB_DIR=str(folder / "databases"), MODE="hub", **_models()):
        _wait_until_settled(photos)
        for dataset, work in (
            (photos, f"a folder of {PHOTOS:,} photos"),
            (table, f"{ROWS:,} rows of parquet"),
        ):
            config.DATASET_NAME = str(dataset)
            _open()
            yield alone(f"stage 1 on {work}, known", _open, "<= 500 ms")
        config.DATASET_NAME = str(photos)
        kept = _open().db_manager.folder / "known_hashes.json"
        names = [str(path) for path in sorted(photos.glob("*.jpg"))]

        def find_changed() -> None:
            known = KnownHashes(kept)
            for name in names:
                known.of_file(name, [str(photos)])

        def scan() -> None:
            with os.scandir(photos) as entries:
                for entry in entries:
                    entry.stat()

        yield beside(
            f"find what changed of {PHOTOS:,}", "os.scandir + stat", find_changed, scan, "<= 3"
        )


def _open() -> Any:
    system = pipeline.open_system()
    system.db_manager.close()
    return system


def _models() -> dict[str, str]:
    names = SETTINGS_OF_MODELS.items()
    return {setting: EMBEDDED.model(kind).path for kind, (setting, _) in names}


class Settings:
    """Settings for the time of a block."""

    def __init__(self, **changed: Any):
        self._changed = {"SHOW_PROGRESS": False, **changed}
        self._before = {name: getattr(config, name) for name in (*changed, "DATASET_NAME")}

    def __enter__(self) -> None:
        vars(config).update(self._changed)

    def __exit__(self, *_: object) -> None:
        vars(config).update(self._before)


def _captioned_photos(folder: Path, count: int) -> Path:
    """Copies of a small photo, each with a few bytes of its own at its end."""
    (photo,) = make_photos(folder.with_name("one"), 1, (160, 120))
    data = photo.read_bytes()
    folder.mkdir(parents=True)
    lines = ["image,caption"]
    for number in range(count):
        (folder / f"{number:05}.jpg").write_bytes(data + number.to_bytes(4, "big"))
        lines += [f"{number:05}.jpg,a photo with the number {number}"]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    return folder


def _as_parquet(photos: Path, path: Path, rows: int) -> Path:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    files = sorted(photos.glob("*.jpg"))[:rows]
    columns = {f"caption_{n}": [f"photo {row}, {n}" for row in range(rows)] for n in range(5)}
    features = Features({"image": ImageFeature(), **dict.fromkeys(columns, Value("string"))})
    images = [file.read_bytes() for file in files]
    Dataset.from_dict({"image": images, **columns}, features).to_parquet(str(path))
    return path


def _wait_until_settled(photos: Path) -> None:
    newest = max(path.stat().st_ctime for path in photos.iterdir())
    time.sleep(max(0.0, newest + SETTLED + 1 - time.time()))


def experiment(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """One experiment with 8,000 records: everything but the models, and but what fsync takes."""
    photos = _captioned_photos(folder / "experiment", 8_000)
    folders = {"DB_DIR": str(folder / "e-databases"), "RESULTS_DIR": str(folder / "results")}
    with Settings(MODE="hub", **folders, **_models()):
        config.DATASET_NAME = str(photos)
        system = pipeline.initialize_system()
        with _QuickModels():
            indices = iter(range(100))
            syncs = [0.0]
            sync: Any = os.fsync

            def timed(descriptor: Any) -> None:
                syncs[0] += seconds(lambda: sync(descriptor))

            def one() -> None:
                pipeline.run_experiment(*system, next(indices))

            for _ in range(2):  # the folder of results is made, and its parent synced once
                one()
            count = synced(one)
            times = []
            for _ in range(9):
                os.fsync, syncs[0] = cast(Any, timed), 0.0
                whole = seconds(one)
                os.fsync = sync
                times.append(1000 * (whole - syncs[0]))
            work = "an experiment besides models and fsyncs, 8,000 records"
            median = statistics.median(times)
            yield Line(work, "", median, None, "ms", None, None, "<= 15 ms")
            yield Line("fsyncs of an experiment", "", count, None, "", None, None, "<= 4 fsyncs")
        system.db_manager.close(compact=False)


class _QuickModels:
    """The three models answer at once."""

    def __enter__(self) -> None:
        quick: list[tuple[type, str, Any]] = [
            (ImageEmbedder, "embed_pixels", lambda self, p: _rows(len(p), self.dimension)),
            (Captioner, "write_captions", lambda self, images, _: _captions(len(images))),
            (CaptionEmbedder, "embed_captions", lambda self, t: _rows(len(t), self.dimension)),
        ]
        self._before = [(owner, name, getattr(owner, name)) for owner, name, _ in quick]
        for owner, name, answer in quick:
            setattr(owner, name, answer)

    def __exit__(self, *_: object) -> None:
        for owner, name, before in self._before:
            setattr(owner, name, before)


_written = iter(range(10**9))


def _captions(count: int) -> list[str]:
    return [f"a caption with the number {next(_written)}" for _ in range(count)]


def _rows(count: int, dimension: int) -> np.ndarray:
    rows = np.random.default_rng().standard_normal((count, dimension), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def programs(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """`--help`, and a run of the demo that has run before."""
    here = str(Path(config.__file__).parent)
    program = str(Path(here) / "main.py")
    yield alone("python main.py --help", _runs([program, "--help"]), "<= 250 ms")
    places = ["--db-dir", str(folder / "d"), "--results-dir", str(folder / "r")]
    demo = _runs([program, "--mode", "demo", "--index", "3", "--quiet", *places])
    demo()
    library = _runs(["-c", "import sentence_transformers"])
    yield beside("a demo run, warm", "importing sentence_transformers", demo, library, "<= 1.15")


def _runs(words: list[str]) -> Callable[[], object]:
    return lambda: run_program(words)
