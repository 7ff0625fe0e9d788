"""Captions by a VLM of SmolVLM-256M's shape."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import config
import main as pipeline
from benchmarks.full_models import clip_b32, smolvlm_256m
from benchmarks.speed.made import make_photos
from benchmarks.speed.measure import Line, beside, seconds
from benchmarks.speed.startup import Settings
from demo import EMBEDDED
from support.sources.own import own_sample
from vlm_captioner import Captioner, generation_settings, load_captioner

BATCH, BATCHES, TOKENS = 8, 2, 30


def vlm(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """One photo and batches of 8, 30 tokens each; a run over several batches."""
    before = config.MAX_NEW_TOKENS
    config.MAX_NEW_TOKENS = TOKENS
    try:
        captioner = load_captioner(smolvlm_256m(folder / "vlm"))
        assert isinstance(captioner, Captioner)
        paths = make_photos(folder / "photos", BATCH, (500, 375))
        samples = [own_sample(path) for path in paths]
        images = [sample.image for sample in samples]
        prompts = ["Captions of similar images: " + "a big red dog runs on the " * 12] * len(images)
        yield from _one_and_eight(captioner, images, prompts)
        yield _run(captioner, folder)
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


def _run(captioner: Captioner, folder: Path) -> Line:
    """`--all` from beginning to end, databases and results too, beside its calls of the VLM."""
    count = BATCH * BATCHES
    photos = make_photos(folder / "gallery", 2 * count, (500, 375))
    lines = [f"{path.name},a photo of {path.stem}" for path in photos]
    (folder / "gallery" / "captions.txt").write_text("\n".join(lines) + "\n")
    changed = {
        "DATASET_NAME": str(folder / "gallery"),
        "EXPERIMENT_SAMPLES": count,
        "CLIP_MODEL_NAME": clip_b32(folder / "clip").path,
        "VLM_MODEL_NAME": str(folder / "vlm"),
        "CAPTION_EMBEDDING_MODEL": EMBEDDED.model("text").path,
        "DB_DIR": str(folder / "databases"),
        "RESULTS_DIR": str(folder / "results"),
        "MODE": "hub",
    }
    with Settings(**changed):
        system = pipeline.initialize_system()
        samples = system.dataset_loader.get_experiment_data()
        batches: list[tuple] = []
        write = Captioner.write_captions

        def noted(self: Captioner, images: list, prompts: list[str]) -> list[str]:
            batches.append((images, prompts))
            return write(self, images, prompts)

        def everything() -> None:
            batches.clear()
            setattr(Captioner, "write_captions", noted)  # noqa: B010 - a stand-in
            pipeline._run_over(samples, system, recaption=True)
            setattr(Captioner, "write_captions", write)  # noqa: B010

        def bare() -> None:
            for batch in batches:
                write(captioner, *batch)

        work = f"--all: {count} photos, the next batch prepared meanwhile"
        line = beside(work, "the VLM alone", everything, bare, "<= 1.05")
        system.db_manager.close()
    return line
