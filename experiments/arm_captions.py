"""The captions of an evaluation's images under its arms."""

from collections.abc import Callable, Sequence
from typing import Any

import config
from caption_embedder import CaptionEmbedder
from experiments.arms import WITHOUT_MODEL, Arm, copied_caption, generation_key
from experiments.progress import CaptionRow, Progress
from prompt_generator import build_prompt
from support.batches import batches
from support.records import Sample
from vlm_captioner import AnyCaptioner


class CaptionWriter:
    """Captions images under one arm after the other.

    What was written for the same image with the same prompt and settings is taken again.
    """

    def __init__(
        self,
        load_captioner: Callable[[], AnyCaptioner],
        caption_embedder: CaptionEmbedder,
        progress: Progress,
    ):
        """`load_captioner` loads the VLM with config's settings as they are then."""
        self._load_captioner = load_captioner
        self._caption_embedder = caption_embedder
        self._progress = progress
        self._known: dict[tuple[Any, ...], str] = {}  # by _key

    def caption(self, arm: Arm, samples: Sequence[Sample], contexts: Sequence[list[str]]) -> None:
        """Captions the samples that are not done yet under one arm."""
        missing: list[tuple[Sample, list[str]]] = []
        with arm.configured():
            for sample, texts in zip(samples, contexts, strict=True):
                row = self._progress.done.get((arm.name, sample.content_hash))
                if row is None:
                    missing.append((sample, texts))
                elif arm.kind not in WITHOUT_MODEL:
                    self._known[_key(sample, build_prompt(texts))] = row["caption"]
            done, size = len(samples) - len(missing), config.VLM_BATCH_SIZE
            for batch in batches(missing, size, f"Arm {arm.name}", "image", done=done):
                self._progress.add(self._rows(arm, *zip(*batch, strict=True)))

    def _rows(
        self, arm: Arm, samples: Sequence[Sample], texts: Sequence[list[str]]
    ) -> list[CaptionRow]:
        """The captions of a batch, with the prompts that the model was shown (None without one)."""
        shown: Sequence[str | None] = [None] * len(texts)
        if arm.kind in WITHOUT_MODEL:
            captions = [copied_caption(arm, some, self._caption_embedder) for some in texts]
        else:
            captions, shown = self._written(samples, [build_prompt(some) for some in texts])
        return [
            {"arm": arm.name, "content_hash": sample.content_hash, "caption": text, "prompt": seen}
            for sample, text, seen in zip(samples, captions, shown, strict=True)
        ]

    def _written(
        self, samples: Sequence[Sample], prompts: Sequence[str]
    ) -> tuple[list[str], list[str | None]]:
        """The captions of a batch, and the prompts that the model was shown."""
        captioner = self._load_captioner()
        keys = [_key(*pair) for pair in zip(samples, prompts, strict=True)]
        known = self._known if config.TEMPERATURE == 0 else {}  # a sampled one is of its batch
        new = [number for number, key in enumerate(keys) if key not in known]
        images = [samples[number].image for number in new]
        if new:
            captions = captioner.write_captions(images, [prompts[number] for number in new])
            known.update(zip([keys[number] for number in new], captions, strict=True))
        return [known[key] for key in keys], captioner.shown(prompts)


def _key(sample: Sample, prompt: str) -> tuple[Any, ...]:
    """All that decides a caption, but for the model."""
    return (sample.content_hash, prompt, *generation_key())
