"""Runs the seven stages in order, on the command line or from a notebook.

python main.py                       one experiment image
python main.py --index 42            another one
python main.py --all                 every experiment image; a run that was stopped goes on where it was
python main.py --image a.jpg DIR     your own images
python main.py search "a dog runs"   text -> images
python main.py search --image p.jpg  image -> images
python main.py evaluate              with retrieval against without, and the baselines

from main import initialize_system, run_experiment
dataset_loader, db_manager = initialize_system()
result = run_experiment(dataset_loader, db_manager, experiment_index=42)
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

import caption_embedder
import cli
import config
import evaluate
import experiments
import hub
import image_embedder
import metrics
import prompt_generator
import report
import vlm_captioner
from database_files import VectorTable
from dataset_loader import DatasetLoader, load_and_split_dataset, own_sample
from db_manager import DatabaseManager, database_folder
from experiments import Outcome
from image_embedder import ImageEmbedder
from image_files import find_images
from records import (
    GeneratedCaption,
    ImageError,
    ModelRef,
    Models,
    Neighbor,
    PipelineError,
    Sample,
    SettingError,
    clean_text,
)  # fmt: skip
from report import Clock
from similarity_search import CaptionPool, Pool, candidates

log = logging.getLogger("captioning")


# --- The notebook interface ----------------------------------------------------------------------------------
def initialize_system(own_images: bool = False, rebuild: bool = False) -> tuple[DatasetLoader, DatabaseManager]:
    """Stages 1 and 2: the dataset, split, and its databases with the gallery embedded.

    `own_images` says that images from outside the dataset follow (then the demo never stands in for real models);
    `rebuild` makes damaged or unfitting vectors anew. Raises PipelineError with what to do.
    """
    dataset_loader, db_manager = open_system(own_images, rebuild)
    _models(dataset_loader, db_manager)  # a download or a refusal comes before the gallery is embedded, not after
    embed_images(dataset_loader, db_manager)
    return dataset_loader, db_manager


def run_experiment(
    dataset_loader: DatasetLoader, db_manager: DatabaseManager, experiment_index: int | None = None
) -> dict[str, Any]:
    """Stages 3 to 7 for an experiment image (config.EXPERIMENT_IMAGE_INDEX by default); the result, JSON-ready."""
    sample = _experiment(dataset_loader, experiment_index)
    return _caption([sample], dataset_loader, db_manager)[0]


def run_all_experiments(
    dataset_loader: DatasetLoader,
    db_manager: DatabaseManager,
    indices: Sequence[int] | None = None,
    recaption: bool = False,
) -> list[dict[str, Any]]:
    """Stages 3 to 7 for all experiment images, or those of `indices`, in batches; results in the same order.

    What may give context is fixed when the first such run begins, so that no caption depends on order, batches or
    interruptions. Images that a run with the same images, models and settings has finished are not captioned again,
    unless `recaption`. Raises PipelineError, when all others are done, if some images failed.
    """
    wanted = range(len(dataset_loader.get_experiment_data())) if indices is None else indices
    samples = [_experiment(dataset_loader, index) for index in wanted]
    outcome = _run_all(samples, dataset_loader, db_manager, recaption)
    if outcome.failures:
        raise PipelineError(outcome.failures_text(len(samples)))
    return [outcome.results[sample.content_hash] for sample in samples]


def caption_image(
    image: str | Path | Image.Image, dataset_loader: DatasetLoader, db_manager: DatabaseManager
) -> dict[str, Any]:
    """Stages 3 to 7 for an image that is not in the dataset: a path or a PIL image."""
    return _caption([own_sample(image)], dataset_loader, db_manager)[0]


def search_images(
    query: str | Path | Image.Image,
    dataset_loader: DatasetLoader,
    db_manager: DatabaseManager,
    top_k: int | None = None,
) -> list[dict[str, Any]]:
    """The `top_k` images that fit `query` best: a text (by their captions), or a path or PIL image (by their looks)."""
    by_text = isinstance(query, str) and not os.path.isfile(query)  # noqa: PTH113 - Path.is_file refuses long texts
    find = _search_text if by_text else _search_image
    return [neighbor.as_dict() for neighbor in find(query, dataset_loader, db_manager, top_k)]


# --- The stages in order ----------------------------------------------------------------------------------
def open_system(own_images: bool = False, rebuild: bool = False) -> tuple[DatasetLoader, DatabaseManager]:
    """Stage 1: the dataset and its databases, with the captions of its gallery."""
    cli.check_settings()
    names = hub.resolve_names(own_images, newest=rebuild)
    dataset_loader = load_and_split_dataset(names)
    folder = database_folder(dataset_loader.name, dataset_loader.mode)
    db_manager = DatabaseManager(folder, dataset_loader.name, rebuild)
    db_manager.sync_gallery(dataset_loader.get_training_data())
    return dataset_loader, db_manager


@dataclass(frozen=True)
class Gallery:
    """Stage 2's outcome: the image model, and the vectors of all images that it has seen."""

    embedder: ImageEmbedder
    vectors: VectorTable
    dataset_loader: DatasetLoader
    db_manager: DatabaseManager

    def pool(self, generated: bool | None = None) -> Pool:
        """Where neighbors are found, as it stands now."""
        found = candidates(self.db_manager.captions, self.dataset_loader.gallery_hashes, generated)
        return Pool(found, self.vectors.rows, self.vectors.matrix)


