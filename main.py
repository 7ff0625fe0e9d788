"""Runs the seven stages in order, on the command line or from a notebook.

python main.py                       one experiment image
python main.py --index 42            another one
python main.py --all                 every experiment image; resumes a stopped run
python main.py --image a.jpg DIR     your own images
python main.py search "a dog runs"   text -> images; --image p.jpg: image -> images
python main.py evaluate              with retrieval against without, and the baselines
python main.py status                what the databases hold; also: export, forget, adopt
"""

import cli.interrupts  # noqa: F401 - before all others
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from PIL import Image

import demo
from caption_embedder import embed_captions
from cli import flags, output, process
from dataset_loader import DatasetLoader, load_and_split_dataset
from db_manager import DatabaseManager, database_folder
from demo.scoring import SCORES
from experiments import evaluation, metrics, tables
from experiments.finished import read_results
from experiments.housekeeping import keep_house
from experiments.moved import tell_of_moved
from experiments.pictures import Pictures
from experiments.pools import fixed_pool
from experiments.query import SearchOptions, queries_of, query_of
from experiments.results import Clock, build_results, made_with, save_results
from experiments.runs import Outcome, Prepared, Work, caption_all
from experiments.search import search
from experiments.sweep import planned
from experiments.system import System
from image_embedder import EmbeddedImages, embed_dataset
from pages import cards, write
from prompt_generator import build_prompts
from similarity_search import Pool
from support.errors import PipelineError
from support.hub.names import EVALUATION_KINDS, MODEL_KINDS, resolve_names
from support.paths import expand_home
from support.records import Sample
from support.result import Result, SimilarImage
from support.settings import check_settings
from support.sources.files import find_all_images
from support.sources.known import KNOWN_HASHES, KnownHashes
from support.sources.own import own_sample
from support.storage.vectors import VectorTable
from support.text import printable
from support.threads import in_threads
from vlm_captioner import write_captions

EXTRA = {demo.EMBEDDED.label: SCORES}  # scores for a dataset whose captions can be parsed


# --- The notebook interface -----------------------------------------------------------------------
def initialize_system(
    own_images: bool = False, rebuild: bool = False, verify: bool = False, for_search: bool = False
) -> System:
    """Stages 1 and 2: (DatasetLoader, DatabaseManager), with the gallery embedded.

    `own_images` says that images from outside the dataset follow (then the demo never replaces the
    real models); `for_search` that nothing is captioned: then the image model alone is needed. With
    either, a dataset on this disk sets no experiments aside. `rebuild` recomputes vectors that are
    damaged or do not fit; `verify` hashes every image again. Raises PipelineError with what to do.
    """
    needed = ("clip",) if for_search else MODEL_KINDS
    system = open_system(own_images, rebuild, verify, needed, not (for_search or own_images))
    for kind in needed:  # a download or a refusal comes before the long work
        system.model(kind)
    embed_images(system)
    return system


def run_experiment(
    dataset_loader: DatasetLoader, db_manager: DatabaseManager, experiment_index: int | None = None
) -> Result:
    """Stages 3 to 7 for an experiment image (config.EXPERIMENT_IMAGE_INDEX by default)."""
    system = System(dataset_loader, db_manager)
    result = run_stages([dataset_loader.experiment(experiment_index)], system)[0]
    return cards.result_card(result, Pictures(system))


def run_all_experiments(
    dataset_loader: DatasetLoader,
    db_manager: DatabaseManager,
    indices: Sequence[int] | None = None,
    recaption: bool = False,
) -> list[Result]:
    """Stages 3 to 7 for all experiment images, or those of `indices`; results in the same order.

    What may give context is fixed when the first such run begins, so that no caption depends on
    order, batches or interruptions. Images that a run with the same images, models and settings has
    finished are not captioned again, unless `recaption`. Raises PipelineError, when all others are
    done, if some images failed.
    """
    wanted = range(len(dataset_loader.get_experiment_data())) if indices is None else indices
    samples = [dataset_loader.experiment(index) for index in wanted]
    outcome = _run_over(samples, System(dataset_loader, db_manager), recaption)
    if outcome.failures:
        raise PipelineError(outcome.failures_text())
    return list(read_results(outcome.of(samples)))


def caption_image(
    image: str | Path | Image.Image, dataset_loader: DatasetLoader, db_manager: DatabaseManager
) -> Result:
    """Stages 3 to 7 for an image that is not in the dataset: a path or a PIL image."""
    system, sample = System(dataset_loader, db_manager), own_sample(image)
    return cards.result_card(run_stages([sample], system)[0], Pictures(system), sample.image)


