"""Measure the demo: `python -m demo.report` (a few minutes; `--limit 50` for a glance).

Every experiment scene is captioned greedily with its neighbours' captions in the prompt, without any, and with those of
the neighbours of a scene at another place. The scene's own code says what is right. The pipeline's stages do the work,
on databases of their own in a temporary folder.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import config
import hub
import main as pipeline
import prompt_generator
import vlm_captioner
from demo.names import PLACE_NAMES
from demo.reading import read_mentions
from demo.scenes import PLACES, Scene, sample_scene
from demo.scoring import place_names
from demo.wishes import fits
from records import Neighbor, Sample

QUERIES = Path(__file__).with_name("queries.json")
TUNING_QUERIES = Path(__file__).with_name("tuning_queries.json")
ARMS = ("with retrieval", "without", "another place's neighbours")


@dataclass(frozen=True)
class Score:
    """What one caption of one scene got right."""

    place: bool  # the place's name is there
    other_place: bool  # another place's name is there
    things_right: int  # things with their colours, of those that the references mention
    things_mentioned: int
    things_wrong: int  # things with colours that are not in the scene
    time: bool
    ground: bool


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="experiment scenes (default: all)")
    parser.add_argument("--show", type=int, default=0, help="print so many captions in full")
    parser.add_argument("--captions-only", action="store_true", help="leave out the search by text")
    args = parser.parse_args()
    config.MODE = "demo"
    with tempfile.TemporaryDirectory() as databases:
        config.DB_DIR = databases
        _report(args)


def _report(args: argparse.Namespace) -> None:
    dataset_loader, db_manager = pipeline.initialize_system()
    samples = list(dataset_loader.get_experiment_data())[: args.limit]
    gallery = pipeline.embed_images(dataset_loader, db_manager)
    vectors, pool = gallery.embedder.embed([sample.image for sample in samples]), gallery.pool(generated=False)
    neighbors = [pool.neighbors(vector, sample.content_hash) for sample, vector in zip(samples, vectors, strict=True)]
    print(f"{len(samples)} experiment scenes, {len(pool)} gallery scenes")
    print(f"CLIP: precision@{config.TOP_K_SIMILAR} for place {place_precision(samples, neighbors):.3f}")
    captioner = vlm_captioner.load_captioner(hub.locate(hub.model_refs(dataset_loader.mode).vlm))
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
    """The scene of a demo image: its file is named after its seed."""
    return sample_scene(int(Path(label).stem))


def place_precision(samples: Sequence[Sample], neighbors: Sequence[Sequence[Neighbor]]) -> float:
    """Share of the neighbours that show the query's place."""
    return float(np.mean([
        scene_of(neighbor.image).place == scene_of(sample.label).place
        for sample, found in zip(samples, neighbors, strict=True) for neighbor in found
    ]))  # fmt: skip


def score(sample: Sample, caption: str) -> Score:
    """Compare a caption with the scene it is about."""
    scene, said = scene_of(sample.label), read_mentions(caption)
    present = {(thing.color, thing.kind) for thing in scene.things}
    mentioned = present & frozenset().union(*(read_mentions(reference).things for reference in sample.captions))
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
    """The prompts of each arm."""
    own = pipeline._build_prompts(neighbors)
    places = [scene_of(sample.label).place for sample in samples]
    count = len(samples)
    others = []
    for index, place in enumerate(places):
        following = ((index + step) % count for step in range(1, count))
        others.append(own[next((other for other in following if places[other] != place), index)])
    return [own, [prompt_generator.build_prompt([])] * count, others]


def _print_scores(arm: str, scores: Sequence[Score]) -> None:
    def share(key: str) -> str:
        return f"{100 * np.mean([getattr(score, key) for score in scores]):5.1f} %"

    right, mentioned, wrong = (
        sum(getattr(score, key) for score in scores) for key in ("things_right", "things_mentioned", "things_wrong")
    )
    print(
        f"{arm:<27}  right place {share('place')} (another's name {share('other_place')})  "
        f"things with colours {100 * right / mentioned:5.1f} % (of those written, wrong "
        f"{100 * wrong / max(1, right + wrong):4.1f} %)  sky {share('time')}  ground {share('ground')}",
        flush=True,
    )


def _print_queries(path: Path, dataset_loader, db_manager) -> None:
    queries = json.loads(path.read_text(encoding="utf-8"))
    hits = []
    for expected in queries:
        best = pipeline.search_images(expected["query"], dataset_loader, db_manager, top_k=1)[0]["metadata"]
        hits.append(fits(scene_of(best["image"]), expected))
        print(f"  {'right' if hits[-1] else 'WRONG'}  {expected['query']}  ->  {best['caption']}")
    print(f"text search, {path.name}: precision@1 {np.mean(hits):.3f} ({sum(hits)} of {len(queries)} queries)")


if __name__ == "__main__":
    main()
