"""Resolve the names in config.py to local folders, the Hub, or the embedded demo."""

import os
from collections.abc import Callable
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
from support.records import ModelRef, Models, ResolvedNames

MODEL_FILES = ("config.json", "modules.json")  # a model's folder holds one of them


@dataclass(frozen=True)
class Demo:
    """What runs when the Hub cannot be reached: a dataset and models on this disk."""

    label: str  # what databases and results call its dataset
    folder: Callable[[], Path]  # where its dataset is, or will be
    prepare_dataset: Callable[[], Path]  # the same folder, filled at the first use
    models: Callable[[], Models]
    knows: str  # what its models can describe, in words
    database_suffix: str  # of the databases when its models see another dataset


def is_local(name: str) -> bool:
    """Whether a name means this disk: it exists, or cannot be a Hub name ("owner/name")."""
    path_like = name.startswith((".", "~", "/", "\\")) or name.count("/") > 1 or "\\" in name
    return path_like or os.path.exists(name)  # noqa: PTH110 - Path.exists raises for long names


def resolve_names(demo: Demo, own_images: bool = False, newest: bool = False) -> ResolvedNames:
    """What to work with, by config.MODE: what config names, or the embedded `demo`.

    In mode "auto" the demo is used when the Hub cannot be reached, not all that config names is
    cached, and the gallery would have come from the Hub. With `own_images`, or a local dataset,
    that is a HubError instead: photos would get captions from models that do not know photos. With
    `newest`, revisions that config does not pin are updated to the Hub's newest, if it answers.
    """
    use_huggingface_token()
    dataset = config.DATASET_NAME
    local = is_local(dataset)
    if config.MODE == "demo":
        return _demo_names(demo, dataset if local else None, own_images)
    label = _local_label(dataset, demo) if local else dataset
    configured = ResolvedNames("hub", dataset, configured_models(), label)
    needed = _hub_names(configured)
    if newest:
        update_cached_refs(needed)
    missing: list[str] = []
    if config.MODE == "auto":
        missing = [repository.name for repository in needed if not repository.is_cached()]
    reason = probe_hub() if missing else ""
    if not reason:
        return configured
    what = (
        f"The Hugging Face Hub cannot be reached ({reason}), and these are not in the local cache: "
        f"{', '.join(missing)}"
    )
    if own_images or local:
        raise HubError(
            f"{what}. Connect to the internet, or name local folders in config.py. To try the "
            f"program itself: --mode demo (its models know {demo.knows})."
        )
    _warn_once(f"{what}. Running the embedded demo instead.")
    return _demo_names(demo, None, own_images)


def configured_models() -> Models:
    """The models that config names. Raises SettingError for a local folder without a model."""
    return Models(
        clip=_model_ref("CLIP_MODEL_NAME", config.CLIP_REVISION),
        vlm=_model_ref("VLM_MODEL_NAME", config.VLM_REVISION),
        text=_model_ref("CAPTION_EMBEDDING_MODEL", config.CAPTION_EMBEDDING_REVISION),
    )


def _model_ref(setting: str, revision: str | None) -> ModelRef:
    name = getattr(config, setting)
    if not is_local(name):
        return ModelRef(name=name, path=name, revision=revision)
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
        _warn_once(
            f"Mode demo: these small models know {demo.knows}; captions of other pictures will "
            "make little sense."
        )
    if dataset is None:
        return ResolvedNames("demo", str(demo.prepare_dataset()), demo.models(), demo.label)
    label = _local_label(dataset, demo)
    suffix = "" if label == demo.label else demo.database_suffix
    return ResolvedNames("demo", dataset, demo.models(), label, suffix)


def _local_label(dataset: str, demo: Demo) -> str:
    """What databases and results call a local dataset: its absolute path, or the demo's label."""
    if dataset == str(demo.folder()):
        return demo.label
    return absolute_path(dataset)


@lru_cache(maxsize=8)
def _warn_once(text: str) -> None:
    """Logs `text` once per process, however often names are resolved."""
    log.warning(text)


def _hub_names(names: ResolvedNames) -> list[HubName]:
    """What comes from the Hub, dataset first."""
    found = []
    if not is_local(names.dataset):
        found.append(HubName(names.dataset, "dataset", config.DATASET_REVISION))
    for ref in vars(names.models).values():
        if not ref.local:
            found.append(HubName(ref.name, "model", ref.revision))
    return found