def search_images(
    query: str | Path | Image.Image | None,
    dataset_loader: DatasetLoader,
    db_manager: DatabaseManager,
    top_k: int | None = None,
    **options: Unpack[SearchOptions],
) -> list[SimilarImage]:
    """The `top_k` images that fit `query` best: a text, a path or a PIL image.

    A text with the suffix of an image file is taken for a path. The options are the command's: see
    SearchOptions.
    """
    system = System(dataset_loader, db_manager)
    found = search(query_of(query, top_k, **options), system, embed_images)
    return cards.found_card((neighbor.as_dict() for neighbor in found), Pictures(system))


def evaluate_retrieval(
    dataset_loader: DatasetLoader,
    db_manager: DatabaseManager,
    samples: int | None = None,
    arms: Sequence[str] | None = None,
    sweep: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """Whether retrieval helps: the first `samples` experiment images under each of `arms`, scored.

    All of both by default, or the points of a `sweep` over settings. A stopped one goes on.
    """
    system, plan = System(dataset_loader, db_manager), planned(arms, sweep)
    outcome, progress = evaluation.evaluate_system(system, embed_images, samples, plan, EXTRA)
    progress.close()
    return cards.scores_card(outcome, *tables.card_parts(outcome, SCORES))


# --- The seven stages in order --------------------------------------------------------------------
def open_system(
    own_images: bool = False,
    rebuild: bool = False,
    verify: bool = False,
    needed: Collection[str] = MODEL_KINDS,
    split: bool = True,
) -> System:
    """Stage 1: the dataset and its databases, with the captions of its gallery.

    For a command to which the models `needed` are; without `split`, no experiments of a dataset on
    this disk are set aside.
    """
    check_settings()
    names = resolve_names(demo.EMBEDDED, own_images, rebuild, needed)
    folder = database_folder(names.label, names.database_suffix)
    known = KnownHashes(folder / KNOWN_HASHES, verify)
    dataset_loader = load_and_split_dataset(names, known, split or not names.own_dataset)
    # The demo's own databases follow its models; a user's never change unasked.
    renew = names.label == demo.EMBEDDED.label
    db_manager = DatabaseManager(folder, names.label, rebuild, renew)
    known.save()
    db_manager.sync_gallery(dataset_loader.get_training_data())
    tell_of_moved(names, db_manager, dataset_loader.hashes)
    return System(dataset_loader, db_manager)


def embed_images(system: System, experiments: bool = False) -> EmbeddedImages:
    """Stage 2: embeds the images that config's model has not seen: gallery and captioned ones.

    With `experiments` those too, for a search.
    """
    dataset_loader, db_manager = system
    if experiments:
        db_manager.record_images(dataset_loader.get_experiment_data())
    return embed_dataset(dataset_loader, system.model("clip"), db_manager, experiments)


def run_stages(
    samples: Sequence[Sample], system: System, pool: Pool | None = None, run: str | None = None
) -> list[Result]:
    """Stages 3 to 7 for a batch of images.

    Neighbors are found in `pool`, by default all that is known now; `run` names a run over many.
    """
    system.db_manager.refresh()
    images = embed_images(system)
    pool = system.pool(images.vectors) if pool is None else pool
    return write_results(prepare(samples, images, pool), images.vectors, system, run)


def prepare(samples: Sequence[Sample], images: EmbeddedImages, pool: Pool) -> Prepared:
    """Stages 3 and 4 for a batch: it changes nothing, so it may run beside stage 5."""
    clock = Clock()
    shown = in_threads(lambda sample: sample.image, samples)
    vectors = clock.time("image_embedding", images.embed, samples, shown)
    neighbors = clock.time("similarity_search", pool.neighbors_of, samples, vectors)
    prompts = clock.time("prompt", build_prompts, neighbors)
    return Prepared(samples, shown, vectors, neighbors, prompts, clock)


def write_results(
    batch: Prepared, table: VectorTable, system: System, run: str | None
) -> list[Result]:
    """Stages 5 to 7 for a batch; its vectors go into `table`."""
    models, clock, samples = system.models(), batch.clock, batch.samples
    shown, origin = (batch.images, batch.prompts), made_with(system.dataset_loader, models)
    made = clock.time("captioning", write_captions, *shown, models.vlm, origin, run)
    add, captions = system.db_manager.add_all_generated, [caption.caption for caption in made]
    indices = clock.time("database_update", add, samples, made, table, batch.vectors)
    clock.time("caption_embedding", embed_captions, captions, models.text, system.db_manager)
    return save_results(build_results(samples, batch.neighbors, made, indices, clock), samples)


def _run_over(
    items: Sequence[Sample] | Sequence[Path],
    system: System,
    recaption: bool,
    show: Callable[[Result], None] | None = None,
) -> Outcome:
    """Stages 3 to 7 for those of `items`, samples or files, that the run has not finished.

    Neighbors are found in the same pool after a stop and in any order; `recaption` begins a run.
    """
    system.db_manager.refresh()
    images = embed_images(system)
    run, pool = fixed_pool(system, images.vectors, system.models(), recaption)
    work = Work(
        prepare=lambda batch: prepare(batch, images, pool),
        caption=lambda batch: write_results(batch, embed_images(system).vectors, system, run),
        show=show,
    )
    return caption_all(items, run, system.db_manager, work)


# --- The command line -----------------------------------------------------------------------------
def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    commands = {
        "caption": _caption_command,
        "search": _search_command,
        "evaluate": _evaluate_command,
        **dict.fromkeys(("status", "forget", "export", "adopt"), _housekeeping_command),
    }
    return process.run(commands, argv)


def _caption_command(arguments: Namespace) -> int:
    names = arguments.image or []
    paths, empty = find_all_images(names)
    # A file that cannot be read is reported before the dataset is opened and models are loaded.
    is_single = len(names) == 1 and paths == [expand_home(names[0])]
    single = own_sample(paths[0]) if is_single else None
    system = initialize_system(bool(names), **flags.repairs(arguments))
    with system.db_manager:
        if arguments.all or (names and not single):
            failed = output.report_failures(" ".join(empty.values()))
            return _caption_many(paths, system, arguments) or failed
        sample = single or system.dataset_loader.experiment()
        result = run_stages([sample], system)[0]
        output.print_result(result)
        output.show_page(write.write_result(result, Pictures(system), sample.image), arguments)
        output.print_gallery(system.dataset_loader)
    return 0


def _caption_many(paths: Sequence[Path], system: System, arguments: Namespace) -> int:
    """Captions files, or without any all experiments; what fails is named at the end, status 1."""
    samples = system.dataset_loader.get_experiment_data()
    anew, show = hasattr(arguments, "recaption"), output.print_result if paths else None
    outcome = _run_over(paths or samples, system, anew, show)
    output.print_gallery(system.dataset_loader)
    origin = made_with(system.dataset_loader, system.models())
    summary = outcome.save_summary(None if paths else samples, origin)
    print(printable(f"{summary.text} Summary: {summary.path}"))
    status = output.report_failures(outcome.failures_text())
    results = read_results(summary.rows[-write.MOST_CARDS :])
    page = write.write_captioned(results, summary.text, summary.path, Pictures(system))
    output.show_page(page, arguments)
    return status


def _search_command(arguments: Namespace) -> int:
    # What cannot be searched for is reported before the dataset is opened and models are loaded.
    queries = queries_of(arguments)
    needed, by_image = queries[0].models(), arguments.image is not None
    system = open_system(by_image, needed=needed, split=False, **flags.repairs(arguments))
    with system.db_manager:
        for query in queries:
            found = [neighbor.as_dict() for neighbor in search(query, system, embed_images)]
            output.print_found(query.text, found, arguments)
            if arguments.page or hasattr(arguments, "open"):
                page = write.write_search(*query.shown(), found, Pictures(system))
                output.show_page(page, arguments)
    return 0


def _evaluate_command(arguments: Namespace) -> int:
    plan = planned(arguments.arms, arguments.sweep)
    metrics.check_packages()
    system = open_system(needed=EVALUATION_KINDS, **flags.repairs(arguments))
    with system.db_manager:
        asked = arguments.samples, plan, EXTRA
        outcome, progress = evaluation.evaluate_system(system, embed_images, *asked)
    paths = tables.save_evaluation(outcome, SCORES)
    progress.close()  # only now: a full disk must not cost hours of captioning
    saved = "Saved: " + ", ".join(map(str, paths))
    print(tables.evaluation_table(outcome, SCORES), printable(saved), sep="\n")
    parts = tables.page_parts(outcome, SCORES, paths[-1])
    output.show_page(write.write_evaluation(outcome, parts, paths[0], Pictures(system)), arguments)
    return 0


def _housekeeping_command(arguments: Namespace) -> int:
    return output.print_lines(keep_house(resolve_names(demo.EMBEDDED, needed=()), arguments))


if __name__ == "__main__":
    sys.exit(main())