def embed_images(dataset_loader: DatasetLoader, db_manager: DatabaseManager) -> Gallery:
    """Stage 2: embeds the images that config's model has not seen: the gallery, and what was captioned earlier."""
    ref = _located(db_manager, config.IMAGE_EMBEDDING_DB, hub.model_refs(dataset_loader.mode).clip)
    embedder = image_embedder.load_image_embedder(ref)
    vectors = db_manager.image_vectors(ref, embedder.dimension, image_embedder.BACKEND)
    missing = [
        s for s in _not_embedded(dataset_loader, db_manager, vectors) if s.label not in dataset_loader.unreadable
    ]
    skipped = image_embedder.embed_gallery(missing, embedder, lambda batch: db_manager.add_vectors(vectors, batch))
    dataset_loader.unreadable.update(skipped)
    return Gallery(embedder, vectors, dataset_loader, db_manager)


def _caption(
    samples: Sequence[Sample],
    dataset_loader: DatasetLoader,
    db_manager: DatabaseManager,
    pool: Pool | None = None,
    run: str | None = None,
) -> list[dict[str, Any]]:
    """Stages 3 to 7 for a batch of images; `pool` is where neighbors are found (all that is known now by default)."""
    db_manager.refresh()
    clock, gallery, models = Clock(), embed_images(dataset_loader, db_manager), _models(dataset_loader, db_manager)
    images = [sample.image for sample in samples]
    vectors = clock.time("image_embedding", gallery.embedder.embed, images)
    neighbors = clock.time("similarity_search", _find_neighbors, samples, vectors, pool or gallery.pool())
    prompts = clock.time("prompt", _build_prompts, neighbors)
    captions = clock.time("captioning", _write_captions, images, prompts, models, dataset_loader, run)
    indices = clock.time("database_update", _record, samples, vectors, captions, gallery)
    clock.time("caption_embedding", _embed_captions, [caption.caption for caption in captions], db_manager, models.text)
    results = [report.build_result(*parts, clock) for parts in zip(samples, neighbors, captions, indices, strict=True)]
    return [report.save_result(result, sample) for result, sample in zip(results, samples, strict=True)]


def _run_all(
    samples: Sequence[Sample], dataset_loader: DatasetLoader, db_manager: DatabaseManager, recaption: bool
) -> Outcome:
    """Stages 3 to 7 for those of `samples` that no run with the same gallery, models and settings has finished."""
    db_manager.refresh()
    gallery = embed_images(dataset_loader, db_manager)
    found = candidates(db_manager.captions, dataset_loader.gallery_hashes)
    models = _describe(_models(dataset_loader, db_manager))
    run, fixed = experiments.frozen_candidates(found, models, db_manager.folder, recaption)
    pool = Pool(fixed, gallery.vectors.rows, gallery.vectors.matrix)
    done = experiments.finished(run, db_manager.captions)
    return experiments.caption_all(samples, lambda batch: _caption(batch, dataset_loader, db_manager, pool, run), done)


