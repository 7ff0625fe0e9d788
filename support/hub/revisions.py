"""Which revision of a model is meant, and in which folder it lies."""

import errno
import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from support.errors import HubError
from support.hub.cache import cached_snapshot
from support.hub.connection import probe_hub
from support.hub.download import fetch
from support.hub.errors import errors_explained
from support.hub.token import check_token
from support.log import log
from support.records import ModelRef

HASHED_WHOLE = 64 * 2**20  # bytes; of larger files the fingerprint reads evenly spaced blocks


class HubName(NamedTuple):
    """A repository of the Hub that a run needs."""

    name: str
    kind: str  # "model" or "dataset"
    revision: str | None  # pinned by config.py

    def is_cached(self) -> bool:
        """Whether all that is wanted of it is in the local cache."""
        return cached_snapshot(*self) is not None


@lru_cache(maxsize=32)
def locate(ref: ModelRef, recorded: str | None = None) -> ModelRef:
    """`ref` with the folder of its files and its revision.

    The revision is a Hub commit, or the fingerprint of a local folder. Without a pinned one, the
    `recorded` one (of the databases) is used, then the cached, then the newest. What is not in the
    local cache is downloaded. Raises HubError.
    """
    if ref.local:
        with errors_explained(ref.name, "model"):
            return replace(ref, revision=folder_fingerprint(ref.path))
    folder = fetch(ref.name, "model", ref.revision or recorded)
    return replace(ref, path=str(folder), revision=folder.name)


def update_cached_refs(names: list[HubName]) -> None:
    """Updates the cached refs to the Hub's latest commits, so that `locate` finds the newest.

    Without a Hub, or without access to a name, its cached copy stays in use.
    """
    from huggingface_hub import HfApi

    check_token()
    locate.cache_clear()  # local folders may have changed too
    if not names or probe_hub():
        return
    for name, kind, revision in names:
        try:
            with errors_explained(name, kind, revision):
                HfApi().resolve_revision(name, repo_type=kind, revision=revision)
        except HubError as error:
            if cached_snapshot(name, kind, revision) is None:
                raise
            log.warning("%s The copy in the local cache is used.", error)


def folder_fingerprint(folder: str | Path) -> str:
    """A hash of a model folder's files: names, sizes and contents.

    Of files over 64 MiB, 64 evenly spaced blocks are read. Raises OSError, also for a pipe or a
    device: whoever loads the model would wait for it.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if any(part.startswith((".", "__")) for part in path.relative_to(folder).parts):
            continue
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "Not a file", str(path))
        if path.is_file():
            parts = path.relative_to(folder).parts
            size = path.stat().st_size
            digest.update(f"{'/'.join(parts)}\0{size}\0".encode())
            for block in _sampled_content(path, size):
                digest.update(block)
    return "files-" + digest.hexdigest()[:16]


def _sampled_content(path: Path, size: int) -> list[bytes]:
    with path.open("rb") as file:
        if size <= HASHED_WHOLE:
            return [file.read()]
        blocks = []
        for block in range(64):
            file.seek(block * (size - 2**16) // 63)
            blocks.append(file.read(2**16))
        return blocks
