"""Where retrieval helped and where it harmed, and whether it helps when something similar is there.

By the paired difference in CIDEr between the caption with retrieval and that without.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import config
from experiments import metrics
from support.records import Neighbor, Sample

METRIC = "cider"
SHOWN = 5  # images that were helped most, and harmed most
BINS = 5  # by the similarity of the nearest neighbor, each with as many images


def gains(
    samples: Sequence[Sample],
    captions: Mapping[str, Sequence[str]],
    by_image: Mapping[str, Mapping[str, np.ndarray]],
    nearest: Sequence[Sequence[Neighbor]],
) -> dict[str, Any] | None:
    """What retrieval gained for each image, JSON-ready; None without both arms, or an image.

    `captions` and `by_image`, the scores (N,), are by arm; `nearest` are the images' neighbors.
    """
    if not {"none", "retrieved"} <= captions.keys():
        return None
    difference = by_image["retrieved"][METRIC] - by_image["none"][METRIC]  # (N,)
    order = np.argsort(-difference, kind="stable")

    def row(number: int) -> dict[str, Any]:
        found = nearest[number]
        return {
            "experiment_index": samples[number].role_index,
            "image": samples[number].label,
            "difference": round(float(difference[number]), 6),
            "without": captions["none"][number],
            "with": captions["retrieved"][number],
            "nearest": found[0].as_dict() if found else None,
        }

    helped = [row(number) for number in order[:SHOWN] if difference[number] > 0]
    harmed = [row(number) for number in order[::-1][:SHOWN] if difference[number] < 0]
    similarities = np.array([found[0].similarity if found else np.nan for found in nearest])
    bins = _by_similarity(difference, similarities)
    return {"metric": METRIC, "helped": helped, "harmed": harmed, "by_similarity": bins}


def _by_similarity(difference: np.ndarray, similarities: np.ndarray) -> list[dict[str, float]]:
    """The mean difference (N,) of images whose nearest neighbor is about equally similar.

    BINS of as many images each, the least similar first, with bootstrap 95 % intervals.
    """
    known = np.flatnonzero(~np.isnan(similarities))
    order = known[np.argsort(similarities[known], kind="stable")]
    rows = []
    for number, images in enumerate(np.array_split(order, BINS)):
        if not len(images):
            continue
        weights = metrics.bootstrap_weights(len(images), (config.RANDOM_SEED + number) % 2**32)
        mean = metrics.mean_statistic(difference[images])
        interval = metrics.paired_interval(mean, lambda w: np.zeros(w.shape[:-1]), weights)
        rows.append(
            {
                "from": float(similarities[images[0]]),
                "to": float(similarities[images[-1]]),
                "images": len(images),
                **interval._asdict(),
            }
        )
    return rows
