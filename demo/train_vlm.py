"""The demo's VLM: SmolVLM's architecture (Idefics3) with 3.1 M parameters, its vision tower started from the CLIP.

Five phases. `copy`: the decoder alone, on prompts as text, until it carries a name from the listed captions into its
own. `tune`: the CLIP's vision layers in their new tower. `see`: the vision tower, mostly without context captions.
`mix`: prompts with 0 to 5 captions of neighbours that the CLIP found (some of them wrong, as in life) or that are wrong
on purpose. `spell`: the same with more captions, until names come out right to the letter. A place gets a new invented
name in every example, and the caption to learn holds a name only if the context gives it away.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPModel,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
)

import prompt_generator
from demo.tokenizer import (
    END,
    IMAGE,
    IMAGE_EDGE,
    PAD,
    SPECIAL_TOKENS,
    START,
    VLM_TEXT_LENGTH,
    VOCABULARY_SIZE,
    WHOLE_IMAGE,
    vlm_tokenizer,
)  # fmt: skip
from demo.train_clip import WIDTH, PatchHeads, labels_of
from demo.training import Phase, Setting, replace_folder, train_phase
from demo.training_data import GRID, IMAGE_SIZE, NAME, PATCH_SIZE, TrainingScenes, normalised

TEXT_WIDTH, TEXT_LAYERS = 192, 4
SHUFFLE = 2  # patches a side that become one image token
IMAGE_TOKENS = (GRID // SHUFFLE) ** 2
GALLERY = 1000  # a training scene's neighbours are searched among so many others
NEIGHBORS = 8
COPY = Phase("vlm-copy", steps=300, learning_rate=2e-3)
TUNE = Phase("vlm-tune", steps=120, learning_rate=1e-3)
SEE = Phase("vlm-see", steps=700, learning_rate=1e-3)
MIX = Phase("vlm-mix", steps=1200, learning_rate=1.2e-3)
SPELL = Phase("vlm-spell", steps=300, learning_rate=8e-4)
# Probability of 0, 1, ... 5 context captions.
CONTEXTS = {COPY.name: (0, 0.1, 0.2, 0.2, 0.2, 0.3), SEE.name: (0.8, 0, 0.05, 0, 0, 0.15),
            MIX.name: (0.3, 0.1, 0.08, 0.12, 0.08, 0.32), SPELL.name: (0.1, 0.1, 0.1, 0.15, 0.15, 0.4)}  # fmt: skip
NAME_WEIGHTS = {COPY.name: 5.0, SEE.name: 3.0, MIX.name: 4.0, SPELL.name: 4.0}
# SmolVLM's chat template, as its processor_config.json has it.
CHAT_TEMPLATE = (
    START + "{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '" + IMAGE + "' }}{% endif %}{% endfor %}" + END + "\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One thing to learn: a prompt, the caption to write, and the names in either."""

    prompt: str
    caption: str
    names: tuple[str, ...]


