"""Search by captions, by look and by both, measured on the demo: where its settings come from.

python -m benchmarks.ways_of_search    (a few minutes)

What matches a query is known, because the demo's scenes are drawn. All choices are made on
demo/tuning_queries.json; the 30 queries of demo/queries.json are only reported.
"""

import json
import random
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import config
import main as pipeline
from demo.making.queries import matches
from demo.making.report import QUERIES, TUNING_QUERIES, scene_of
from experiments import query, search
from experiments.system import System
from support.records import Neighbor

DEPTHS = (5, 10, 20, 50, 100)
SHARES = (1.0, 0.5, 0.3, 0.1, 0.02)  # of the gallery's images that keep their captions
DRAWS = 3  # of the images that do
TEXT_WEIGHTS = (0, 0.5, 1, 1.5, 2, 3, 5)
WITHOUT_WEIGHTS = (0, 0.25, 0.5, 0.75, 1)
TIMES = {
    "morning": "in the morning", "noon": "at noon", "evening": "in the evening", "night": "at night"
}  # fmt: skip
K = 5
IMAGES = 100  # experiments that are query images
Found = Sequence[Neighbor]
Facts = dict[str, Any]


def main() -> None:
    """Prints the tables."""
    config.MODE = "demo"
    with tempfile.TemporaryDirectory() as config.DB_DIR:
        system = pipeline.initialize_system()
        tuning, reported = (
            json.loads(path.read_text("utf-8")) for path in (TUNING_QUERIES, QUERIES)
        )
        for name, queries in (("tuning_queries.json", tuning), ("queries.json", reported)):
            for by in query.WAYS:
                found = [_found(system, facts["query"], by=by) for facts in queries]
                print(f"{name:<20} by {by:<8} {_precision(found, queries)}", flush=True)
        _print_depths(system, tuning)
        _print_shares(system, tuning)
        _print_text_weights(system)
        _print_without_weights(system, tuning)


def _found(system: System, text: str | None, k: int = K, **options: Any) -> Found:
    wanted = query.query_of(text, within="gallery", top_k=k, **options)
    return search.search(wanted, system, pipeline.embed_images)


def _precision(found: Iterable[Found], queries: Iterable[Facts]) -> str:
    """The share of the first, and of the first K, that match."""
    rights = [
        [matches(scene_of(neighbor.image), facts) for neighbor in some]
        for some, facts in zip(found, queries, strict=True)
    ]
    first, all_of = np.array([right[0] for right in rights]), [np.mean(r) for r in rights]
    return f"precision@1 {first.mean():.3f}  @{K} {np.mean(all_of):.3f}"


def _print_depths(system: System, queries: Sequence[Facts]) -> None:
    usual = search.FUSED_DEPTH
    for depth in DEPTHS:
        search.FUSED_DEPTH = depth
        fused = []
        for facts in queries:
            lists = [_found(system, facts["query"], depth, by=by) for by in ("caption", "look")]
            fused.append(search.fused(lists, [1, 1])[:K])
        print(f"both, lists of {depth:<4} {_precision(fused, queries)}", flush=True)
    search.FUSED_DEPTH = usual


def _print_shares(system: System, queries: Sequence[Facts]) -> None:
    """Where only some images have captions; those that lose them are drawn."""
    records = system.db_manager.captions
    whole = {key: record["captions"] for key, record in records.items()}
    for share in SHARES:
        found: dict[str, list[Found]] = {by: [] for by in query.WAYS}
        for draw in range(DRAWS if share < 1 else 1):
            kept = set(random.Random(draw).sample(sorted(whole), round(share * len(whole))))
            changed = {
                key: {**record, "captions": whole[key] if key in kept else []}
                for key, record in records.items()
            }
            system.db_manager.caption_table.update(changed)
            for by, lists in found.items():
                lists += [_found(system, facts["query"], by=by) for facts in queries]
        for by, lists in found.items():
            precision = _precision(lists, list(queries) * (len(lists) // len(queries)))
            print(f"captions for {share:<5.0%} by {by:<8} {precision}", flush=True)
    restored = {key: {**record, "captions": whole[key]} for key, record in records.items()}
    system.db_manager.caption_table.update(restored)


def _print_text_weights(system: System) -> None:
    """An image of a place at one time, and a text for another: do hits show that place then?"""
    usual = search.TEXT_WEIGHT
    for weight in TEXT_WEIGHTS:
        search.TEXT_WEIGHT = weight
        right = []
        for sample in system.dataset_loader.get_experiment_data()[:IMAGES]:
            scene = scene_of(sample.label)
            for time in TIMES.keys() - {scene.time}:
                hits = [scene_of(n.image) for n in _found(system, TIMES[time], image=sample.label)]
                right += [hit.place == scene.place and hit.time == time for hit in hits]
        print(f"image and text, weight {weight:<4}  right place and time {np.mean(right):.3f}")
    search.TEXT_WEIGHT = usual


def _print_without_weights(system: System, queries: Sequence[Facts]) -> None:
    """A query that names no time, and a time to avoid: do hits match, and show another one?"""
    usual = search.WITHOUT_WEIGHT
    for weight in WITHOUT_WEIGHTS:
        search.WITHOUT_WEIGHT = weight
        for by in ("caption", "look"):
            matched, other, both = [], [], []
            for facts in (facts for facts in queries if "time" not in facts):
                for time, text in TIMES.items():
                    found = _found(system, facts["query"], by=by, without=text)
                    hits = [scene_of(neighbor.image) for neighbor in found]
                    matched += [matches(hit, facts) for hit in hits]
                    other += [hit.time != time for hit in hits]
                    both += [matches(hit, facts) and hit.time != time for hit in hits]
            print(
                f"without a time, weight {weight:<4} by {by:<8} right {np.mean(matched):.3f}  "
                f"avoided {np.mean(other):.3f}  both {np.mean(both):.3f}",
                flush=True,
            )
    search.WITHOUT_WEIGHT = usual


if __name__ == "__main__":
    main()
