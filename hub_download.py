"""The Hub's files on this disk: what of a repository is wanted, whether it is all here, and fetching what is not."""

import glob
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import config
from hub_errors import check_token, disk_full, errors_explained, unreachable, use_huggingface_token
from records import HubError

log = logging.getLogger("captioning")

PROBE_SECONDS = 5.0  # how long finding out whether the Hub answers may take
ANSWER_SECONDS = 15.0  # how long any answer of the Hub may take
SAFE_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
BIN_WEIGHTS = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
MODULE_FOLDER = re.compile(r"\d+_\w+")  # of sentence-transformers: "1_Pooling", "2_Dense"
SETTINGS_FILES = (".json", ".txt", ".model", ".jinja")  # configuration, vocabularies, chat templates

# Models are loaded from folders, for which transformers never asks its bot to convert .bin weights; this is the latch.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
use_huggingface_token()


# --- The local cache -------------------------------------------------------------------------------------------
def cached_snapshot(name: str, kind: str, revision: str | None = None) -> Path | None:
    """The folder of a Hub model or dataset in the local cache, None unless all that is wanted of it is there, whole."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True, allow_patterns=[])
        )
        tree = {file.path: file.size for file in get_cached_repo_tree(name, repo_type=kind, revision=folder.name)}
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    except CachedRepoTreeNotFoundError:  # another program fetched it, file by file
        return folder if kind == "model" and _holds_model(folder) else None
    return folder if all(_is_whole(folder / file, tree[file]) for file in wanted_files(tree, kind)) else None


def wanted_files(files: Iterable[str], kind: str) -> list[str]:
    """What is needed of a repository: all of a dataset; of a model no weights for other frameworks, and no code.

    Where a folder has safetensors its pickled .bin files are left out.
    """
    files = list(files)
    if kind == "dataset":
        return files
    places = {file: file.rpartition("/")[::2] for file in files}
    safe = {folder for folder, base in places.values() if SAFE_WEIGHTS.fullmatch(base)}
    return [
        file
        for file, (folder, base) in places.items()
        if (not folder or MODULE_FOLDER.fullmatch(folder))
        and (
            base.endswith(SETTINGS_FILES)
            or SAFE_WEIGHTS.fullmatch(base)
            or (folder not in safe and BIN_WEIGHTS.fullmatch(base))
        )
    ]


def _is_whole(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)


def _holds_model(folder: Path) -> bool:
    """Whether a folder holds a configuration and all its weights."""
    weights = [
        path for path in folder.iterdir() if SAFE_WEIGHTS.fullmatch(path.name) or BIN_WEIGHTS.fullmatch(path.name)
    ]
    shards = {
        shard
        for index in folder.glob("*.index.json")
        for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    }
    whole = all((folder / shard).is_file() for shard in shards) if shards else bool(weights)
    return whole and (folder / "config.json").is_file()


# --- The Hub ---------------------------------------------------------------------------------------------------
def why_unreachable() -> str:
    """Why the Hub does not answer, in words, found out within PROBE_SECONDS; empty if it does, which is kept."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["request"]
    if _limit_waiting not in hooks:
        hooks.append(_limit_waiting)
    reason = _probe()
    if reason:
        _probe.cache_clear()  # the connection may come back while a notebook is open
    return reason


def hub_answers() -> bool:
    """Whether the Hub answers."""
    return not why_unreachable()


