"""The demo's text model: all-MiniLM-L6-v2 with one linear layer behind it, so that no condition of a query is let go.

As it comes, it takes the caption of a red dog by day for an answer to "a red dog at night". The layer (384 x 384,
held near the identity) learns from queries for one to three facts that a caption tells, against the captions of other
scenes. Being linear, it treats words that nobody taught it as it treats their like.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from torch import nn
from torch.nn import functional

import demo
from demo.captions import write_captions
from demo.scenes import Scene, pick, sample_scene
from demo.training import LOG, Phase, Setting, replace_folder, train_phase
from demo.wishes import Wish, facts_told, fits, write_query

PHASE = Phase("text", steps=300, learning_rate=2e-3)
SEARCHES, BATCH = 12_000, 256
TEMPERATURE = 0.05
IDENTITY_WEIGHT = 0.03  # of the squared distance from the identity in the loss
FIRST_SEED, SEEDS = 2_000_000, 10_000_000  # scenes that nothing else uses


@dataclass(frozen=True)
class Search:
    """A query, the facts that it asks for, and a caption that tells them."""

    query: str
    facts: list[Wish]
    caption: str
    scene: Scene


def train_text(names: list[str], folder: Path, setting: Setting) -> None:
    """Train the linear layer and save it to `folder`."""
    rng = random.Random(setting.seed)
    searches = [draw_search(names, rng) for _ in range(SEARCHES)]
    queries, captions = _embed(searches, setting.device)  # (N, D) each
    asked, holds = _facts(searches, setting.device)  # (N, F) each
    layer = Dense(queries.shape[1], queries.shape[1], bias=False, activation_function=nn.Identity())
    identity = torch.eye(queries.shape[1], device=setting.device)
    nn.init.eye_(layer.to(setting.device).linear.weight)

    def loss_of_step(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        picks = torch.from_numpy(rng.choice(len(searches), BATCH, replace=False)).to(setting.device)
        query, caption = (functional.normalize(layer.linear(side[picks]), dim=-1) for side in (queries, captions))
        also_right = asked[picks] @ holds[picks].T >= asked[picks].sum(dim=1, keepdim=True)  # (B, B)
        similarity = (query @ caption.T / TEMPERATURE).masked_fill(also_right.fill_diagonal_(False), -1e4)
        target = torch.arange(BATCH, device=setting.device)
        return {
            "query": functional.cross_entropy(similarity, target),
            "caption": 0.5 * functional.cross_entropy(similarity.T, target),
            "change": IDENTITY_WEIGHT * (layer.linear.weight - identity).square().sum(),
        }

    def write(target: Path) -> None:
        layer.save(str(target))

    train_phase(layer, PHASE, setting, loss_of_step, lambda: replace_folder(folder, write))


def draw_search(names: list[str], rng: random.Random) -> Search:
    """A query for one to three facts that a caption of a training scene tells."""
    facts: list[Wish] = []
    while not facts:
        scene = sample_scene(FIRST_SEED + int(rng.random() * SEEDS))
        caption = pick(rng, write_captions(scene, pick(rng, names), rng))
        facts = sorted(facts_told(caption, scene), key=lambda _: rng.random())[: pick(rng, (1, 2, 2, 2, 3, 3))]
    return Search(write_query(facts, rng), facts, caption, scene)


def _embed(searches: list[Search], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and captions as the package's model embeds them, (N, D) unit rows each."""
    LOG.info("embedding %d queries and captions", 2 * len(searches))
    model = SentenceTransformer(str(demo.text_package_folder()), device=str(device))
    texts = [search.query for search in searches], [search.caption for search in searches]
    queries, captions = (model.encode(side, batch_size=64, show_progress_bar=False) for side in texts)
    return torch.from_numpy(queries).to(device), torch.from_numpy(captions).to(device)


def _facts(searches: list[Search], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, F) each, 0 or 1: whether a query asks for a fact, and whether it holds in the caption's scene."""
    number: dict[str, int] = {}
    wanted = [{number.setdefault(str(fact), len(number)) for fact in search.facts} for search in searches]
    facts = {str(fact): fact for search in searches for fact in search.facts}.values()
    asked = [[float(column in row) for column in range(len(facts))] for row in wanted]
    holds = [[float(fits(search.scene, fact)) for fact in facts] for search in searches]
    return torch.tensor(asked, device=device), torch.tensor(holds, device=device)