def _find_neighbors(samples: Sequence[Sample], vectors: np.ndarray, pool: Pool) -> list[list[Neighbor]]:
    return [pool.neighbors(vector, sample.content_hash) for sample, vector in zip(samples, vectors, strict=True)]


def _build_prompts(neighbors: Sequence[Sequence[Neighbor]]) -> list[str]:
    return [
        prompt_generator.build_prompt([text for n in found for text in n.captions[: config.CAPTIONS_PER_NEIGHBOR]])
        for found in neighbors
    ]


def _write_captions(
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    models: Models,
    dataset_loader: DatasetLoader,
    run: str | None = None,
) -> list[GeneratedCaption]:
    captioner = vlm_captioner.load_captioner(models.vlm)
    timestamp = datetime.now().astimezone().isoformat(timespec="seconds")
    made_with = {"timestamp": timestamp, **_made_with(dataset_loader, models), "run": run}
    shown = prompts if captioner.takes_prompt else [None] * len(prompts)
    captions = captioner.write_captions(images, prompts)
    return [GeneratedCaption(caption, prompt, made_with) for caption, prompt in zip(captions, shown, strict=True)]


def _record(
    samples: Sequence[Sample], vectors: np.ndarray, captions: Sequence[GeneratedCaption], gallery: Gallery
) -> list[int]:
    add = gallery.db_manager.add_generated
    return [
        add(s, caption, gallery.vectors, vector) for s, vector, caption in zip(samples, vectors, captions, strict=True)
    ]


def _embed_captions(captions: Sequence[str], db_manager: DatabaseManager, text_model: ModelRef) -> tuple[Any, Any]:
    """The text model, and its vectors with those of `captions` among them."""
    embedder = caption_embedder.load_caption_embedder(text_model)
    vectors = db_manager.caption_vectors(text_model, embedder.dimension)
    missing = [caption for caption in dict.fromkeys(captions) if caption and caption not in vectors.rows]
    caption_embedder.embed_missing(missing, embedder, lambda batch: db_manager.add_vectors(vectors, batch))
    return embedder, vectors


def _search_text(
    query: str, dataset_loader: DatasetLoader, db_manager: DatabaseManager, top_k: int | None = None
) -> list[Neighbor]:
    query = clean_text(query).strip()
    if not query:
        raise SettingError("The text to search for is empty.")
    db_manager.refresh()
    found = candidates(db_manager.captions, dataset_loader.gallery_hashes, generated=True)
    pool = CaptionPool(found, db_manager.captions)
    # Of the models the text model alone: a search by text must not wait for a download of the others.
    text_model = _located(db_manager, config.CAPTION_EMBEDDING_DB, hub.model_refs(dataset_loader.mode).text)
    embedder, vectors = _embed_captions(pool.texts(), db_manager, text_model)
    return pool.search(query, embedder.embed_query(query), vectors.rows, vectors.matrix, top_k)


def _search_image(
    query: str | Path | Image.Image,
    dataset_loader: DatasetLoader,
    db_manager: DatabaseManager,
    top_k: int | None = None,
) -> list[Neighbor]:
    sample = own_sample(query)
    db_manager.refresh()
    gallery = embed_images(dataset_loader, db_manager)
    vector = gallery.embedder.embed([sample.image])[0]
    return gallery.pool(generated=True).neighbors(vector, sample.content_hash, top_k)


