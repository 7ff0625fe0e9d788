"""The demo's VLM: the architecture of SmolVLM (Idefics3) with 3.1 M parameters."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPModel,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
)

from demo.making.tokenizer import (
    END,
    IMAGE,
    PAD,
    SPECIAL_TOKENS,
    START,
    VLM_TEXT_LENGTH,
    VOCABULARY_SIZE,
    vlm_tokenizer,
)
from demo.making.train_clip import WIDTH
from demo.making.training import replace_folder
from demo.making.training_data import GRID, IMAGE_SIZE, PATCH_SIZE, TrainingScenes, normalised

TEXT_WIDTH, TEXT_LAYERS = 192, 4
SHUFFLE = 2  # SHUFFLE x SHUFFLE patches become one image token
IMAGE_TOKENS = (GRID // SHUFFLE) ** 2
# SmolVLM's chat template, from its processor_config.json.
CHAT_TEMPLATE = (
    START + "{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '" + IMAGE + "' }}{% endif %}{% endfor %}" + END + "\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)  # fmt: skip


def new_vlm() -> Idefics3ForConditionalGeneration:
    """A VLM with random weights."""
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "hidden_act": "gelu",
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "layer_norm_eps": 1e-5,
    }
    text = {
        "model_type": "llama",
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 3 * TEXT_WIDTH,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": VLM_TEXT_LENGTH,
        "tie_word_embeddings": True,
        **_token_ids(),
    }
    config = Idefics3Config(
        vision_config=vision,
        text_config=text,
        image_token_id=SPECIAL_TOKENS.index(IMAGE),
        scale_factor=SHUFFLE,
        tie_word_embeddings=True,
        **_token_ids(),
    )
    return Idefics3ForConditionalGeneration._from_config(config, attn_implementation="eager")


def save_vlm(vlm: Idefics3ForConditionalGeneration, vocabulary: Path, folder: Path) -> None:
    """Write model, processor, tokenizer and chat template in the format of Hugging Face."""
    tokenizer = vlm_tokenizer(vocabulary)
    image_processor = Idefics3ImageProcessorPil(
        size={"longest_edge": IMAGE_SIZE},
        max_image_size={"longest_edge": IMAGE_SIZE},
        do_image_splitting=False,
        resample=3,  # bicubic, like CLIP's
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = Idefics3Processor(
        image_processor, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE
    )
    vlm.generation_config = GenerationConfig(**_token_ids())

    def write(target: Path) -> None:
        vlm.save_pretrained(target)
        processor.save_pretrained(target)

    replace_folder(folder, write)


def start_from_clip(
    vlm: Idefics3ForConditionalGeneration, clip: CLIPModel, scenes: TrainingScenes
) -> None:
    """Initialise the vision tower with CLIP's vision layers.

    CLIP normalises its patch embeddings before the first layer and Idefics3 does not. With the mean
    standard deviation in place of that of each patch, this layer norm is linear, so it is folded
    into the patch weights and positions.
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
        patch_weight = source.embeddings.patch_embedding.weight
        patch = target.embeddings.patch_embedding
        patch.weight.copy_(torch.einsum("vw,wchk->vchk", fold, patch_weight))
        patch.bias.copy_(norm.bias)
        positions = source.embeddings.position_embedding.weight[1:]
        target.embeddings.position_embedding.weight.copy_(positions @ fold.T)


def _token_ids() -> dict[str, Any]:
    return {
        "pad_token_id": SPECIAL_TOKENS.index(PAD),
        "bos_token_id": SPECIAL_TOKENS.index(START),
        "eos_token_id": SPECIAL_TOKENS.index(END),
    }
