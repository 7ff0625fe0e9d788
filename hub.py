"""Where a name leads: a local folder or the Hub; whether the demo stands in; and which revision is meant."""

import hashlib
import logging
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import config
import demo
from hub_download import cached_snapshot, fetch, hub_answers, why_unreachable
from hub_errors import check_token, errors_explained
from records import HubError, ModelRef, Models, Names, SettingError

log = logging.getLogger("captioning")

HASHED_WHOLE = 64 * 2**20  # bytes; of larger files the fingerprint reads evenly spaced blocks


# --- Names -----------------------------------------------------------------------------------------------------
def is_local(name: str) -> bool:
    """Whether a name means this disk: it exists, looks like a path, or has too many slashes for a Hub name."""
    path_like = name.startswith((".", "~", "/", "\\")) or name.count("/") > 1 or "\\" in name
    return path_like or Path(name).exists()


def dataset_label(name: str) -> str:
    """What databases and results call a dataset: "demo", the Hub name, or the absolute path."""
    if name == str(demo.SCENES_FOLDER):
        return "demo"
    return str(Path(name).expanduser().resolve()) if is_local(name) else name


def resolve_names(own_images: bool = False, newest: bool = False) -> Names:
    """What to work with, by config.MODE: what config names, or the embedded demo.

    In mode "auto" the demo stands in when the Hub cannot be connected to, not all that config names is cached, and the
    gallery would have come from the Hub. With `own_images`, or a local dataset, that is a HubError instead: pictures of
    the world would get captions from models that know drawings only. With `newest`, revisions that config does not pin
    move on to the Hub's newest, if it answers.
    """
    dataset = config.DATASET_NAME
    local = is_local(dataset)
    if config.MODE == "demo":
        return _demo_names(dataset if local else None, own_images)
    configured = Names("hub", dataset, model_refs("hub"))
    if newest:
        _move_on(configured)
    missing = _not_at_hand(configured) if config.MODE == "auto" else []
    reason = why_unreachable() if missing else ""
    if not reason:
        return configured
    what = (
        f"The Hugging Face Hub cannot be reached ({reason}), and these are not in the local cache: {', '.join(missing)}"
    )
    if own_images or local:
        raise HubError(
            f"{what}. Connect to the internet, or name local folders in config.py. To try the program itself: "
            "--mode demo (its models know drawings only)."
        )
    _notice(f"{what}. Running the embedded demo instead.")
    return _demo_names(None, own_images)


def model_refs(mode: str) -> Models:
    """The models that config names, or the demo's. Raises SettingError for a local folder that holds no model."""
    if mode == "demo":
        return Models(
            **{kind: ModelRef(f"demo/{kind}", str(path), local=True) for kind, path in demo.model_folders().items()}
        )
    return Models(
        clip=_model_ref(config.CLIP_MODEL_NAME, "CLIP_MODEL_NAME", config.CLIP_REVISION),
        vlm=_model_ref(config.VLM_MODEL_NAME, "VLM_MODEL_NAME", config.VLM_REVISION),
        text=_model_ref(config.CAPTION_EMBEDDING_MODEL, "CAPTION_EMBEDDING_MODEL", config.CAPTION_EMBEDDING_REVISION),
    )


def _model_ref(name: str, setting: str, revision: str | None) -> ModelRef:
    if not is_local(name):
        return ModelRef(name=name, path=name, revision=revision)
    folder = Path(name).expanduser().resolve()
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        problem = "holds no config.json" if folder.is_dir() else "is not a folder"
        raise SettingError(
            f"{setting} is '{name}', but that {problem}. Name a folder that save_pretrained wrote, or a Hub model."
        )
    return ModelRef(name=str(folder), path=str(folder), local=True)


def _demo_names(dataset: str | None, own_images: bool) -> Names:
    """The demo's models, on its own scenes or on the user's dataset."""
    if dataset is not None or own_images:
        _notice(
            "Mode demo: these small models know the demo's drawings only; captions of other pictures will make "
            "little sense."
        )
    return Names("demo", dataset or str(demo.prepare_scenes()), model_refs("demo"))


@lru_cache(maxsize=8)
def _notice(text: str) -> None:
    """Said once a process, however often names are resolved."""
    log.warning(text)


def _hub_names(names: Names) -> list[tuple[str, str, str | None]]:
    """(name, kind, pinned revision) of all that comes from the Hub, dataset first."""
    dataset = [] if is_local(names.dataset) else [(names.dataset, "dataset", config.DATASET_REVISION)]
    return dataset + [(ref.name, "model", ref.revision) for ref in vars(names.models).values() if not ref.local]


def _not_at_hand(names: Names) -> list[str]:
    """The configured Hub names that are not whole in the local cache."""
    return [name for name, kind, revision in _hub_names(names) if cached_snapshot(name, kind, revision) is None]


def _move_on(names: Names) -> None:
    """Notes in the cache which commits the names have now. Without a Hub, or without access to it, nothing moves."""
    from huggingface_hub import HfApi

    check_token()
    wanted = _hub_names(names)
    for name, kind, revision in wanted if wanted and hub_answers() else []:
        try:
            with errors_explained(name, kind, revision):
                HfApi().resolve_revision(name, repo_type=kind, revision=revision)
        except HubError as error:
            if cached_snapshot(name, kind, revision) is None:
                raise
            log.warning("%s The copy in the local cache is used.", error)
    locate.cache_clear()


# --- Revisions -------------------------------------------------------------------------------------------------
@lru_cache(maxsize=32)
def locate(ref: ModelRef, recorded: str | None = None) -> ModelRef:
    """`ref` with the folder of its files and its revision: a Hub commit, or the fingerprint of a local folder.

    Without a pinned revision the `recorded` one (of the databases) is used, then the cached, then the newest. What is
    not in the local cache is downloaded. Raises HubError.
    """
    if ref.local:
        return replace(ref, revision=folder_fingerprint(ref.path))
    folder = fetch(ref.name, "model", ref.revision or recorded)
    return replace(ref, path=str(folder), revision=folder.name)


def folder_fingerprint(folder: str | Path) -> str:
    """A hash of a model folder's files: names, sizes and contents (of files over 64 MiB, 64 evenly spaced blocks)."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith((".", "__")) for part in parts):
            size = path.stat().st_size
            digest.update(f"{'/'.join(parts)}\0{size}\0".encode())
            _hash_content(path, size, digest)
    return "files-" + digest.hexdigest()[:16]


def _hash_content(path: Path, size: int, digest) -> None:
    with path.open("rb") as file:
        if size <= HASHED_WHOLE:
            digest.update(file.read())
            return
        for block in range(64):
            file.seek(block * (size - 2**16) // 63)
            digest.update(file.read(2**16))
