"""Train the demo's VLM in five phases, with a vision tower that starts from the demo's CLIP.

`copy`: the decoder alone, on prompts as text, until it copies names from the listed captions.
`tune`: CLIP's vision layers in their new tower. `see`: the vision tower, mostly without context
captions. `mix`: prompts with 0 to 5 captions of neighbours that CLIP found, or of unrelated scenes.
`spell`: the same with more captions, until names are spelled exactly. Places get new invented names
in every example, and the caption to generate contains a name only if the context does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPModel, Idefics3ForConditionalGeneration, PreTrainedTokenizerFast

from demo.making.tokenizer import vlm_tokenizer
from demo.making.train_clip import WIDTH, PatchHeads, labels_of
from demo.making.training import Phase, Setting, train_phase
from demo.making.training_data import TrainingScenes, normalised
from demo.making.vlm_examples import encode, find_neighbors, make_example
from demo.making.vlm_model import SHUFFLE, TEXT_WIDTH, new_vlm, save_vlm, start_from_clip

COPY = Phase("vlm-copy", steps=300, learning_rate=2e-3)
TUNE = Phase("vlm-tune", steps=120, learning_rate=1e-3)
SEE = Phase("vlm-see", steps=700, learning_rate=1e-3)
MIX = Phase("vlm-mix", steps=1200, learning_rate=1.2e-3)
SPELL = Phase("vlm-spell", steps=300, learning_rate=8e-4)
CONTEXTS = {  # probability of 0, 1, ... 5 context captions
    COPY.name: (0, 0.1, 0.2, 0.2, 0.2, 0.3),
    SEE.name: (0.8, 0, 0.05, 0, 0, 0.15),
    MIX.name: (0.3, 0.1, 0.08, 0.12, 0.08, 0.32),
    SPELL.name: (0.1, 0.1, 0.1, 0.15, 0.15, 0.4),
}
NAME_WEIGHTS = {COPY.name: 5.0, SEE.name: 3.0, MIX.name: 4.0, SPELL.name: 4.0}


class VlmInTraining(nn.Module):
    """The VLM with auxiliary heads on patches and on image tokens, for training only."""

    def __init__(self) -> None:
        super().__init__()
        self.vlm = new_vlm()
        self.patch_heads = PatchHeads(WIDTH)
        self.token_heads = PatchHeads(TEXT_WIDTH, cells=SHUFFLE**2)


@dataclass(frozen=True)
class TrainingData:
    """What examples are sampled from."""

    scenes: TrainingScenes
    neighbors: np.ndarray  # (N, NEIGHBORS) int: indices of the nearest scenes
    names: list[str]
    tokenizer: PreTrainedTokenizerFast


def train_vlm(
    scenes: TrainingScenes,
    names: list[str],
    clip: CLIPModel,
    vocabulary: Path,
    folder: Path,
    setting: Setting,
) -> Idefics3ForConditionalGeneration:
    """Train the VLM on `scenes`, saving it to `folder` at every checkpoint."""
    torch.manual_seed(setting.seed + 1)
    module = VlmInTraining()
    start_from_clip(module.vlm, clip, scenes)
    module.to(setting.device)
    neighbors = find_neighbors(clip, scenes, setting)
    data = TrainingData(scenes, neighbors, names, vlm_tokenizer(vocabulary))

    def losses_of(phase: Phase) -> Callable[[np.random.Generator], dict[str, torch.Tensor]]:
        def compute_losses(rng: np.random.Generator) -> dict[str, torch.Tensor]:
            if phase.name == TUNE.name:
                return _vision_losses(module, scenes, rng, setting)
            return _caption_losses(module, phase, data, rng, setting)

        return compute_losses

    def save() -> None:
        save_vlm(module.vlm, vocabulary, folder)

    for phase in (COPY, TUNE, SEE, MIX, SPELL):
        train_phase(module, phase, setting, losses_of(phase), save)
    return module.vlm


def _vision_losses(
    module: VlmInTraining, scenes: TrainingScenes, rng: np.random.Generator, setting: Setting
) -> dict[str, torch.Tensor]:
    """The auxiliary losses on a batch of images."""
    picks = np.sort(rng.choice(len(scenes), 256, replace=False))
    with setting.autocast():
        return _encode_images(module, scenes, picks, setting)[1]


def _encode_images(
    module: VlmInTraining, scenes: TrainingScenes, picks: np.ndarray, setting: Setting
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Image tokens (B, IMAGE_TOKENS, TEXT_WIDTH), and the auxiliary losses."""
    pixels = torch.from_numpy(normalised(scenes.pixels[picks])).to(setting.device)
    # (B, patches, WIDTH)
    patches = module.vlm.model.vision_model(pixel_values=pixels).last_hidden_state
    image_tokens = module.vlm.model.connector(patches)
    patch_labels = labels_of(scenes, picks, setting.device)
    token_labels = labels_of(scenes, picks, setting.device, cell=SHUFFLE)
    on_patches = module.patch_heads.losses(patches, patches.mean(dim=1), patch_labels)
    on_tokens = module.token_heads.losses(image_tokens, image_tokens.mean(dim=1), token_labels)
    losses = {key: 0.15 * (on_patches[key] + on_tokens[key]) for key in on_patches}
    return image_tokens, losses


def _caption_losses(
    module: VlmInTraining,
    phase: Phase,
    data: TrainingData,
    rng: np.random.Generator,
    setting: Setting,
) -> dict[str, torch.Tensor]:
    """The losses on a batch of prompts with equally many captions, which keeps padding short."""
    count = int(rng.choice(6, p=CONTEXTS[phase.name]))
    batch = 96 if count == 0 else 64 if count < 3 else 48
    picks = np.sort(rng.choice(len(data.scenes), batch, replace=False))
    examples = [make_example(data.scenes, i, data.neighbors, count, data.names, rng) for i in picks]
    text_only = phase.name == COPY.name
    encoded = encode(examples, data.tokenizer, text_only, NAME_WEIGHTS[phase.name])
    ids, weights = encoded["ids"].to(setting.device), encoded["weights"].to(setting.device)
    model = module.vlm.model
    with setting.autocast():
        embedded = model.text_model.get_input_embeddings()(ids)  # (B, T, TEXT_WIDTH)
        losses: dict[str, torch.Tensor] = {}
        if not text_only:
            image_tokens, losses = _encode_images(module, data.scenes, picks, setting)
            embedded = model.inputs_merger(ids, embedded, image_tokens)
        hidden = model.text_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        wanted = weights[:, 1:] > 0  # position t predicts token t + 1
        logits = module.vlm.lm_head(hidden[:, :-1][wanted]).float()
    each = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    weight = weights[:, 1:][wanted]
    key = "text" if text_only else "blind" if count == 0 else "shown"
    return {key: (each * weight).sum() / weight.sum(), **losses}
