"""Stage 5: captions written by a vision-language model (VLM)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import Image

import config
from support import models
from support.records import GeneratedCaption, ModelRef
from support.result import MadeWith
from support.server.captioner import ServedCaptioner, load_served_captioner


@dataclass(frozen=True)
class Captioner:
    """A loaded VLM."""

    model: Any
    processor: Any
    device: str
    takes_prompt: bool  # False for BLIP and GIT, which caption from the image alone

    def shown(self, prompts: Sequence[str]) -> list[str | None]:
        """The prompts that the model is shown: all of them, or None for each."""
        return list(prompts) if self.takes_prompt else [None] * len(prompts)

    def write_captions(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One caption for each RGB image with its prompt; in batches of config.VLM_BATCH_SIZE."""
        pairs = list(zip(images, prompts, strict=True))
        size = config.VLM_BATCH_SIZE
        written: list[str] = []
        for captions in models.run_in_batches(pairs, size, self._caption_batch, "captioning"):
            written += captions
        return written

    def _caption_batch(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[str]:
        import torch

        inputs = self._inputs(pairs).to(self.device, self.model.dtype)
        if config.TEMPERATURE > 0:
            torch.manual_seed(config.RANDOM_SEED)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, **generation_settings())  # (B, prompt + new)
        if self.takes_prompt:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]  # (B, new)
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def _inputs(self, pairs: Sequence[tuple[Image.Image, str]]) -> Any:
        images = [image for image, _ in pairs]
        if not self.takes_prompt:
            return self.processor(images=images, return_tensors="pt")
        return self.processor.apply_chat_template(
            [[_message(image, prompt)] for image, prompt in pairs],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )


def _message(image: Image.Image, prompt: str) -> dict[str, Any]:
    content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
    return {"role": "user", "content": content}


def generation_settings() -> dict[str, Any]:
    """What `generate` is given: greedy unless config.NUM_BEAMS or config.TEMPERATURE differ."""
    settings: dict[str, Any] = {
        "max_new_tokens": config.MAX_NEW_TOKENS,
        "num_beams": config.NUM_BEAMS,
        "do_sample": config.TEMPERATURE > 0,
    }
    if config.TEMPERATURE > 0:
        settings["temperature"] = config.TEMPERATURE
    return settings


def write_captions(
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    ref: ModelRef,
    made_with: MadeWith,
    run: str | None = None,
) -> list[GeneratedCaption]:
    """One caption by the VLM of `ref` for each RGB image with its prompt, and what made it."""
    captioner = load_captioner(ref)
    timestamp = datetime.now().astimezone().isoformat(timespec="seconds")
    captions = captioner.write_captions(images, prompts)
    return [
        GeneratedCaption(caption, prompt, {"timestamp": timestamp, **made_with, "run": run})
        for caption, prompt in zip(captions, captioner.shown(prompts), strict=True)
    ]


AnyCaptioner = Captioner | ServedCaptioner


def load_captioner(ref: ModelRef) -> AnyCaptioner:
    """The VLM of `ref`, loaded once per process; or a client of the server that has it."""
    if ref.server is not None:
        return load_served_captioner(ref)
    splitting = config.VLM_IMAGE_SPLITTING

    def build(path: str, arguments: dict[str, Any], device: str) -> Captioner:
        return _build(path, arguments, device, splitting)

    return models.load_once("vlm", ref, build, splitting)


def _build(path: str, arguments: dict[str, Any], device: str, splitting: bool) -> Captioner:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    without_dtype = models.without_dtype(arguments)
    processor = AutoProcessor.from_pretrained(path, backend="pil", **without_dtype)
    model: Any = AutoModelForImageTextToText.from_pretrained(path, **arguments)
    takes_prompt = bool(getattr(processor, "chat_template", None))
    if takes_prompt:
        # The new tokens of a batch must follow the prompt, not its padding.
        processor.tokenizer.padding_side = "left"
    if hasattr(processor.image_processor, "do_image_splitting"):
        processor.image_processor.do_image_splitting = splitting
    return Captioner(model.to(device).eval(), processor, device, takes_prompt)