@lru_cache(maxsize=1)
def _probe() -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answers: list[str] = []
    # A thread, because a name server that does not answer blocks the look-up beyond any timeout of the request.
    probe = threading.Thread(target=lambda: answers.append(_head(constants.ENDPOINT)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return answers[0] if answers else f"{constants.ENDPOINT}: no answer within {PROBE_SECONDS:.0f} seconds"


def _head(endpoint: str) -> str:
    """What keeps `endpoint` from answering, in words; empty if it answers."""
    from huggingface_hub import get_session

    try:
        status = get_session().head(endpoint, timeout=PROBE_SECONDS).status_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the Hub is out of reach, and the reason is reported
        return f"{endpoint}: {str(error) or type(error).__name__}"
    return f"{endpoint}: status {status}" if status >= 500 else ""


def _limit_waiting(request: Any) -> None:
    """Gives a request that would wait for ever (some of huggingface_hub's do) a limit."""
    limits = {phase: seconds or ANSWER_SECONDS for phase, seconds in request.extensions["timeout"].items()}
    request.extensions = {**request.extensions, "timeout": limits}


def fetch(name: str, kind: str, revision: str | None = None) -> Path:
    """The folder of a Hub model or dataset in the local cache, named by its commit; what is missing is downloaded.

    Without `revision` it is the one in the cache, even if the Hub has a newer one. Raises HubError.
    """
    cached = cached_snapshot(name, kind, revision)
    if cached is not None:
        return cached
    use_huggingface_token()
    check_token()
    with errors_explained(name, kind, revision):
        reason = why_unreachable()
        if reason:
            raise unreachable(f"The {kind} '{name}'", reason)
        return _download(name, kind, revision)


def _download(name: str, kind: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    info = HfApi().repo_info(name, repo_type=kind, revision=revision, files_metadata=True)
    if info.gated:  # its description is public, its files are not: ask before the notice speaks of a download
        HfApi().auth_check(name, repo_type=kind)
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    wanted = wanted_files(sizes, kind)
    if kind == "model" and not any(file.endswith((".safetensors", ".bin")) for file in wanted):
        raise HubError(f"The model '{name}' holds no weights for PyTorch (model.safetensors or pytorch_model.bin).")
    _drop_damaged(name, kind, info.sha, sizes)
    _announce(name, kind, info, {file: sizes[file] or 0 for file in wanted})
    (enable_progress_bars if config.SHOW_PROGRESS else disable_progress_bars)()
    patterns = None if kind == "dataset" else [glob.escape(file) for file in wanted]
    return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=patterns))


def _cached_file(name: str, kind: str, commit: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, file, repo_type=kind, revision=commit)
    return Path(path) if isinstance(path, str) else None


def _drop_damaged(name: str, kind: str, commit: str, sizes: dict[str, int | None]) -> None:
    """Deletes cached files of a wrong size, which a download would take for whole."""
    for file, size in sizes.items():
        path = _cached_file(name, kind, commit, file)
        if path is not None and not _is_whole(path, size):
            path.resolve().unlink()
            path.unlink(missing_ok=True)


def _announce(name: str, kind: str, info: Any, sizes: dict[str, int]) -> None:
    """What comes, how large, to which folder, and what it wants: memory for a model, more disk for a dataset."""
    from huggingface_hub import constants

    coming = sum(size for file, size in sizes.items() if _cached_file(name, kind, info.sha, file) is None)
    here = sum(sizes.values()) - coming
    folder = Path(constants.HF_HUB_CACHE)
    _check_room(name, kind, coming, folder)
    log.warning(
        "Downloading the %s %s: %s%s to %s. %s", kind, name, _bytes(coming),
        f" ({_bytes(here)} of it are here already)" if here else "", folder,
        _memory(info, sizes) if kind == "model" else "Unpacking it takes about as much again.",
    )  # fmt: skip


def _memory(info: Any, sizes: dict[str, int]) -> str:
    weights = sum(size for file, size in sizes.items() if file.endswith((".safetensors", ".bin")))
    floats = getattr(info, "safetensors", None)  # the Hub's own count; old .bin files hold float32
    needed = 4 * floats.total if floats else weights
    return f"It wants about {_bytes(needed)} of memory in float32, half of that in bfloat16."


def _check_room(name: str, kind: str, needed: int, folder: Path) -> None:
    """Raises HubError when the disk has not the room, before gigabytes have come."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise disk_full(name, kind, f" ({_bytes(needed)} wanted, {_bytes(free)} free in {folder})")


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
