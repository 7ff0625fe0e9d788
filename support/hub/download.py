"""Models and datasets of the Hub, from the local cache or fetched into it."""

import glob
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import config
from support.errors import HubError
from support.hub.cache import cached_file, cached_snapshot, drop_damaged, wanted_files
from support.hub.connection import probe_hub
from support.hub.errors import disk_full, errors_explained, unreachable
from support.hub.token import check_token, use_huggingface_token
from support.log import log

Sizes = Mapping[str, int | None]  # file -> bytes, None where the Hub does not say


def fetch(name: str, kind: str, revision: str | None = None) -> Path:
    """The folder of a Hub model or dataset in the local cache, named by its commit.

    What is missing is downloaded. Without `revision` it is the cached one, even if the Hub has a
    newer one. Raises HubError.
    """
    cached = cached_snapshot(name, kind, revision)
    if cached is not None:
        return cached
    use_huggingface_token()
    check_token()
    with errors_explained(name, kind, revision):
        reason = probe_hub()
        if reason:
            raise unreachable(f"The {kind} '{name}'", reason)
        return _download(name, kind, revision)


def _download(name: str, kind: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    info: Any = HfApi().repo_info(name, repo_type=kind, revision=revision, files_metadata=True)
    if info.gated:  # its description is public, its files are not: ask before announcing a download
        HfApi().auth_check(name, repo_type=kind)
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    wanted = wanted_files(sizes, kind)
    if kind == "model" and not any(file.endswith((".safetensors", ".bin")) for file in wanted):
        raise HubError(
            f"The model '{name}' holds no weights for PyTorch (model.safetensors or "
            "pytorch_model.bin)."
        )
    drop_damaged(name, kind, info.sha, sizes)
    _announce(name, kind, info, {file: sizes[file] for file in wanted})
    (enable_progress_bars if config.SHOW_PROGRESS else disable_progress_bars)()
    patterns = None if kind == "dataset" else [glob.escape(file) for file in wanted]
    return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=patterns))


def _announce(name: str, kind: str, info: Any, sizes: Sizes) -> None:
    """Logs what comes, how large, to which folder, and the memory or disk space it needs."""
    from huggingface_hub import constants

    missing = [file for file in sizes if cached_file(name, kind, info.sha, file) is None]
    present = [file for file in sizes if file not in missing]
    coming, here = _total(sizes, missing), _total(sizes, present)
    folder = Path(constants.HF_HUB_CACHE)
    _check_room(name, kind, coming or 0, folder)
    log.warning(
        "Downloading the %s %s: %s%s to %s. %s",
        kind,
        name,
        "size unknown (the Hub gives none)" if coming is None else _bytes(coming),
        f" ({_bytes(here)} of it are here already)" if here else "",
        folder,
        _memory(info, sizes) if kind == "model" else "Unpacking it takes about as much again.",
    )


def _total(sizes: Sizes, files: Iterable[str]) -> int | None:
    """Bytes of `files`; None where the Hub does not say the size of one."""
    total = 0
    for file in files:
        size = sizes[file]
        if size is None:
            return None
        total += size
    return total


def _memory(info: Any, sizes: Sizes) -> str:
    weights = _total(sizes, (f for f in sizes if f.endswith((".safetensors", ".bin"))))
    floats = getattr(info, "safetensors", None)  # the Hub's own count; old .bin files hold float32
    needed = 4 * floats.total if floats else weights
    if needed is None:
        return "How much memory it needs is not known."
    return f"It needs about {_bytes(needed)} of memory in float32, half of that in bfloat16."


def _check_room(name: str, kind: str, needed: int, folder: Path) -> None:
    """Raises HubError when the disk has too little space, before gigabytes have come."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        missing = f" ({_bytes(needed)} needed, {_bytes(free)} free in {folder})"
        raise disk_full(name, kind, missing)


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
