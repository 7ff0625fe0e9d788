"""How the time of a query and of an update grows with the images: `benchmarks/speed.png`."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.speed.databases import adder
from benchmarks.speed.made import Databases, key_of, unit_vectors
from benchmarks.speed.measure import seconds
from benchmarks.speed.search import TEXTS, K, one_product

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
PLOT = Path(__file__).parent.parent / "speed.png"


def draw(largest: int) -> None:
    """Measures at each size, and draws the medians."""
    sizes = [size for size in SIZES if size <= largest]
    measured: dict[str, list[float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for name, milliseconds in _measured(Databases(Path(folder), size)).items():
                measured.setdefault(name, []).append(milliseconds)
        print(size, {name: round(values[-1], 2) for name, values in measured.items()}, flush=True)
    _plot(sizes, measured)


def _measured(databases: Databases) -> dict[str, float]:
    system, images, texts = databases.system, databases.images, databases.texts
    query, key = images.matrix[7].copy(), key_of(7)
    words = unit_vectors(1, seed=2)[0]
    runs: dict[str, Callable[[], object]] = {
        "X @ q + argpartition": lambda: one_product(images.matrix, query),
        "neighbors of an image": lambda: system.pool(images).neighbors(query, key, K),
        "search by text": lambda: system.caption_pool(texts).search(
            TEXTS[0], words, texts.matrix, K
        ),
        "add a caption": adder(system.db_manager, images),
    }
    found = {}
    for name, run in runs.items():
        run()
        found[name] = statistics.median(1000 * seconds(run) for _ in range(9))
    system.db_manager.close(compact=False)
    return found


def _plot(sizes: list[int], measured: dict[str, list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for (name, values), style in zip(measured.items(), ("k--", "o-", "s-", "^-"), strict=True):
        axes.plot(sizes, values, style, label=name, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="images (512 dimensions)", ylabel="ms, median of 9")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(PLOT, dpi=120)
