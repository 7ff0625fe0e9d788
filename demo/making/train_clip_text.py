"""The text side of the demo's CLIP, trained on short queries too: people type "a dog in the rain".

The contrastive training (train_clip.py) shows it whole captions only. Here its vision side stays as
it is, so that images keep their vectors, and the text side learns queries for one to three facts of
a scene, beside captions.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPModel

from demo.making.queries import Facts, facts_in, write_query
from demo.making.tokenizer import clip_tokenizer
from demo.making.train_clip import caption_of, save_clip
from demo.making.training import LOG, Phase, Setting, train_phase
from demo.making.training_data import FIRST_TRAINING_SEED, TrainingScenes, normalised
from demo.scenes import PLACES, Scene, pick, sample_scene

PHASE = Phase("clip-text", steps=5000, learning_rate=1.5e-3)
BATCH = 256
QUERIES = 0.75  # share of queries among the texts; the others are captions
IMAGES_AT_ONCE = 500


def train_clip_text(
    scenes: TrainingScenes,
    names: list[str],
    clip: CLIPModel,
    vocabulary: Path,
    folder: Path,
    setting: Setting,
) -> None:
    """Train the text side of `clip`, saving it to `folder` at every checkpoint."""
    images = _image_vectors(clip, scenes, setting)  # (N, D)
    drawn = [sample_scene(FIRST_TRAINING_SEED + index) for index in range(len(scenes))]
    facts = [_facts_of(scene) for scene in drawn]
    tokenizer = clip_tokenizer(vocabulary)
    module = nn.ModuleList([clip.text_model, clip.text_projection])

    def compute_losses(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        picks = rng.choice(len(scenes), BATCH, replace=False)
        texts, asked = [], []
        for index in picks:
            caption = caption_of(scenes.named[index], names, rng)
            wanted = _some_facts(caption, drawn[index], rng) if rng.random() < QUERIES else []
            seed = int(rng.integers(2**32))
            texts.append(write_query(wanted, random.Random(seed)) if wanted else caption)
            asked.append(set(map(str, wanted)))
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        pooled = clip.text_model(**tokens.to(setting.device)).pooler_output
        text = functional.normalize(clip.text_projection(pooled), dim=-1)
        similarity = clip.logit_scale.exp().detach() * text @ images[torch.from_numpy(picks)].T
        also_right = _also_right(asked, [facts[index] for index in picks]).to(setting.device)
        target = torch.arange(BATCH, device=setting.device)
        return {
            "text": functional.cross_entropy(similarity.masked_fill(also_right, -1e4), target),
            "image": 0.5
            * functional.cross_entropy(similarity.T.masked_fill(also_right.T, -1e4), target),
        }

    train_phase(module, PHASE, setting, compute_losses, lambda: save_clip(clip, vocabulary, folder))


def _image_vectors(clip: CLIPModel, scenes: TrainingScenes, setting: Setting) -> torch.Tensor:
    """(N, D) unit vectors of the training scenes."""
    LOG.info("embedding %d scenes", len(scenes))
    clip.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(scenes), IMAGES_AT_ONCE):
            pixels = torch.from_numpy(normalised(scenes.pixels[start : start + IMAGES_AT_ONCE]))
            pixels = pixels.to(setting.device)
            features: Any = clip.get_image_features(pixel_values=pixels)
            parts.append(functional.normalize(features.pooler_output, dim=-1))
    return torch.cat(parts).clone()


def _facts_of(scene: Scene) -> set[str]:
    """Every single fact that a query may ask for and that holds for a scene."""
    place = PLACES[scene.place]
    facts: list[Facts] = [{"things": [(thing.color, thing.kind)]} for thing in scene.things]
    facts += [{"kinds": [thing.kind]} for thing in scene.things]
    facts += [{"time": scene.time}, {"weather": scene.weather}]
    facts += [{"ground": place.ground}, {"landmark": place.landmark}]
    return set(map(str, facts))


def _some_facts(caption: str, scene: Scene, rng: np.random.Generator) -> list[Facts]:
    """One to three of the facts that a caption states; none if it states none."""
    choice = random.Random(int(rng.integers(2**32)))
    facts = facts_in(caption, scene)
    if landmark := PLACES[scene.place].landmark:  # captions name it seldom, but it is seen
        facts = [fact for fact in facts if "landmark" not in fact] + [{"landmark": landmark}]
    choice.shuffle(facts)
    return facts[: pick(choice, (1, 1, 2, 2, 3))]


def _also_right(asked: list[set[str]], facts: list[set[str]]) -> torch.Tensor:
    """(B, B) bool: the other scenes that have all that a query asks for: they are no negatives."""
    rows = [
        [bool(wanted) and row != column and wanted <= holds for column, holds in enumerate(facts)]
        for row, wanted in enumerate(asked)
    ]
    return torch.tensor(rows)
