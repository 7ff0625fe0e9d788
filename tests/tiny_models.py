"""Random models of a few kilobytes of each architecture in config.py, saved as on the Hub.

Nothing here knows the pipeline: the tests load these folders through its own code.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = [
    "a", "the", "dog", "cat", "runs", "sits", "on", "in", "at", "of", "and", "with", "red", "blue",
    "green", "big", "small", "captions", "similar", "images", "nearest", "first", "they", "may",
    "be", "wrong", "about", "this", "image", "describe", "one", "sentence", "User", "Assistant",
    "Describe", "Captions", "They", ".", ",", ":", "-", "represent", "for", "searching", "relevant",
    "passages",
]  # fmt: skip
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "[CLS]", "[SEP]"]
SIDE = 32  # pixels of the images that these models see
PATCH = 8


def word_tokenizer(
    extra: tuple[str, ...] = (), bos: str = "<s>", eos: str = "</s>", **settings
) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words that closes each text with `eos`."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *extra, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if settings.pop("add_eos", True):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A {eos}",
            special_tokens=[(bos, vocabulary[bos]), (eos, vocabulary[eos])],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>",
        additional_special_tokens=list(extra) or None,
        model_max_length=settings.pop("model_max_length", 64),
        **settings,
    )


def _text(hidden: int = 32) -> dict:
    return {
        "vocab_size": 80,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
    }


def _vision(hidden: int = 32) -> dict:
    return {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    }


def clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

    size = {"height": SIDE, "width": SIDE}
    text = {**_text(), "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=16))
    processor = CLIPProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size), word_tokenizer()
    )
    return _save(folder, model, processor)


def siglip(folder: Path) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    model = SiglipModel(SiglipConfig(text_config=_text(), vision_config=_vision()))
    return _save(
        folder,
        model,
        SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        word_tokenizer(),
    )


def idefics3(folder: Path) -> Path:
    """SmolVLM's own classes and chat template."""
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor

    extra = ("<image>", "<fake_token_around_image>", "<global-img>")
    tokenizer = word_tokenizer(
        (*extra, "<end_of_utterance>", "<|im_start|>"),
        "<|im_start|>",
        "<end_of_utterance>",
        add_eos=False,
        padding_side="right",
        model_max_length=4096,
    )
    model = _idefics3_model(tokenizer)
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 4 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    tokens = (SIDE // PATCH // 2) ** 2
    processor = Idefics3Processor(
        images, tokenizer, image_seq_len=tokens, chat_template=CHAT_TEMPLATE
    )
    return _save(folder, model, processor)


CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }} : "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant :{% endif %}"
)


def _idefics3_model(tokenizer):
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    identity = tokenizer.convert_tokens_to_ids
    text = {
        **_text(),
        "model_type": "llama",
        "pad_token_id": 0,
        "num_key_value_heads": 2,
        "eos_token_id": identity("</s>"),
        "max_position_embeddings": 4096,
        "bos_token_id": identity("<|im_start|>"),
    }
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            text_config=text,
            vision_config=_vision(),
            image_token_id=identity("<image>"),
            scale_factor=2,
            pad_token_id=0,
        )
    )
    model.generation_config.eos_token_id = identity("<end_of_utterance>")
    model.generation_config.pad_token_id = 0
    return model


def blip(folder: Path) -> Path:
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessorPil,
        BlipProcessor,
    )

    tokens = {"bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "pad_token_id": 0}
    text = {**_text(), **tokens, "encoder_hidden_size": 32}
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config=_vision(), projection_dim=16)
    )
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _save(folder, model, BlipProcessor(images, word_tokenizer()))


def git(folder: Path) -> Path:
    from transformers import CLIPImageProcessorPil, GitConfig, GitForCausalLM, GitProcessor

    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = GitForCausalLM(GitConfig(vision_config=_vision(), **_text(), **tokens))
    size = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    return _save(folder, model, GitProcessor(images, word_tokenizer()))


def bert(folder: Path) -> Path:
    """BGE's architecture: class-token pooling."""
    from transformers import BertConfig, BertModel

    return sentence_model(folder, BertModel(BertConfig(**_text())), "cls", {})


def mpnet(folder: Path) -> Path:
    from transformers import MPNetConfig, MPNetModel

    model = MPNetModel(MPNetConfig(**_text(), pad_token_id=0))
    return sentence_model(folder, model, "mean", {})


def gemma3_text(folder: Path) -> Path:
    """EmbeddingGemma's architecture, with its saved prompts for queries and documents."""
    from transformers import Gemma3TextConfig, Gemma3TextModel

    model = Gemma3TextModel(
        Gemma3TextConfig(**_text(), head_dim=16, num_key_value_heads=2, sliding_window=64)
    )
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    return sentence_model(folder, model, "mean", prompts)


def sentence_model(folder: Path, model, pooling: str, prompts: dict[str, str]) -> Path:
    """A folder as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    plain = _save(folder / "plain", model, word_tokenizer(bos="[CLS]", eos="[SEP]"))
    transformer = Transformer(str(plain), max_seq_length=64)
    SentenceTransformer(
        modules=[transformer, Pooling(model.config.hidden_size, pooling_mode=pooling)],
        prompts=prompts or None,
        device="cpu",
    ).save(str(folder))
    import shutil

    shutil.rmtree(plain)
    return folder


def _save(folder: Path, model, *processors_) -> Path:
    model.eval().save_pretrained(folder)
    for processor in processors_:
        processor.save_pretrained(folder)
    return folder


def to_bin(folder: Path) -> Path:
    """Replace the safetensors of a folder by pytorch_model.bin, the older format."""
    from safetensors.torch import load_file

    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    return folder


def build(architecture: str, folder: Path) -> Path:
    """A folder with a random model of `architecture`, the same at every call."""
    torch.manual_seed(0)
    built = globals()[architecture](folder)
    json.loads((built / "config.json").read_text() if (built / "config.json").exists() else "{}")
    return built
