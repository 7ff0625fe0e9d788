"""The repositories that config.py names, as on the Hub but with tiny random weights.

File lists and the older forms of configuration files follow the real repositories; files that the
pipeline has no use for hold junk, so that a test fails when one is read.
"""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict, Features, Image, Value
from safetensors.torch import load_file, save_file

from tests.helpers import picture
from tests.tiny_models import WORDS

JUNK = b"not to be read"
CLIP_EXTRAS = (
    "README.md flax_model.msgpack tf_model.h5 merges.txt vocab.json special_tokens_map.json"
)
SMOL_EXTRAS = (
    "README.md added_tokens.json merges.txt vocab.json special_tokens_map.json "
    "onnx/vision_encoder.onnx"
)
BERT_EXTRAS = (
    "README.md vocab.txt special_tokens_map.json onnx/model.onnx onnx/config.json pytorch_model.bin"
)


@dataclass(frozen=True)
class Model:
    """How a repository differs from the folder that save_pretrained writes."""

    architecture: str
    extras: str
    weights: str = "safetensors"  # or "bin", "sharded"
    gated: bool = False


MODELS = {
    "openai/clip-vit-base-patch32": Model("clip", CLIP_EXTRAS, "bin"),
    "openai/clip-vit-large-patch14": Model("clip", CLIP_EXTRAS + " pytorch_model.bin"),
    "google/siglip-base-patch16-224": Model(
        "siglip", "README.md special_tokens_map.json spiece.model"
    ),
    "HuggingFaceTB/SmolVLM-Instruct": Model("idefics3", SMOL_EXTRAS),
    "HuggingFaceTB/SmolVLM-256M-Instruct": Model("idefics3", SMOL_EXTRAS),
    "HuggingFaceTB/SmolVLM-500M-Instruct": Model("idefics3", SMOL_EXTRAS, "sharded"),
    "Salesforce/blip-image-captioning-large": Model(
        "blip", "README.md tf_model.h5 pytorch_model.bin vocab.txt"
    ),
    "microsoft/git-large-coco": Model(
        "git", "README.md pytorch_model.bin vocab.txt special_tokens_map.json"
    ),
    "BAAI/bge-base-en-v1.5": Model("bert", BERT_EXTRAS),
    "BAAI/bge-large-en-v1.5": Model("bert", BERT_EXTRAS, "sharded"),
    "google/embeddinggemma-300m": Model(
        "gemma3_text", "tokenizer.model added_tokens.json", gated=True
    ),
    "sentence-transformers/all-mpnet-base-v2": Model(
        "mpnet", BERT_EXTRAS + " train_script.py openvino/openvino.bin"
    ),
}
DATASETS = ("jxie/flickr8k", "Naveengo/flickr8k")


def build_model(name: str, tiny: Path, folder: Path) -> Path:
    """The repository `name` in `folder`, made of the folder `tiny` that save_pretrained wrote."""
    model = MODELS[name]
    shutil.copytree(tiny, folder)
    if model.architecture in ("blip", "git", "bert"):
        _bert_tokenizer(folder)
    _split_processor(folder)
    if (folder / "modules.json").exists():
        _older_sentence_model(folder)
    if model.architecture == "gemma3_text":
        _add_dense_layers(folder)
    {"bin": _to_bin, "sharded": _to_shards}.get(model.weights, lambda _: None)(folder)
    for extra in [".gitattributes", *model.extras.split()]:
        path = folder / extra
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(b"{}" if path.suffix == ".json" else JUNK)
    return folder


def _write(path: Path, data: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, indent=2), encoding="utf-8")


def _bert_tokenizer(folder: Path) -> None:
    """The tokenizer class of the real repository, with a small vocabulary."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(word.lower() for word in WORDS)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def _split_processor(folder: Path) -> None:
    """Write the older layout of a processor.

    It has preprocessor_config.json for images, chat_template.json, and a short
    processor_config.json.
    """
    path = folder / "processor_config.json"
    if path.exists():
        settings = json.loads(path.read_text(encoding="utf-8"))
        images = settings.pop("image_processor") | {"processor_class": settings["processor_class"]}
        _write(folder / "preprocessor_config.json", images)
        _write(path, settings) if len(settings) > 1 else path.unlink()
    template = folder / "chat_template.jinja"
    if template.exists():
        _write(
            folder / "chat_template.json", {"chat_template": template.read_text(encoding="utf-8")}
        )
        template.unlink()


def _older_sentence_model(folder: Path) -> None:
    """The layout of sentence-transformers 2 to 5, which the repositories were saved with."""
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    cls = pooling["pooling_mode"] == "cls"
    modes = {
        "pooling_mode_cls_token": cls,
        "pooling_mode_mean_tokens": not cls,
        "pooling_mode_max_tokens": False,
    }
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **modes})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": True})
    _write_modules(
        folder, [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    )


def _write_modules(folder: Path, modules: list[tuple[str, str]]) -> None:
    kinds = [(place, f"sentence_transformers.models.{kind}") for place, kind in modules]
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": place, "type": kind}
            for i, (place, kind) in enumerate(kinds)
        ],
    )


def _add_dense_layers(folder: Path) -> None:
    """EmbeddingGemma's two projections after the pooling, each a folder with weights of its own."""
    for place, sizes in (("2_Dense", (32, 48)), ("3_Dense", (48, 32))):
        activation = "torch.nn.modules.linear.Identity"
        settings = {"in_features": sizes[0], "out_features": sizes[1], "bias": False}
        _write(folder / place / "config.json", settings | {"activation_function": activation})
        weight = torch.randn(sizes[1], sizes[0], generator=torch.Generator().manual_seed(0))
        save_file({"linear.weight": weight}, folder / place / "model.safetensors")
    modules = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Dense", "Dense"),
        ("3_Dense", "Dense"),
    ]
    _write_modules(folder, [*modules, ("4_Normalize", "Normalize")])


def _to_bin(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _to_shards(folder: Path) -> None:
    """The weights in two files with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        part = {name: weights[name] for name in names if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    _write(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def build_dataset(name: str, folder: Path, images: int = 12) -> Path:
    """Write the dataset `name` as parquet.

    Captions are in five columns over three splits, or in one column of one split.
    """
    columns = [f"caption_{i}" for i in range(5)] if name.startswith("jxie") else ["text"]
    rows = [
        {"image": {"bytes": _png(i), "path": f"{i}.png"}}
        | {column: f"a red dog number {i}, seen {j} times" for j, column in enumerate(columns)}
        for i in range(images)
    ]
    splits = (
        {"train": rows[:-4], "validation": rows[-4:-2], "test": rows[-2:]}
        if len(columns) > 1
        else {"train": rows}
    )
    features = Features({"image": Image(), **{column: Value("string") for column in columns}})
    tables = DatasetDict(
        {split: Dataset.from_list(part, features=features) for split, part in splits.items()}
    )
    (folder / "data").mkdir(parents=True)
    for split, table in tables.items():
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    files = "\n".join(f"  - split: {split}\n    path: data/{split}-*" for split in splits)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\nA dataset.\n",
        encoding="utf-8",
    )
    return folder


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()