class VlmInTraining(nn.Module):
    """The VLM with the heads that training alone needs: on patches, and on image tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.vlm = new_vlm()
        self.patch_heads = PatchHeads(WIDTH)
        self.token_heads = PatchHeads(TEXT_WIDTH, cells=SHUFFLE**2)


def new_vlm() -> Idefics3ForConditionalGeneration:
    """An untrained VLM."""
    config = Idefics3Config(
        vision_config={"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 4,
                       "hidden_act": "gelu", "num_attention_heads": 4, "image_size": IMAGE_SIZE,
                       "patch_size": PATCH_SIZE, "layer_norm_eps": 1e-5},
        text_config={"model_type": "llama", "hidden_size": TEXT_WIDTH, "intermediate_size": 3 * TEXT_WIDTH,
                     "num_hidden_layers": TEXT_LAYERS, "num_attention_heads": 4, "num_key_value_heads": 4,
                     "vocab_size": VOCABULARY_SIZE, "max_position_embeddings": VLM_TEXT_LENGTH,
                     "tie_word_embeddings": True, **_token_ids()},
        image_token_id=SPECIAL_TOKENS.index(IMAGE),
        scale_factor=SHUFFLE,
        tie_word_embeddings=True,
        **_token_ids(),
    )  # fmt: skip
    return Idefics3ForConditionalGeneration._from_config(config, attn_implementation="eager")


def train_vlm(
    scenes: TrainingScenes, names: list[str], clip: CLIPModel, vocabulary: Path, folder: Path, setting: Setting
) -> Idefics3ForConditionalGeneration:
    """Train the VLM on `scenes` and save it to `folder` on the way and at the end."""
    torch.manual_seed(setting.seed + 1)
    module = VlmInTraining()
    start_from_clip(module.vlm, clip, scenes)
    module.to(setting.device)
    neighbors = find_neighbors(clip, scenes, setting)
    tokenizer = vlm_tokenizer(vocabulary)

    def loss_of(phase: Phase):
        def loss_of_step(rng: np.random.Generator) -> dict[str, torch.Tensor]:
            if phase.name == TUNE.name:
                return _vision_losses(module, scenes, rng, setting)
            return _caption_losses(module, phase, scenes, neighbors, names, tokenizer, rng, setting)

        return loss_of_step

    for phase in (COPY, TUNE, SEE, MIX, SPELL):
        train_phase(module, phase, setting, loss_of(phase), lambda: save_vlm(module.vlm, vocabulary, folder))
    return module.vlm


def save_vlm(vlm: Idefics3ForConditionalGeneration, vocabulary: Path, folder: Path) -> None:
    """Write model, processor, tokenizer and chat template as a Hugging Face folder."""
    tokenizer = vlm_tokenizer(vocabulary)
    image_processor = Idefics3ImageProcessorPil(
        size={"longest_edge": IMAGE_SIZE},
        max_image_size={"longest_edge": IMAGE_SIZE},
        do_image_splitting=False,
        resample=3,  # bicubic, as in CLIP's
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = Idefics3Processor(image_processor, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE)
    vlm.generation_config = GenerationConfig(**_token_ids())

    def write(target: Path) -> None:
        vlm.save_pretrained(target)
        processor.save_pretrained(target)

    replace_folder(folder, write)


def start_from_clip(vlm: Idefics3ForConditionalGeneration, clip: CLIPModel, scenes: TrainingScenes) -> None:
    """Copy CLIP's vision layers.

    CLIP norms its patch embeddings before the first layer and Idefics3 does not; with the mean deviation in place of
    each patch's own that norm is linear, and is folded into the patch weights and positions.
    """
    source, target = clip.vision_model, vlm.model.vision_model
    target.encoder.load_state_dict(source.encoder.state_dict())
    target.post_layernorm.load_state_dict(source.post_layernorm.state_dict())
    with torch.no_grad():
        pixels = torch.from_numpy(normalised(scenes.pixels[:256])).to(clip.device)
        embedded = source.embeddings(pixels)[:, 1:]  # (256, patches, WIDTH)
        norm, width = source.pre_layrnorm, embedded.shape[-1]
        gain = norm.weight / embedded.std(dim=-1, correction=0).mean()
        fold = gain[:, None] * (torch.eye(width, device=clip.device) - 1 / width)
        patch = target.embeddings.patch_embedding
        patch.weight.copy_(torch.einsum("vw,wchk->vchk", fold, source.embeddings.patch_embedding.weight))
        patch.bias.copy_(norm.bias)
        target.embeddings.position_embedding.weight.copy_(source.embeddings.position_embedding.weight[1:] @ fold.T)


@torch.no_grad()
def find_neighbors(clip: CLIPModel, scenes: TrainingScenes, setting: Setting) -> np.ndarray:
    """Nearest other scenes by CLIP, searched among GALLERY scenes at a time: (N, NEIGHBORS) int."""
    clip.eval()
    vectors = []
    with setting.autocast():
        for start in range(0, len(scenes), 512):
            pixels = torch.from_numpy(normalised(scenes.pixels[start : start + 512])).to(setting.device)
            features = clip.get_image_features(pixel_values=pixels).pooler_output.float()
            vectors.append(functional.normalize(features, dim=-1))
    found = []
    for shard in torch.cat(vectors).split(GALLERY):
        similarity = (shard @ shard.T).fill_diagonal_(-1)
        found.append(similarity.topk(min(NEIGHBORS, len(shard) - 1)).indices + GALLERY * len(found))
    return torch.cat(found).cpu().numpy()


def make_example(
    scenes: TrainingScenes, query: int, neighbors: np.ndarray, count: int, names: list[str], rng: np.random.Generator
) -> Example:
    """A prompt with `count` captions and the caption to answer with; places get names of this example alone."""
    context = _pick_context(scenes, query, neighbors, count, rng)
    places = scenes.labels.place
    drawn = rng.choice(len(names), len(context) + 1, replace=False)
    name_of = {places[query]: names[drawn[0]]}
    for position, scene in enumerate(context):
        name_of.setdefault(places[scene], names[drawn[position + 1]])
    # The pipeline shows first captions, which are complete; others are let in so that a setting of 2 works as well.
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
    """`count` scenes: mostly the query's neighbours, else some or all of them others, so that looking pays."""
    if not count:
        return []
    kind = rng.random()
    if kind < 0.12:  # the neighbours of another scene
        return list(neighbors[rng.integers(len(scenes))][:count])
    near = neighbors[query]
    first = rng.integers(len(near) - count + 1) if kind < 0.5 else 0
    chosen = list(near[first : first + count])
    swap = {0: 0.0, 1: 0.25, 2: 0.5}[rng.choice(3, p=(0.65, 0.2, 0.15))]
    return [int(rng.integers(len(scenes))) if rng.random() < swap else scene for scene in chosen]


