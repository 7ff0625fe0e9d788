"""Captions by a VLM of SmolVLM-256M's shape."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import config
from benchmarks.full_models import clip_b32, smolvlm_256m
from benchmarks.speed.made import make_photos, unit_vectors
from benchmarks.speed.measure import Line, beside, seconds
from experiments.results import Clock
from experiments.runs import Prepared
from image_embedder import EmbeddedImages, load_image_embedder
from prompt_generator import build_prompts
from similarity_search import Candidate, Pool
from support.sources.own import own_sample
from vlm_captioner import Captioner, generation_settings, load_captioner

BATCH, BATCHES, TOKENS = 8, 2, 30


def vlm(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """One photo and batches of 8, 30 tokens each; a run over several batches."""
    before = config.MAX_NEW_TOKENS
    config.MAX_NEW_TOKENS = TOKENS
    try:
        captioner = load_captioner(smolvlm_256m(folder / "vlm"))
        paths = make_photos(folder / "vlm-photos", BATCH * BATCHES, (500, 375))
        samples = [own_sample(path) for path in paths]
        images = [sample.image for sample in samples]
        prompts = ["Captions of similar images: " + "a big red dog runs on the " * 12] * len(images)
        yield from _one_and_eight(captioner, images, prompts)
        yield _run(captioner, folder, samples)
    finally:
        config.MAX_NEW_TOKENS = before


def _one_and_eight(captioner: Captioner, images: list, prompts: list[str]) -> Iterator[Line]:
    one = images[:1], prompts[:1]
    yield beside(
        f"caption one photo, {TOKENS} tokens",
        "transformers' processor + generate",
        lambda: captioner.write_captions(*one),
        lambda: _by_hand(captioner, *one),
        ">= 0.97",
        items=1,
    )
    eight = images[:BATCH], prompts[:BATCH]

    def singly() -> None:
        for image, prompt in zip(*eight, strict=True):
            captioner.write_captions([image], [prompt])

    shares = _shares(captioner, *eight)
    yield beside(
        f"caption {BATCH} photos at once ({shares})",
        "one at a time",
        lambda: captioner.write_captions(*eight),
        singly,
        ">= 1.4",
        items=BATCH,
        rounds=5,
    )


def _by_hand(captioner: Captioner, images: list, prompts: list[str]) -> list[str]:
    """As the model's card shows it."""
    import torch

    content = [{"type": "image", "image": images[0]}, {"type": "text", "text": prompts[0]}]
    inputs = captioner.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(captioner.device, captioner.model.dtype)
    with torch.inference_mode():
        tokens = captioner.model.generate(**inputs, **generation_settings())
    return captioner.processor.batch_decode(tokens, skip_special_tokens=True)


def _shares(captioner: Captioner, images: list, prompts: list[str]) -> str:
    """Which shares of the time the vision tower, the prefill and the decoding take."""
    import torch

    inputs: Any = captioner._inputs(list(zip(images, prompts, strict=True)))
    inputs = inputs.to(captioner.device, captioner.model.dtype)
    settings = generation_settings()
    with torch.inference_mode():
        masks = {name: inputs[name] for name in ("pixel_values", "pixel_attention_mask")}
        whole = seconds(lambda: captioner.model.generate(**inputs, **settings))
        look = seconds(lambda: captioner.model.model.get_image_features(**masks))
        first = seconds(
            lambda: captioner.model.generate(**inputs, **{**settings, "max_new_tokens": 1})
        )
    shares = look, first - look, whole - first
    names = ("vision", "prefill", "decoding")
    parts = [f"{name} {share / whole:.0%}" for name, share in zip(names, shares, strict=True)]
    return ", ".join(parts)


def _run(captioner: Captioner, folder: Path, samples: list) -> Line:
    """`--all`'s loop over batches; theirs is the time that its own calls of the VLM take."""
    from concurrent.futures import ThreadPoolExecutor

    embedder = load_image_embedder(clip_b32(folder / "vlm-clip"))
    table: Any = SimpleNamespace(decoded_for=embedder.seen_side)
    images = EmbeddedImages(embedder, table)
    matrix = unit_vectors(8_000)
    found = [Candidate(f"{n}", n, ("a dog runs",), "original", n, "") for n in range(len(matrix))]
    pool = Pool.of(found, {f"{n}": n for n in range(len(matrix))}, matrix)

    def prepare(batch: list) -> Prepared:
        shown = [sample.image for sample in batch]
        vectors = images.embed(batch)
        neighbors = pool.neighbors_of(batch, vectors)
        return Prepared(batch, shown, vectors, neighbors, build_prompts(neighbors), Clock())

    groups = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]
    prepared = [prepare(group) for group in groups]

    def ahead() -> None:
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(prepare, groups[0])
            for number in range(len(groups)):
                current = coming.result()
                if number + 1 < len(groups):
                    coming = thread.submit(prepare, groups[number + 1])
                captioner.write_captions(current.images, current.prompts)

    def bare() -> None:
        for batch in prepared:
            captioner.write_captions(batch.images, batch.prompts)

    work = f"--all: {len(samples)} photos, the next batch prepared meanwhile"
    return beside(work, "the VLM alone", ahead, bare, "<= 1.05", rounds=5)
