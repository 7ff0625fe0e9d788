"""The Hub's local cache: which files of a repository are wanted, and whether they are here."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

SAFE_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
BIN_WEIGHTS = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
MODULE_FOLDER = re.compile(r"\d+_\w+")  # of sentence-transformers: "1_Pooling", "2_Dense"
# Configuration, vocabularies, chat templates.
SETTINGS_FILES = (".json", ".txt", ".model", ".jinja")


def cached_snapshot(name: str, kind: str, revision: str | None = None) -> Path | None:
    """The folder of a Hub model or dataset in the cache; None unless all wanted files are there."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import (
        CachedRepoTreeNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        found = snapshot_download(
            name, repo_type=kind, revision=revision, local_files_only=True, allow_patterns=[]
        )
        folder = Path(found)
        files = get_cached_repo_tree(name, repo_type=kind, revision=folder.name)
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    except CachedRepoTreeNotFoundError:  # another program fetched it, file by file
        return folder if kind == "model" and _holds_model(folder) else None
    sizes = {file.path: file.size for file in files}
    wanted = wanted_files(sizes, kind)
    return folder if all(is_whole(folder / file, sizes[file]) for file in wanted) else None


def wanted_files(files: Iterable[str], kind: str) -> list[str]:
    """The files needed of a repository: all of a dataset; of a model only weights and settings.

    No weights for other frameworks, no code, and no pickled .bin files where a folder has
    safetensors.
    """
    files = list(files)
    if kind == "dataset":
        return files
    places = {file: file.rpartition("/")[::2] for file in files}
    safe = {folder for folder, base in places.values() if SAFE_WEIGHTS.fullmatch(base)}
    return [file for file, (folder, base) in places.items() if _is_wanted(folder, base, safe)]


def _is_wanted(folder: str, base: str, safe_folders: set[str]) -> bool:
    """Whether a model is loaded from the file `base` of `folder`."""
    if folder and not MODULE_FOLDER.fullmatch(folder):
        return False
    if base.endswith(SETTINGS_FILES) or SAFE_WEIGHTS.fullmatch(base):
        return True
    return folder not in safe_folders and BIN_WEIGHTS.fullmatch(base) is not None


def is_whole(path: Path, size: int | None) -> bool:
    """Whether a file is there in its full size; a size of None is not known."""
    return path.is_file() and size in (None, path.stat().st_size)


def cached_file(name: str, kind: str, commit: str, file: str) -> Path | None:
    """The cached file of a repository at a commit, None when it is not there."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, file, repo_type=kind, revision=commit)
    return Path(path) if isinstance(path, str) else None


def drop_damaged(name: str, kind: str, commit: str, sizes: Mapping[str, int | None]) -> None:
    """Deletes cached files of a wrong size, which a download would take for complete."""
    for file, size in sizes.items():
        path = cached_file(name, kind, commit, file)
        if path is not None and not is_whole(path, size):
            path.resolve().unlink()
            path.unlink(missing_ok=True)


def _holds_model(folder: Path) -> bool:
    """Whether a folder holds a configuration and all its weights."""
    names = [path.name for path in folder.iterdir()]
    weights = [
        name for name in names if SAFE_WEIGHTS.fullmatch(name) or BIN_WEIGHTS.fullmatch(name)
    ]
    shards: set[str] = set()
    for index in folder.glob("*.index.json"):
        shards.update(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    whole = all((folder / shard).is_file() for shard in shards) if shards else bool(weights)
    return whole and (folder / "config.json").is_file()
