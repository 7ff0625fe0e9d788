"""Measure the demo's models: `python -m demo.report` (minutes; `--limit 50` for a quick look).

Captions every experiment scene by greedy decoding with its neighbours' captions in the prompt, with
none, and with those of the neighbours of a scene at another place. The scene itself is the ground
truth. It runs the stages of the pipeline on databases in a temporary folder.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import config
import demo
import main as pipeline
from dataset_loader import DatasetLoader
from db_manager import DatabaseManager
from demo.making.queries import matches
from demo.names import PLACE_NAMES
from demo.reading import read_mentions
from demo.scenes import PLACES, Scene, sample_scene
from demo.scoring import place_names
from experiments.query import WAYS
from prompt_generator import build_prompt, build_prompts
from support.hub.revisions import locate
from support.records import Neighbor, Sample
from vlm_captioner import load_captioner

QUERIES = demo.FOLDER / "queries.json"
TUNING_QUERIES = demo.FOLDER / "tuning_queries.json"
ARMS = ("with retrieval", "without", "another place's neighbours")


@dataclass(frozen=True)
class Score:
    """What one caption gets right about its scene."""

    place: bool  # it names the place
    other_place: bool  # it names another place
    things_right: int  # things with their colours, among those that the references mention
    things_mentioned: int  # by the references
    things_wrong: int  # things with colours that the scene does not have
    time: bool
    ground: bool


def main() -> None:
    """Parse the flags and print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="number of experiment scenes (default: all)")
    parser.add_argument("--show", type=int, default=0, help="number of captions to print in full")
    parser.add_argument("--captions-only", action="store_true", help="skip text search")
    args = parser.parse_args()
    config.MODE = "demo"
    with tempfile.TemporaryDirectory() as databases:
        config.DB_DIR = databases
        _report(args)


def _report(args: argparse.Namespace) -> None:
    system = pipeline.initialize_system()
    dataset_loader, db_manager = system
    samples = list(dataset_loader.get_experiment_data())[: args.limit]
    embedder, table = pipeline.embed_images(system)
    vectors = embedder.embed([sample.image for sample in samples])
    pool = system.pool(table, generated=False)
    neighbors = [
        pool.neighbors(vector, sample.content_hash)
        for sample, vector in zip(samples, vectors, strict=True)
    ]
    print(f"{len(samples)} experiment scenes, {len(pool)} gallery scenes")
    precision = place_precision(samples, neighbors)
    print(f"CLIP: precision@{config.TOP_K_SIMILAR} for place {precision:.3f}")
    captioner = load_captioner(locate(demo.model("vlm")))
    written = {}
    for arm, prompts in zip(ARMS, _prompts(samples, neighbors), strict=True):
        written[arm] = captioner.write_captions([sample.image for sample in samples], prompts)
        _print_scores(arm, [score(*pair) for pair in zip(samples, written[arm], strict=True)])
    for index in range(args.show):
        print(f"\n{samples[index].label}: {samples[index].caption}")
        print("\n".join(f"  {arm}: {captions[index]}" for arm, captions in written.items()))
    if not args.captions_only:
        for path in (TUNING_QUERIES, QUERIES):
            _print_queries(path, dataset_loader, db_manager)


def scene_of(label: str | Path) -> Scene:
    """The scene of a demo image, whose file is named by its seed."""
    return sample_scene(int(Path(label).stem))


def place_precision(samples: Sequence[Sample], neighbors: Sequence[Sequence[Neighbor]]) -> float:
    """Share of the neighbours that show the query's place."""
    same = [
        scene_of(neighbor.image).place == scene_of(sample.label).place
        for sample, found in zip(samples, neighbors, strict=True)
        for neighbor in found
    ]
    return float(np.mean(same))


def score(sample: Sample, caption: str) -> Score:
    """Compare a caption with its scene."""
    scene, said = scene_of(sample.label), read_mentions(caption)
    present = {(thing.color, thing.kind) for thing in scene.things}
    references = [read_mentions(reference) for reference in sample.captions]
    mentioned = present & {thing for reference in references for thing in reference.things}
    names, name = place_names(caption), PLACE_NAMES[scene.place]
    return Score(
        place=name in names,
        other_place=bool(names - {name}),
        things_right=len(said.things & mentioned),
        things_mentioned=len(mentioned),
        things_wrong=len(said.things - present),
        time=said.time == scene.time,
        ground=said.ground == PLACES[scene.place].ground,
    )


def _prompts(samples: Sequence[Sample], neighbors: Sequence[Sequence[Neighbor]]) -> list[list[str]]:
    """The prompts of each arm, in the order of ARMS."""
    own = build_prompts(neighbors)
    places = [scene_of(sample.label).place for sample in samples]
    count = len(samples)
    others = []
    for index, place in enumerate(places):
        following = ((index + step) % count for step in range(1, count))
        others.append(own[next((other for other in following if places[other] != place), index)])
    return [own, [build_prompt([])] * count, others]


def _print_scores(arm: str, scores: Sequence[Score]) -> None:
    """Print one line of percentages."""

    def share(key: str) -> str:
        return f"{100 * np.mean([getattr(score, key) for score in scores]):5.1f} %"

    right, mentioned, wrong = (
        sum(getattr(score, key) for score in scores)
        for key in ("things_right", "things_mentioned", "things_wrong")
    )
    print(
        f"{arm:<27}  place {share('place')} (another place {share('other_place')})  "
        f"things with colours {100 * right / mentioned:5.1f} % (wrong, of those written "
        f"{100 * wrong / max(1, right + wrong):4.1f} %)  time {share('time')}  "
        f"ground {share('ground')}",
        flush=True,
    )


def _print_queries(path: Path, dataset_loader: DatasetLoader, db_manager: DatabaseManager) -> None:
    """Print the best hit of every query in the gallery, and precision@1, for each way to search."""
    queries = json.loads(path.read_text(encoding="utf-8"))
    for by in WAYS:
        hits = []
        for expected in queries:
            (found,) = pipeline.search_images(
                expected["query"], dataset_loader, db_manager, top_k=1, by=by, within="gallery"
            )
            best = found["metadata"]
            hits.append(matches(scene_of(best["image"]), expected))
            verdict = "right" if hits[-1] else "WRONG"
            print(f"  {verdict}  {expected['query']}  ->  {best['caption']}")
        share = f"{np.mean(hits):.3f} ({sum(hits)} of {len(queries)} queries)"
        print(f"text search by {by}, {path.name}: precision@1 {share}")
