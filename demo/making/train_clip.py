"""The demo's CLIP: 1.5 M parameters, trained on pairs of scene and caption.

Besides the contrastive loss (https://arxiv.org/abs/2103.00020), auxiliary heads that are discarded
after training predict the thing on each patch. Every caption gets a new invented place name, so
names carry no information about the image.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import BatchEncoding, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from demo.making.tokenizer import (
    CLIP_TEXT_LENGTH,
    END,
    PAD,
    SPECIAL_TOKENS,
    START,
    VOCABULARY_SIZE,
    clip_tokenizer,
)
from demo.making.training import Phase, Setting, replace_folder, train_phase
from demo.making.training_data import (
    COLORS,
    GRID,
    GROUNDS,
    IMAGE_SIZE,
    KINDS,
    NAME,
    PATCH_SIZE,
    PLACES,
    TIMES,
    WEATHERS,
    TrainingScenes,
    normalised,
)  # fmt: skip

WIDTH = 128
PHASE = Phase("clip", steps=1200, learning_rate=1.5e-3)
BATCH = 256
PLACE_SCALE = 10.0  # inverse temperature of the place loss, which draws images of a place together
WHOLE_LABELS = ("time", "ground", "weather", "place")
WHOLE_SIZES = [len(TIMES), len(GROUNDS), len(WEATHERS), PLACES]


class PatchHeads(nn.Module):
    """Auxiliary classifiers, for training only.

    They predict kind and colour of the thing on each patch, and time, ground, weather and place of
    the whole image.
    """

    def __init__(self, width: int, cells: int = 1) -> None:
        super().__init__()
        self.cells = cells  # patches per token
        self.sizes = [len(KINDS) + 1, len(COLORS) + 1]
        self.patch = nn.Linear(width, cells * sum(self.sizes))
        self.whole = nn.Linear(width, sum(WHOLE_SIZES))

    def losses(
        self, tokens: torch.Tensor, pooled: torch.Tensor, labels: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """`tokens` (B, T, W), `pooled` (B, W) and the labels of `labels_of` -> named scalars."""
        # (B * T * cells, kinds + colours)
        logits = self.patch(tokens).float().view(-1, sum(self.sizes))
        kind_logits, color_logits = logits.split(self.sizes, dim=-1)
        kind, color = labels["kind"].flatten(), labels["color"].flatten()
        balance = torch.ones(self.sizes[0], device=kind.device)
        balance[0] = 0.15  # most patches are empty
        parts = self.whole(pooled).float().split(WHOLE_SIZES, dim=-1)
        whole = [
            functional.cross_entropy(part, labels[key])
            for part, key in zip(parts, WHOLE_LABELS, strict=True)
        ]
        return {
            "kind": functional.cross_entropy(kind_logits, kind, weight=balance),
            "color": functional.cross_entropy(color_logits[kind > 0], color[kind > 0]),
            "whole": 0.25 * functools.reduce(torch.add, whole),
        }


class ClipInTraining(nn.Module):
    """CLIP with the parameters that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = new_clip()
        self.heads = PatchHeads(WIDTH)
        self.places = nn.Parameter(torch.randn(PLACES, WIDTH))


def new_clip() -> CLIPModel:
    """An untrained CLIP."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
    }
    ids = {name: SPECIAL_TOKENS.index(token) for name, token in
           (("pad_token_id", PAD), ("bos_token_id", START), ("eos_token_id", END))}  # fmt: skip
    config = CLIPConfig(
        vision_config={**tower, "num_hidden_layers": 4, "image_size": IMAGE_SIZE,
                       "patch_size": PATCH_SIZE},
        text_config={**tower, **ids, "num_hidden_layers": 2, "vocab_size": VOCABULARY_SIZE,
                     "max_position_embeddings": CLIP_TEXT_LENGTH},
        projection_dim=WIDTH,
    )  # fmt: skip
    # Eager attention is the faster one to train on CPUs.
    return CLIPModel._from_config(config, attn_implementation="eager")


def train_clip(
    scenes: TrainingScenes, names: list[str], vocabulary: Path, folder: Path, setting: Setting
) -> CLIPModel:
    """Train CLIP on `scenes`, saving it to `folder` at every checkpoint."""
    torch.manual_seed(setting.seed)
    module = ClipInTraining().to(setting.device)
    tokenizer = clip_tokenizer(vocabulary)

    def compute_losses(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        picks = np.sort(rng.choice(len(scenes), BATCH, replace=False))
        texts = [caption_of(scenes.named[i], names, rng) for i in picks]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        pixels = torch.from_numpy(normalised(scenes.pixels[picks])).to(setting.device)
        with setting.autocast():
            labels = labels_of(scenes, picks, setting.device)
            return _losses(module, pixels, tokens.to(setting.device), labels)

    def save() -> None:
        save_clip(module.clip, vocabulary, folder)

    train_phase(module, PHASE, setting, compute_losses, save)
    return module.clip


def save_clip(clip: CLIPModel, vocabulary: Path, folder: Path) -> None:
    """Write model, image processor and tokenizer in the format of Hugging Face."""
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )

    def write(target: Path) -> None:
        clip.save_pretrained(target)
        processor.save_pretrained(target)
        clip_tokenizer(vocabulary).save_pretrained(target)

    replace_folder(folder, write)


def labels_of(
    scenes: TrainingScenes, picks: np.ndarray, device: torch.device, cell: int = 1
) -> dict[str, torch.Tensor]:
    """Labels as tensors; those of patches are grouped by token: (B, tokens, cell * cell)."""
    columns = vars(scenes.labels).items()
    table = {
        key: torch.from_numpy(column[picks].astype(np.int64)).to(device) for key, column in columns
    }
    side = GRID // cell
    for key in ("kind", "color"):
        grid = table[key].view(-1, side, cell, side, cell)
        table[key] = grid.permute(0, 1, 3, 2, 4).reshape(-1, side * side, cell * cell)
    return table


def caption_of(captions: list[str], names: list[str], rng: np.random.Generator) -> str:
    """One of the captions of a scene, with an invented name for its place."""
    return captions[rng.integers(len(captions))].replace(NAME, names[rng.integers(len(names))])


def _losses(
    module: ClipInTraining,
    pixels: torch.Tensor,
    tokens: BatchEncoding,
    labels: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """The contrastive loss, the place loss and those of the auxiliary heads."""
    clip = module.clip
    vision = clip.vision_model(pixel_values=pixels)
    # (B, WIDTH)
    image = functional.normalize(clip.visual_projection(vision.pooler_output).float(), dim=-1)
    # CLIP normalises only its class token, but the VLM's tower, which starts from these weights,
    # normalises every patch.
    patches = clip.vision_model.post_layernorm(vision.last_hidden_state[:, 1:])
    pooled_text = clip.text_model(**tokens).pooler_output
    text = functional.normalize(clip.text_projection(pooled_text).float(), dim=-1)
    scale = clip.logit_scale.exp().clamp(max=100)
    similarity = scale * image @ text.T  # (B, B)
    target = torch.arange(len(image), device=image.device)
    image_loss = functional.cross_entropy(similarity, target)
    text_loss = functional.cross_entropy(similarity.T, target)
    place = PLACE_SCALE * image @ functional.normalize(module.places, dim=-1).T
    return {
        "contrast": (image_loss + text_loss) / 2,
        "place": functional.cross_entropy(place, labels["place"]),
        **module.heads.losses(patches, vision.pooler_output, labels),
    }
