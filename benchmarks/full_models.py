"""Random models of the real ones' sizes, made on the spot: as fast as those, and no download."""

from pathlib import Path
from typing import Any

import torch

from support.hub.revisions import locate
from support.records import ModelRef
from tests import tiny_models

IMAGE_TOKENS = 64  # of an image of 512 pixels, as SmolVLM-256M sees it


def clip_b32(folder: Path) -> ModelRef:
    """CLIP ViT-B/32: 151 M parameters."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

    torch.manual_seed(0)
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    configuration = CLIPConfig(vision_config={**vision, "patch_size": 32}, projection_dim=512)
    tokenizer = tiny_models.word_tokenizer(model_max_length=77)
    processor = CLIPProcessor(CLIPImageProcessorPil(), tokenizer)
    return _saved(folder, CLIPModel(configuration), processor)


def bge_base(folder: Path) -> ModelRef:
    """BGE-base: 109 M parameters, 768 dimensions."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    if not folder.exists():
        tiny_models.sentence_model(folder, BertModel(BertConfig()), "cls", {})
    return locate(ModelRef(str(folder), str(folder), local=True))


def smolvlm_256m(folder: Path) -> ModelRef:
    """SmolVLM-256M: a SigLIP base tower of 512 pixels, and a decoder of 30 layers."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
    )

    torch.manual_seed(0)
    extra = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tokenizer = tiny_models.word_tokenizer(
        (*extra, "<|im_start|>"), "<|im_start|>", extra[-1], add_eos=False, model_max_length=8192
    )
    identity = tokenizer.convert_tokens_to_ids
    text = {
        "model_type": "llama", "vocab_size": 49280, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": 8192, "pad_token_id": 0, "eos_token_id": identity(extra[-1]),
        "bos_token_id": identity("<|im_start|>"), "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "image_size": 512, "patch_size": 16,
    }  # fmt: skip
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            text_config=text, vision_config=vision, image_token_id=identity("<image>"),
            scale_factor=4, tie_word_embeddings=True,
        )
    )  # fmt: skip
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None  # every caption is as long as it may be
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}
    )
    processor = Idefics3Processor(
        images, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=tiny_models.CHAT_TEMPLATE
    )
    return _saved(folder, model, processor)


def _saved(folder: Path, model: Any, processor: Any) -> ModelRef:
    if not folder.exists():
        model.eval().save_pretrained(folder)
        processor.save_pretrained(folder)
    return locate(ModelRef(str(folder), str(folder), local=True))
