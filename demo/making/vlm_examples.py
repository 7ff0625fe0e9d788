"""Training examples of the demo's VLM: prompts with neighbours' captions, and the answers."""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import CLIPModel, PreTrainedTokenizerFast

import prompt_generator
from demo.making.tokenizer import END, IMAGE, IMAGE_EDGE, START, WHOLE_IMAGE
from demo.making.training import Setting
from demo.making.training_data import NAME, TrainingScenes, normalised
from demo.making.vlm_model import IMAGE_TOKENS

GALLERY = 1000  # scenes among which the neighbours of a training scene are searched
NEIGHBORS = 8


@dataclass(frozen=True)
class Example:
    """A prompt, the caption to generate, and the place names in them."""

    prompt: str
    caption: str
    names: tuple[str, ...]


@torch.no_grad()
def find_neighbors(clip: CLIPModel, scenes: TrainingScenes, setting: Setting) -> np.ndarray:
    """Nearest other scenes by CLIP within each group of GALLERY scenes: (N, NEIGHBORS) int."""
    clip.eval()
    vectors = []
    with setting.autocast():
        for start in range(0, len(scenes), 512):
            pixels = torch.from_numpy(normalised(scenes.pixels[start : start + 512]))
            output = clip.get_image_features(pixel_values=pixels.to(setting.device))
            vectors.append(functional.normalize(output.pooler_output.float(), dim=-1))
    found: list[torch.Tensor] = []
    for shard in torch.cat(vectors).split(GALLERY):
        similarity = (shard @ shard.T).fill_diagonal_(-1)
        found.append(similarity.topk(min(NEIGHBORS, len(shard) - 1)).indices + GALLERY * len(found))
    return torch.cat(found).cpu().numpy()


def make_example(
    scenes: TrainingScenes,
    query: int,
    neighbors: np.ndarray,
    count: int,
    names: list[str],
    rng: np.random.Generator,
) -> Example:
    """An example for scene `query` with `count` context captions and new names for all places."""
    context = _pick_context(scenes, query, neighbors, count, rng)
    places = scenes.labels.place
    drawn = rng.choice(len(names), len(context) + 1, replace=False)
    name_of = {places[query]: names[drawn[0]]}
    for position, scene in enumerate(context):
        name_of.setdefault(places[scene], names[drawn[position + 1]])
    # The pipeline shows first captions, which are complete. Others are mixed in, so that more than
    # one caption per neighbour (CAPTIONS_PER_NEIGHBOR) works as well.
    any_caption = rng.random() < 0.15
    captions = []
    for scene in context:
        options = scenes.named[scene]
        pick = rng.integers(len(options)) if any_caption else 5 * rng.integers(len(options) // 5)
        captions.append(options[pick].replace(NAME, name_of[places[scene]]))
    name = name_of[places[query]]
    known = any(name in caption for caption in captions)
    answers = scenes.named[query][::5] if known else scenes.nameless[query]
    answer = answers[rng.integers(len(answers))].replace(NAME, name)
    return Example(prompt_generator.build_prompt(captions), answer, tuple(name_of.values()))


def _pick_context(
    scenes: TrainingScenes, query: int, neighbors: np.ndarray, count: int, rng: np.random.Generator
) -> list[int]:
    """`count` scenes: mostly neighbours of the query, otherwise partly or all unrelated ones.

    Wrong context teaches the model to trust the image rather than the prompt.
    """
    if not count:
        return []
    kind = rng.random()
    if kind < 0.12:  # the neighbours of a random scene
        return list(neighbors[rng.integers(len(scenes))][:count])
    near = neighbors[query]
    first = rng.integers(len(near) - count + 1) if kind < 0.5 else 0
    chosen = list(near[first : first + count])
    swap = {0: 0.0, 1: 0.25, 2: 0.5}[int(rng.choice(3, p=(0.65, 0.2, 0.15)))]
    return [int(rng.integers(len(scenes))) if rng.random() < swap else scene for scene in chosen]


def encode(
    examples: list[Example],
    tokenizer: PreTrainedTokenizerFast,
    whole_prompt: bool,
    name_weight: float,
) -> dict[str, torch.Tensor]:
    """Token `ids` and loss `weights`, (B, T) each, padded on the right with weight 0.

    The loss covers the tokens of the caption, or all text with `whole_prompt`. Tokens of a name
    have `name_weight`, except for its first mention in the text, which cannot be predicted.
    """
    image = IMAGE_EDGE + WHOLE_IMAGE + IMAGE * IMAGE_TOKENS + IMAGE_EDGE
    heads = [f"{START}User:{image}{example.prompt}{END}\nAssistant:" for example in examples]
    texts = [
        f"{head} {example.caption}{END}" for head, example in zip(heads, examples, strict=True)
    ]
    tokens = tokenizer(
        texts, return_offsets_mapping=True, padding=True, padding_side="right", return_tensors="pt"
    )
    ids, offsets = tokens["input_ids"], tokens["offset_mapping"]
    weights = torch.ones(ids.shape)
    for row, (text, head, example) in enumerate(zip(texts, heads, examples, strict=True)):
        starts, ends = offsets[row].T
        for name in example.names:
            for number, found in enumerate(re.finditer(re.escape(name), text)):
                inside = (starts < found.end()) & (ends > found.start())
                weights[row, inside] = name_weight if number else 0.0
        weights[row, starts < (len(f"{START}User:{image}") if whole_prompt else len(head))] = 0
    weights[tokens["attention_mask"] == 0] = 0
    return {"ids": ids, "weights": weights}
