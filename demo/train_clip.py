"""The demo's CLIP: 1.4 M parameters, trained on pairs of scene and caption.

Beside the contrastive loss (https://arxiv.org/abs/2103.00020) small heads, thrown away afterwards, tell the tower what
stands on which patch. Place names are invented anew for every caption, so a text's name says nothing about the picture.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from demo.tokenizer import CLIP_TEXT_LENGTH, END, PAD, SPECIAL_TOKENS, START, VOCABULARY_SIZE, clip_tokenizer
from demo.training import Phase, Setting, replace_folder, train_phase
from demo.training_data import (
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
PLACE_SCALE = 10.0  # sharpness of the place loss: the nearest images shall share the place


class PatchHeads(nn.Module):
    """Kind and colour of the thing on each patch; time, ground and weather of the whole; only for training."""

    def __init__(self, width: int, cells: int = 1) -> None:
        super().__init__()
        self.cells = cells  # patches a token stands for
        self.sizes = [len(KINDS) + 1, len(COLORS) + 1]
        self.patch = nn.Linear(width, cells * sum(self.sizes))
        self.whole = nn.Linear(width, len(TIMES) + len(GROUNDS) + len(WEATHERS) + PLACES)

    def losses(self, tokens: torch.Tensor, pooled: torch.Tensor, labels: dict[str, torch.Tensor]) -> dict:
        """`tokens` (B, T, W), `pooled` (B, W), labels of `labels_of` -> named scalars."""
        logits = self.patch(tokens).float().view(-1, sum(self.sizes))  # (B * T * cells, kinds + colours)
        kind_logits, color_logits = logits.split(self.sizes, dim=-1)
        kind, color = labels["kind"].flatten(), labels["color"].flatten()
        balance = torch.ones(self.sizes[0], device=kind.device)
        balance[0] = 0.15  # most patches are empty
        whole = self.whole(pooled).float().split([len(TIMES), len(GROUNDS), len(WEATHERS), PLACES], dim=-1)
        return {
            "kind": functional.cross_entropy(kind_logits, kind, weight=balance),
            "color": functional.cross_entropy(color_logits[kind > 0], color[kind > 0]),
            "whole": 0.25
            * sum(
                functional.cross_entropy(part, labels[key])
                for part, key in zip(whole, ("time", "ground", "weather", "place"), strict=True)
            ),
        }


class ClipInTraining(nn.Module):
    """CLIP with what training alone needs."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = new_clip()
        self.heads = PatchHeads(WIDTH)
        self.places = nn.Parameter(torch.randn(PLACES, WIDTH))


def new_clip() -> CLIPModel:
    """An untrained CLIP."""
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4, "hidden_act": "gelu"}
    ids = {name: SPECIAL_TOKENS.index(token) for name, token in
           (("pad_token_id", PAD), ("bos_token_id", START), ("eos_token_id", END))}  # fmt: skip
    config = CLIPConfig(
        vision_config={**tower, "num_hidden_layers": 4, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE},
        text_config={**tower, **ids, "num_hidden_layers": 2, "vocab_size": VOCABULARY_SIZE,
                     "max_position_embeddings": CLIP_TEXT_LENGTH},
        projection_dim=WIDTH,
    )  # fmt: skip
    return CLIPModel._from_config(config, attn_implementation="eager")  # on CPUs the faster one to train


def train_clip(scenes: TrainingScenes, names: list[str], vocabulary: Path, folder: Path, setting: Setting) -> CLIPModel:
    """Train CLIP on `scenes` and save it to `folder` on the way and at the end."""
    torch.manual_seed(setting.seed)
    module = ClipInTraining().to(setting.device)
    tokenizer = clip_tokenizer(vocabulary)

    def loss_of_step(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        picks = np.sort(rng.choice(len(scenes), BATCH, replace=False))
        texts = [_caption(scenes.named[i], names, rng) for i in picks]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(setting.device)
        pixels = torch.from_numpy(normalised(scenes.pixels[picks])).to(setting.device)
        with setting.autocast():
            return _losses(module, pixels, tokens, labels_of(scenes, picks, setting.device))

    train_phase(module, PHASE, setting, loss_of_step, lambda: save_clip(module.clip, vocabulary, folder))
    return module.clip


def save_clip(clip: CLIPModel, vocabulary: Path, folder: Path) -> None:
    """Write model, image processor and tokenizer as a Hugging Face folder."""
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
    """Labels as tensors, those of patches grouped into tokens of `cell` x `cell` patches: (B, tokens, cell * cell)."""
    columns = vars(scenes.labels).items()
    table = {key: torch.from_numpy(column[picks].astype(np.int64)).to(device) for key, column in columns}
    side = GRID // cell
    for key in ("kind", "color"):
        grid = table[key].view(-1, side, cell, side, cell)
        table[key] = grid.permute(0, 1, 3, 2, 4).reshape(-1, side * side, cell * cell)
    return table


def _caption(captions: list[str], names: list[str], rng: np.random.Generator) -> str:
    return captions[rng.integers(len(captions))].replace(NAME, names[rng.integers(len(names))])


def _losses(module: ClipInTraining, pixels: torch.Tensor, tokens, labels: dict[str, torch.Tensor]) -> dict:
    clip = module.clip
    vision = clip.vision_model(pixel_values=pixels)
    image = functional.normalize(clip.visual_projection(vision.pooler_output).float(), dim=-1)  # (B, WIDTH)
    # CLIP norms its class token alone; the VLM's tower norms every patch, and will start from these weights.
    patches = clip.vision_model.post_layernorm(vision.last_hidden_state[:, 1:])
    pooled_text = clip.text_model(**tokens).pooler_output
    text = functional.normalize(clip.text_projection(pooled_text).float(), dim=-1)
    scale = clip.logit_scale.exp().clamp(max=100)
    similarity = scale * image @ text.T  # (B, B)
    target = torch.arange(len(image), device=image.device)
    contrast = (functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target)) / 2
    place = PLACE_SCALE * image @ functional.normalize(module.places, dim=-1).T
    return {
        "contrast": contrast,
        "place": functional.cross_entropy(place, labels["place"]),
        **module.heads.losses(patches, vision.pooler_output, labels),
    }
