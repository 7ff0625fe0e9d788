"""The demo's text model: a linear layer on top of all-MiniLM-L6-v2, for queries with conditions.

Without it, the model ranks the caption of a red dog by day high for "a red dog at night". The layer
(384 x 384, regularised towards the identity) is trained on queries for one to three facts of a
caption, with captions of other scenes as negatives. Being linear, it generalises from the words of
training to similar ones.
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
from demo.making.queries import Facts, facts_in, matches, write_query
from demo.making.training import LOG, Phase, Setting, replace_folder, train_phase
from demo.scenes import Scene, pick, sample_scene

PHASE = Phase("text", steps=300, learning_rate=2e-3)
EXAMPLES, BATCH = 12_000, 256
TEMPERATURE = 0.05
IDENTITY_WEIGHT = 0.03  # weight of the squared distance from the identity in the loss
FIRST_SEED, SEEDS = 2_000_000, 10_000_000  # scenes used nowhere else


@dataclass(frozen=True)
class SearchExample:
    """A query, the facts it asks for, and a caption that states them."""

    query: str
    facts: list[Facts]
    caption: str
    scene: Scene


def train_text(names: list[str], folder: Path, setting: Setting) -> None:
    """Train the linear layer and save it to `folder`."""
    rng = random.Random(setting.seed)
    examples = [sample_example(names, rng) for _ in range(EXAMPLES)]
    queries, captions = _embed(examples, setting.device)  # (N, D) each
    asked, holds = _facts(examples, setting.device)  # (N, F) each
    layer = Dense(queries.shape[1], queries.shape[1], bias=False, activation_function=nn.Identity())
    identity = torch.eye(queries.shape[1], device=setting.device)
    nn.init.eye_(layer.to(setting.device).linear.weight)

    def compute_losses(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        picks = torch.from_numpy(rng.choice(len(examples), BATCH, replace=False)).to(setting.device)
        query, caption = (
            functional.normalize(layer.linear(side[picks]), dim=-1) for side in (queries, captions)
        )
        # (B, B): other captions whose scene also has all facts are not used as negatives
        also_right = asked[picks] @ holds[picks].T >= asked[picks].sum(dim=1, keepdim=True)
        also_right = also_right.fill_diagonal_(False)
        similarity = (query @ caption.T / TEMPERATURE).masked_fill(also_right, -1e4)
        target = torch.arange(BATCH, device=setting.device)
        return {
            "query": functional.cross_entropy(similarity, target),
            "caption": 0.5 * functional.cross_entropy(similarity.T, target),
            "change": IDENTITY_WEIGHT * (layer.linear.weight - identity).square().sum(),
        }

    def write(target: Path) -> None:
        layer.save(str(target))

    train_phase(layer, PHASE, setting, compute_losses, lambda: replace_folder(folder, write))


def sample_example(names: list[str], rng: random.Random) -> SearchExample:
    """A query for one to three facts that a caption of a training scene states."""
    facts: list[Facts] = []
    while not facts:
        scene = sample_scene(FIRST_SEED + int(rng.random() * SEEDS))
        caption = pick(rng, write_captions(scene, pick(rng, names), rng))
        facts = sorted(facts_in(caption, scene), key=lambda _: rng.random())
        facts = facts[: pick(rng, (1, 2, 2, 2, 3, 3))]
    return SearchExample(write_query(facts, rng), facts, caption, scene)


def _embed(
    examples: list[SearchExample], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of queries and captions by the package's model: (N, D) each, unit rows."""
    LOG.info("embedding %d queries and captions", 2 * len(examples))
    model = SentenceTransformer(str(demo.text_package_folder()), device=str(device))
    texts = [example.query for example in examples], [example.caption for example in examples]
    queries, captions = (
        model.encode(side, batch_size=64, show_progress_bar=False) for side in texts
    )
    return torch.from_numpy(queries).to(device), torch.from_numpy(captions).to(device)


def _facts(
    examples: list[SearchExample], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether each query asks for a fact, and whether each scene has it: (N, F) float, 0 or 1."""
    facts = {str(fact): fact for example in examples for fact in example.facts}
    wanted = [{str(fact) for fact in example.facts} for example in examples]
    asked = [[float(key in row) for key in facts] for row in wanted]
    holds = [[float(matches(example.scene, f)) for f in facts.values()] for example in examples]
    return torch.tensor(asked, device=device), torch.tensor(holds, device=device)
