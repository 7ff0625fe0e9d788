"""Measure the speed-up of captioning in batches: `python -m benchmarks.batching`.

Captions the same demo images with the same prompts, in batches and one at a time in turn, in one
process; prints the images per second of each (medians) and the median ratio. Also checks that the
captions are the same. Flags and their defaults: `--batch 16 --images 48 --rounds 5`.
"""

import argparse
import statistics
import time

import config
import demo
import main as pipeline
from prompt_generator import build_prompts
from support.hub.revisions import locate
from vlm_captioner import load_captioner


def main() -> None:
    """Measures, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config.MODE, config.SHOW_PROGRESS = "demo", False
    system = pipeline.initialize_system()
    with system.db_manager:
        embedder, table = pipeline.embed_images(system)
        pool = system.pool(table, generated=False)
    samples = system.dataset_loader.get_experiment_data()[: arguments.images]
    images = [sample.image for sample in samples]
    prompts = build_prompts(pool.neighbors_of(samples, embedder.embed(images)))
    captioner = load_captioner(locate(demo.model("vlm")))

    def seconds(batch_size: int) -> tuple[float, list[str]]:
        config.VLM_BATCH_SIZE = batch_size
        start = time.perf_counter()
        captions = captioner.write_captions(images, prompts)
        return time.perf_counter() - start, captions

    seconds(arguments.batch)  # warm-up
    rounds = [(seconds(1), seconds(arguments.batch)) for _ in range(arguments.rounds)]
    same = all(single[1] == batched[1] for single, batched in rounds)
    rates = [statistics.median(len(images) / run[which][0] for run in rounds) for which in (0, 1)]
    ratio = statistics.median(single[0] / batched[0] for single, batched in rounds)
    verdict = "the same" if same else "DIFFERENT"
    print(f"{len(images)} images, {arguments.rounds} rounds, captions {verdict}")
    print(
        f"one at a time {rates[0]:.1f} images/s, "
        f"in batches of {arguments.batch} {rates[1]:.1f} images/s"
    )
    print(f"{ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
