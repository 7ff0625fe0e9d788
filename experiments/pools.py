"""What gives context to a run over many images: fixed in a file when its first run begins."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from db_manager import DatabaseManager
from experiments.identity import former_run_name, run_name, short_hash
from experiments.system import System
from similarity_search import Pool
from support.candidates import Candidate
from support.log import log
from support.records import Models
from support.storage.captions import LARGEST_INDEX
from support.storage.damage import FORMAT_VERSION, DamagedFile, check_format, damaged
from support.storage.errors import read_regular, unreadable
from support.storage.files import remove_leftovers, replace_file
from support.storage.strict_json import parse_json, to_json
from support.storage.vectors import VectorTable

FIELD_TYPES: dict[str, type | tuple[type, ...]] = {  # of a candidate in the file
    "key": str,
    "index": int,
    "captions": list,
    "source": str,
    "original_index": (int, type(None)),
    "image": str,
}
REMEDY = (
    "Restore a good copy; or begin a new run with --rebuild or --recaption: it captions again what "
    "this one had captioned."
)


class FixedPool(NamedTuple):
    """The name of a run over many images, and where its neighbors are found."""

    run: str
    pool: Pool


def fixed_pool(
    system: System, vectors: VectorTable, models: Models, recaption: bool = False
) -> FixedPool:
    """The run with this gallery, these models and config's settings; a new one to `recaption`.

    Context are the gallery, and of the images captioned earlier those that were in the databases
    when the first such run began. They are kept in a file, so that a run that was stopped, and one
    that only adds what is missing, has the same context.
    """
    found = system.candidates()
    originals = [candidate for candidate in found if candidate.source == "original"]
    captioned = [candidate for candidate in found if candidate.source == "generated"]
    names = run_name(originals, models), former_run_name(originals, models)
    with system.db_manager.locked():  # two programs that begin at once must agree
        path = _pool_file(system.db_manager.folder, names)
        if not _is_usable(path, system.db_manager, recaption) or recaption:
            path = path.with_stem(names[0])
            _write(path, captioned)
        content, frozen = _read(path)
    name = f"{path.stem}-{short_hash(content)}"
    fixed = originals + [_where_it_lies_now(found, system) for found in frozen]
    return FixedPool(name, Pool.of(fixed, vectors.rows, vectors.matrix))


def check_pools(db_manager: DatabaseManager) -> None:
    """Raises DatabaseError where a frozen pool cannot be read."""
    for path in _pool_files(db_manager):
        _read(path)


def _pool_files(db_manager: DatabaseManager) -> list[Path]:
    return sorted((db_manager.folder / "frozen_pools").glob("*.json"))


def drop_from_pools(db_manager: DatabaseManager, keys: Collection[str]) -> int:
    """Takes images out of all frozen pools; how many held one. Their runs get another name.

    Raises DatabaseError, and changes nothing, where one of them cannot be read.
    """
    with db_manager.locked():
        pools = {path: _read(path)[1] for path in _pool_files(db_manager)}
        holding = [path for path, pool in pools.items() if any(one.key in keys for one in pool)]
        for path in holding:
            _write(path, [one for one in pools[path] if one.key not in keys])
    return len(holding)


def _where_it_lies_now(candidate: Candidate, system: System) -> Candidate:
    """A candidate with the path that the databases know: the photo may have been moved since."""
    record = system.db_manager.captions.get(candidate.key)
    return candidate if record is None else replace(candidate, image=record["image"])


def _pool_file(folder: Path, names: Sequence[str]) -> Path:
    """The file of a run that has begun under one of `names`; else where the first belongs."""
    paths = [folder / "frozen_pools" / f"{name}.json" for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def _is_usable(path: Path, db_manager: DatabaseManager, recaption: bool) -> bool:
    """Whether there is a pool in `path`.

    A damaged one raises DamagedFile, unless a rebuild or new run was asked for; a copy is kept.
    """
    if not path.exists():
        return False
    try:
        _read(path)
    except DamagedFile:
        if not (db_manager.rebuild or recaption):
            raise
        log.warning("%s was damaged; a new run begins.", path)
        return False
    return True


def _write(path: Path, captioned: Sequence[Candidate]) -> None:
    pool = {
        "format_version": FORMAT_VERSION,
        "started": datetime.now().isoformat(),
        "captioned": [vars(candidate) for candidate in captioned],
    }
    if path.parent.exists():
        remove_leftovers(path)
    replace_file(path, [to_json(pool) + "\n"])


def _read(path: Path) -> tuple[bytes, list[Candidate]]:
    """The content of a pool's file, and its candidates. Raises DatabaseError."""
    with unreadable(path):
        content = read_regular(path)
    try:
        pool = parse_json(content)
    except ValueError as error:
        raise damaged(path, f"not JSON: {error}" if content else "it is empty", REMEDY) from error
    if not isinstance(pool, dict) or not isinstance(pool.get("captioned"), list):
        raise damaged(path, "it has no list of captioned images", REMEDY)
    check_format(path, pool.get("format_version", FORMAT_VERSION))  # version 0.1 wrote none
    if not all(map(_is_candidate, pool["captioned"])):
        raise damaged(path, f"not all its entries have the fields {sorted(FIELD_TYPES)}", REMEDY)
    return content, [_as_candidate(fields) for fields in pool["captioned"]]


def _is_candidate(fields: Any) -> bool:
    if not isinstance(fields, dict) or set(fields) != set(FIELD_TYPES):
        return False
    typed = all(isinstance(fields[name], kind) for name, kind in FIELD_TYPES.items())
    if not typed or isinstance(fields["index"], bool) or not 0 <= fields["index"] < LARGEST_INDEX:
        return False
    return all(isinstance(caption, str) for caption in fields["captions"])


def _as_candidate(fields: Mapping[str, Any]) -> Candidate:
    return Candidate(**{**fields, "captions": tuple(fields["captions"])})
