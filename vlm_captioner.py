"""Stage 5: captions written by a vision-language model (VLM)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

import config
import model_loader
from records import ModelRef


@dataclass(frozen=True)
class Captioner:
    """A loaded VLM. `takes_prompt` is False for BLIP and GIT, which caption from the image alone."""

    model: Any
    processor: Any
    device: str
    takes_prompt: bool

    def write_captions(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One caption for each RGB image with its prompt; in batches of config.VLM_BATCH_SIZE."""
        pairs = list(zip(images, prompts, strict=True))
        batches = model_loader.in_batches(pairs, config.VLM_BATCH_SIZE, self._caption_batch, "captioning")
        return [caption for batch in batches for caption in batch]

    def _caption_batch(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[str]:
        import torch

        inputs = self._inputs(pairs).to(self.device, self.model.dtype)
        if config.TEMPERATURE > 0:
            torch.manual_seed(config.RANDOM_SEED)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, **generation_settings())  # (B, prompt + new)
        if self.takes_prompt:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]  # (B, new)
        return [" ".join(text.split()) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]

    def _inputs(self, pairs: Sequence[tuple[Image.Image, str]]) -> Any:
        images = [image for image, _ in pairs]
        if not self.takes_prompt:
            return self.processor(images=images, return_tensors="pt")
        messages = [[_message(image, prompt)] for image, prompt in pairs]
        return self.processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )


def _message(image: Image.Image, prompt: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": prompt}]}


def generation_settings() -> dict[str, Any]:
    """What `generate` is given: greedy unless config.NUM_BEAMS or config.TEMPERATURE say otherwise."""
    settings: dict[str, Any] = {
        "max_new_tokens": config.MAX_NEW_TOKENS,
        "num_beams": config.NUM_BEAMS,
        "do_sample": config.TEMPERATURE > 0,
    }
    if config.TEMPERATURE > 0:
        settings["temperature"] = config.TEMPERATURE
    return settings


def load_captioner(ref: ModelRef) -> Captioner:
    """The VLM of `ref`, loaded once a process."""
    splitting = config.VLM_IMAGE_SPLITTING
    return model_loader.load_once("vlm", ref, lambda *where: _build(*where, splitting), splitting)


def _build(path: str, arguments: dict, device: str, splitting: bool) -> Captioner:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    without_dtype = {key: value for key, value in arguments.items() if key != "dtype"}
    processor = AutoProcessor.from_pretrained(path, backend="pil", **without_dtype)
    model = AutoModelForImageTextToText.from_pretrained(path, **arguments).to(device).eval()
    takes_prompt = bool(getattr(processor, "chat_template", None))
    if takes_prompt:
        processor.tokenizer.padding_side = "left"  # the new tokens of a batch must follow the prompt, not its padding
    if hasattr(processor.image_processor, "do_image_splitting"):
        processor.image_processor.do_image_splitting = splitting
    return Captioner(model, processor, device, takes_prompt)