def evaluate_retrieval(
    dataset_loader: DatasetLoader,
    db_manager: DatabaseManager,
    samples: int | None = None,
    arms: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Whether retrieval helps: the first `samples` experiment images (all by default) under each of `arms`, scored."""
    chosen = evaluate.check_arms(arms)
    experiments_wanted = dataset_loader.get_experiment_data()[:samples]
    models, gallery = _models(dataset_loader, db_manager), embed_images(dataset_loader, db_manager)
    system = evaluate.System(
        images=gallery.embedder,
        captioner=vlm_captioner.load_captioner(models.vlm),
        texts=caption_embedder.load_caption_embedder(models.text),
        pool=gallery.pool(generated=False),
        made_with=_made_with(dataset_loader, models),
    )
    return evaluate.evaluate(experiments_wanted, chosen, system)


# --- What the stages are given ----------------------------------------------------------------------------------
def _experiment(dataset_loader: DatasetLoader, index: int | None) -> Sample:
    """The experiment image `index`. Raises SettingError outside the range."""
    samples = dataset_loader.get_experiment_data()
    index = config.EXPERIMENT_IMAGE_INDEX if index is None else index
    if not isinstance(index, int) or not 0 <= index < len(samples):
        raise SettingError(
            f"The experiment index is {index!r}; it must be a whole number from 0 to {len(samples) - 1}."
        )
    return samples[index]


def _models(dataset_loader: DatasetLoader, db_manager: DatabaseManager) -> Models:
    """The three models at their revisions."""
    refs = hub.model_refs(dataset_loader.mode)
    return Models(
        clip=_located(db_manager, config.IMAGE_EMBEDDING_DB, refs.clip),
        vlm=hub.locate(refs.vlm),
        text=_located(db_manager, config.CAPTION_EMBEDDING_DB, refs.text),
    )


def _made_with(dataset_loader: DatasetLoader, models: Models) -> dict[str, Any]:
    """What results and generated captions record of where they come from."""
    return {
        "mode": dataset_loader.mode,
        "dataset": dataset_loader.name,
        "dataset_revision": dataset_loader.revision,
        "models": _describe(models),
    }


def _describe(models: Models) -> dict[str, dict[str, str | None]]:
    return {kind: {"name": ref.name, "revision": ref.revision} for kind, ref in vars(models).items()}


def _located(db_manager: DatabaseManager, file: str, ref: ModelRef) -> ModelRef:
    return hub.locate(ref, db_manager.recorded_revision(file, ref))


def _not_embedded(dataset_loader: DatasetLoader, db_manager: DatabaseManager, vectors: VectorTable) -> list[Sample]:
    """The images without a vector: of the gallery, and of those captioned earlier that can still be found.

    The latter, so that they give context under a new model too.
    """
    records = {key: r for key, r in db_manager.captions.items() if r["generated"] and key not in vectors.rows}
    samples = [s for s in dataset_loader.get_training_data() if s.content_hash not in vectors.rows]
    samples += [s for s in dataset_loader.get_experiment_data() if s.content_hash in records]
    known = {sample.content_hash for sample in samples}
    for key, record in records.items():
        if record["original_index"] is None and key not in known:
            with suppress(ImageError):  # moved or deleted since
                own = own_sample(record["image"])
                samples += [own] if own.content_hash == key else []  # else another image has its name now
    return samples


# --- The command line ----------------------------------------------------------------------------------
def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    arguments = cli.parse(argv)
    _set_up_terminal(quiet=hasattr(arguments, "quiet"))
    try:
        cli.apply(arguments)
        commands = {"caption": _caption_command, "search": _search, "evaluate": _evaluate}
        return commands[arguments.command](arguments)
    except (KeyboardInterrupt, Terminated) as stop:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one ends the process at once: nothing is at risk
            signal.signal(number, signal.SIG_DFL)
        print("Stopped. What was done is saved.", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # the reader of our output went away, as in `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if hasattr(arguments, "debug"):
            raise
        known = isinstance(error, PipelineError)
        print(
            error if known else f"Unexpected {type(error).__name__}: {error}\nRun with --debug for the traceback.",
            file=sys.stderr,
        )
        return error.exit_status if known else 1


class Terminated(BaseException):
    """SIGTERM, raised where the program stands so that open work is closed on the way out."""


def _set_up_terminal(quiet: bool) -> None:
    def terminate(*_: object) -> None:
        raise Terminated

    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, terminate)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a test's or notebook's stream
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character still gets the rest
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.ERROR if quiet else logging.INFO)


def _caption_command(arguments: Any) -> int:
    paths = [path for name in arguments.image or [] for path in find_images(name)]
    dataset_loader, db_manager = initialize_system(bool(paths), hasattr(arguments, "rebuild"))
    with db_manager:
        if arguments.image:
            return _caption_files(paths, dataset_loader, db_manager)
        if arguments.all:
            return _caption_all(dataset_loader, db_manager, hasattr(arguments, "recaption"))
        report.print_result(run_experiment(dataset_loader, db_manager))
        _print_summary(dataset_loader)
    return 0


def _caption_files(paths: Sequence[Path], dataset_loader: DatasetLoader, db_manager: DatabaseManager) -> int:
    """Captions files, batch by batch, from one fixed pool; what fails is named at the end, with status 1."""
    pool = embed_images(dataset_loader, db_manager).pool()
    outcome = Outcome()
    with tqdm(total=len(paths), desc="Captioning", unit="image", disable=not config.SHOW_PROGRESS) as bar:
        for start in range(0, len(paths), config.VLM_BATCH_SIZE):
            some = paths[start : start + config.VLM_BATCH_SIZE]
            batch = _own_samples(some, outcome)
            experiments.caption_or_note(batch, lambda one: _caption(one, dataset_loader, db_manager, pool), outcome)
            for sample in batch:
                if sample.content_hash in outcome.results:
                    report.print_result(outcome.results[sample.content_hash])
            bar.update(len(some))
    _print_summary(dataset_loader)
    return _report_failures(outcome, len(paths))


def _own_samples(paths: Sequence[Path], outcome: Outcome) -> list[Sample]:
    """Samples of a user's files, each distinct image once; those that cannot be read go to the failures."""
    samples = {}
    for path in paths:
        try:
            sample = own_sample(path)
        except ImageError as error:
            outcome.failures[str(path)] = str(error)
        else:
            samples.setdefault(sample.content_hash, sample)
    return list(samples.values())


def _caption_all(dataset_loader: DatasetLoader, db_manager: DatabaseManager, recaption: bool) -> int:
    start = time.monotonic()
    samples = dataset_loader.get_experiment_data()
    outcome = _run_all(samples, dataset_loader, db_manager, recaption)
    seconds = time.monotonic() - start
    results = [outcome.results[s.content_hash] for s in samples if s.content_hash in outcome.results]
    summary = report.save_summary(results, outcome.failures, seconds)
    print(f"{len(results)} of {len(samples)} experiment images captioned in {seconds:.0f} s. Summary: {summary}")
    return _report_failures(outcome, len(samples))


def _evaluate(arguments: Any) -> int:
    arms = evaluate.check_arms(arguments.arms)
    metrics.check_packages()
    dataset_loader, db_manager = initialize_system(rebuild=hasattr(arguments, "rebuild"))
    with db_manager:
        available = len(dataset_loader.get_experiment_data())
        if arguments.samples is not None and not 1 <= arguments.samples <= available:
            raise SettingError(f"--samples is {arguments.samples}; it must be a whole number from 1 to {available}.")
        outcome = evaluate_retrieval(dataset_loader, db_manager, arguments.samples, arms)
    paths = report.save_evaluation(outcome)
    print(report.evaluation_table(outcome))
    print("Saved: " + ", ".join(map(str, paths)))
    return 0


def _report_failures(outcome: Outcome, total: int) -> int:
    if outcome.failures:
        print(outcome.failures_text(total), file=sys.stderr)
    return 1 if outcome.failures else 0


def _search(arguments: Any) -> int:
    by_image = arguments.image is not None
    query = Path(arguments.image).expanduser() if by_image else arguments.query
    if by_image:
        own_sample(query)  # a file that cannot be read is said before models are loaded
    dataset_loader, db_manager = open_system(rebuild=hasattr(arguments, "rebuild"))
    with db_manager:
        find = _search_image if by_image else _search_text
        for neighbor in find(query, dataset_loader, db_manager):
            report.print_neighbor(neighbor.as_dict())
    return 0


def _print_summary(dataset_loader: DatasetLoader) -> None:
    gallery, skipped = len(dataset_loader.get_training_data()), len(dataset_loader.unreadable)
    print(
        f"Gallery: {gallery - skipped} images" + (f", {skipped} skipped because they cannot be read" if skipped else "")
    )


if __name__ == "__main__":
    sys.exit(main())