def encode(examples: list[Example], tokenizer, whole_prompt: bool, name_weight: float) -> dict[str, torch.Tensor]:
    """Token ids, labels and loss weights, (B, T) each, padded on the right (the loss looks at no padding).

    Labels are the caption's tokens, or with `whole_prompt` all text. Tokens of a name weigh `name_weight`, its first
    mention in the text excepted: there it cannot be foretold.
    """
    image = IMAGE_EDGE + WHOLE_IMAGE + IMAGE * IMAGE_TOKENS + IMAGE_EDGE
    heads = [f"{START}User:{image}{example.prompt}{END}\nAssistant:" for example in examples]
    texts = [f"{head} {example.caption}{END}" for head, example in zip(heads, examples, strict=True)]
    tokens = tokenizer(texts, return_offsets_mapping=True, padding=True, padding_side="right", return_tensors="pt")
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


def _vision_losses(module: VlmInTraining, scenes: TrainingScenes, rng: np.random.Generator, setting: Setting) -> dict:
    picks = np.sort(rng.choice(len(scenes), 256, replace=False))
    with setting.autocast():
        return _look(module, scenes, picks, setting)[1]


def _look(
    module: VlmInTraining, scenes: TrainingScenes, picks: np.ndarray, setting: Setting
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Image tokens (B, IMAGE_TOKENS, TEXT_WIDTH) and the auxiliary losses on patches and on image tokens."""
    pixels = torch.from_numpy(normalised(scenes.pixels[picks])).to(setting.device)
    patches = module.vlm.model.vision_model(pixel_values=pixels).last_hidden_state  # (B, patches, WIDTH)
    image_tokens = module.vlm.model.connector(patches)
    on_patches = module.patch_heads.losses(patches, patches.mean(dim=1), labels_of(scenes, picks, setting.device))
    on_tokens = module.token_heads.losses(
        image_tokens, image_tokens.mean(dim=1), labels_of(scenes, picks, setting.device, cell=SHUFFLE)
    )
    losses = {key: 0.15 * (on_patches[key] + on_tokens[key]) for key in on_patches}
    return image_tokens, losses


def _caption_losses(module, phase, scenes, neighbors, names, tokenizer, rng, setting) -> dict[str, torch.Tensor]:
    """The loss on a batch whose prompts all hold the same number of captions, so that little is padding."""
    count = int(rng.choice(6, p=CONTEXTS[phase.name]))
    batch = 96 if count == 0 else 64 if count < 3 else 48
    picks = np.sort(rng.choice(len(scenes), batch, replace=False))
    examples = [make_example(scenes, i, neighbors, count, names, rng) for i in picks]
    text_only = phase.name == COPY.name
    encoded = encode(examples, tokenizer, text_only, NAME_WEIGHTS[phase.name])
    ids, weights = encoded["ids"].to(setting.device), encoded["weights"].to(setting.device)
    model = module.vlm.model
    with setting.autocast():
        embedded = model.text_model.get_input_embeddings()(ids)  # (B, T, TEXT_WIDTH)
        losses = {}
        if not text_only:
            image_tokens, losses = _look(module, scenes, picks, setting)
            embedded = model.inputs_merger(ids, embedded, image_tokens)
        hidden = model.text_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        wanted = weights[:, 1:] > 0  # position t foretells token t + 1
        logits = module.vlm.lm_head(hidden[:, :-1][wanted]).float()
    each = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    weight = weights[:, 1:][wanted]
    key = "text" if text_only else "blind" if count == 0 else "shown"
    return {key: (each * weight).sum() / weight.sum(), **losses}


def _token_ids() -> dict[str, int]:
    return {"pad_token_id": SPECIAL_TOKENS.index(PAD), "bos_token_id": SPECIAL_TOKENS.index(START),
            "eos_token_id": SPECIAL_TOKENS.index(END)}  # fmt: skip
