"""Resolve the names in config.py to local folders, the Hub, or the embedded demo."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import config
from support.errors import HubError, SettingError
from support.hub.connection import probe_hub
from support.hub.revisions import HubName, update_cached_refs
from support.hub.token import use_huggingface_token
from support.log import log
from support.paths import absolute_path
from support.records import ModelRef, ResolvedNames

MODEL_KINDS = ("clip", "vlm", "text")  # of the stages
EVALUATION_KINDS = (*MODEL_KINDS, "clip_score")
SETTINGS_OF_MODELS = {  # kind -> the settings that name the model and its revision
    "clip": ("CLIP_MODEL_NAME", "CLIP_REVISION"),
    "vlm": ("VLM_MODEL_NAME", "VLM_REVISION"),
    "text": ("CAPTION_EMBEDDING_MODEL", "CAPTION_EMBEDDING_REVISION"),
    "clip_score": ("CLIPSCORE_MODEL_NAME", "CLIPSCORE_REVISION"),
}
FIRST_DATASET = "jxie/flickr8k"  # config.DATASET_NAME before anybody changed it
MODEL_FILES = ("config.json", "modules.json")  # a model's folder holds one of them


@dataclass(frozen=True)
class Demo:
    """What runs when the Hub cannot be reached: a dataset and models on this disk."""

    label: str  # what databases and results call its dataset
    folder: Callable[[], Path]  # where its dataset is, or will be
    prepare_dataset: Callable[[], Path]  # the same folder, filled at the first use
    model: Callable[[str], ModelRef]  # of a kind
    knows: str  # what its models can describe, in words
    database_suffix: str  # of the databases when its models see another dataset


def is_local(name: str) -> bool:
    """Whether a name means this disk: it exists, or cannot be a Hub name ("owner/name")."""
    path_like = name.startswith((".", "~", "/", "\\")) or name.count("/") > 1 or "\\" in name
    return path_like or os.path.exists(name)  # noqa: PTH110 - Path.exists raises for long names


def resolve_names(
    demo: Demo,
    own_images: bool = False,
    newest: bool = False,
    needed: Collection[str] = MODEL_KINDS,
) -> ResolvedNames:
    """What to work with, by config.MODE: what config names, or the embedded `demo`.

    In mode "auto" the demo is used when the Hub cannot be reached, the dataset or one of the models
    `needed` is not cached, and the gallery would have come from the Hub. With `own_images`, or a
    local dataset, that is a HubError instead: photos would get captions from models that do not
    know photos. With `newest`, revisions that config does not pin are updated to the Hub's newest,
    if it answers.
    """
    use_huggingface_token()
    dataset = config.DATASET_NAME
    local = is_local(dataset)
    if config.MODE == "demo":
        return _demo_names(demo, dataset if local else None, own_images)
    label = _local_label(dataset, demo) if local else dataset
    own = local and label != demo.label
    configured = ResolvedNames("hub", dataset, configured_model, label, own_dataset=own)
    repositories = _hub_names(dataset, needed)
    if newest:
        update_cached_refs(repositories)
    missing: list[str] = []
    if config.MODE == "auto":
        names = [repository.name for repository in repositories if not repository.is_cached()]
        missing = list(dict.fromkeys(names))
    reason = probe_hub() if missing else ""
    if not reason:
        return configured
    what = (
        f"The Hugging Face Hub cannot be reached ({reason}), and these are not in the local cache: "
        f"{', '.join(missing)}"
    )
    if "/" not in dataset:
        what += f" ('{dataset}' is no folder here either)"
    if own_images or local:
        raise HubError(
            f"{what}. Connect to the internet, or name local folders in config.py. To try the "
            f"program itself: --mode demo (its models know {demo.knows})."
        )
    _warn_once(f"{what}. Running the embedded demo instead.")
    return _demo_names(demo, None, own_images)


def configured_model(kind: str) -> ModelRef:
    """The model of a kind that config names.

    Raises SettingError for a local folder without a model.
    """
    setting, revision = SETTINGS_OF_MODELS[kind]
    name = getattr(config, setting)
    if not is_local(name):
        return ModelRef(name=name, path=name, revision=getattr(config, revision))
    folder = Path(absolute_path(name))
    if not any(os.path.isfile(folder / file) for file in MODEL_FILES):  # noqa: PTH113
        problem = "is not a folder"
        if os.path.isdir(folder):  # noqa: PTH112
            problem = "holds no config.json that can be read"
        raise SettingError(
            f"{setting} is '{name}', but that {problem}. Name a folder that save_pretrained wrote, "
            "or a Hub model."
        )
    return ModelRef(name=str(folder), path=str(folder), local=True)


def _demo_names(demo: Demo, dataset: str | None, own_images: bool) -> ResolvedNames:
    """The demo's models, on its own dataset or on the user's."""
    if dataset is not None or own_images:
        what = "captions" if config.VLM_SERVER is None else "neighbors"
        _warn_once(
            f"Mode demo: these small models know {demo.knows}; {what} of other pictures will "
            "make little sense."
        )
    if dataset is None:
        _tell_of_other_dataset()
        return ResolvedNames("demo", str(demo.prepare_dataset()), demo.model, demo.label)
    label = _local_label(dataset, demo)
    if label == demo.label:
        return ResolvedNames("demo", dataset, demo.model, label)
    return ResolvedNames("demo", dataset, demo.model, label, demo.database_suffix, True)


def _tell_of_other_dataset() -> None:
    """Says that the demo's dataset stands for another one, in mode "demo"; "auto" has said it."""
    name = config.DATASET_NAME
    if config.MODE == "demo" and name != FIRST_DATASET:
        _warn_once(
            f"Mode demo: '{name}' is no folder here, and this mode asks no Hub. The dataset is the "
            "demo's."
        )


def _local_label(dataset: str, demo: Demo) -> str:
    """What databases and results call a local dataset: its absolute path, or the demo's label."""
    if dataset == str(demo.folder()):
        return demo.label
    return absolute_path(dataset)


@lru_cache(maxsize=8)
def _warn_once(text: str) -> None:
    """Logs `text` once per process, however often names are resolved."""
    log.warning(text)


def _hub_names(dataset: str, needed: Collection[str]) -> list[HubName]:
    """What comes from the Hub, dataset first."""
    found = []
    if not is_local(dataset):
        found.append(HubName(dataset, "dataset", config.DATASET_REVISION))
    kinds = [kind for kind in SETTINGS_OF_MODELS if kind in needed]
    if config.VLM_SERVER is not None and "vlm" in kinds:
        kinds.remove("vlm")
    refs = [configured_model(kind) for kind in kinds]
    return found + [HubName(ref.name, "model", ref.revision) for ref in refs if not ref.local]
