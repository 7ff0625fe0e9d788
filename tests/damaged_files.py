"""All files that the program reads and writes, and damage to them."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests import tiny_models
from tests.helpers import make_photos, picture, run_here, run_main

MODELS = {"clip": "clip", "vlm": "idefics3", "text": "bert", "blip": "blip"}  # folder -> model
FLAGS = {  # {folder} stands for the playground's
    "--mode": "hub",
    "--dataset": "{folder}/photos",
    "--experiment-samples": "3",
    "--clip-model": "{folder}/clip",
    "--clipscore-model": "{folder}/clip",
    "--vlm-model": "{folder}/vlm",
    "--text-model": "{folder}/text",
    "--max-new-tokens": "4",
    "--db-dir": "{folder}/databases",
    "--results-dir": "{folder}/results",
}
DATASETS = ("photos", "csv", "jsonl", "table.parquet", "tables", "table.arrow", "saved", "splits")

JSON = ("null", "true", "-1", "1.5", '"x"', '""', "[]", "{}", "[null]", '{"x": 1}', "1" + "0" * 30)
BYTES = ("empty", "cut", "cut character", "garbage", "newer", "huge", "nan", "drop")
BECOMES = tuple(f"becomes {value}" for value in JSON)
VALUES = tuple(f"value {value}" for value in JSON)
PLACES = ("missing", "file", "folder", "dangling", "loop", "fifo", "linked")
PERMISSIONS = ("unreadable", "read-only")


class Damage(NamedTuple):
    """What happens to the first file or folder that the pattern `target` finds."""

    target: str
    kind: str  # one of the words above
    part: float  # where in the file, from 0 to 1


class Playground:
    """A folder with datasets, models, databases, results and an unfinished evaluation.

    Each case gets a fresh copy at the same place, because the databases of a local dataset are
    named after its path.
    """

    def __init__(self, folder: Path):
        folder.chmod(0o755)
        self.folder, self.whole = folder / "case", folder / "whole"
        self.folder.mkdir()
        _make_datasets(self.folder)
        for name, architecture in MODELS.items():
            tiny_models.build(architecture, self.folder / name)
        _use(self.folder)
        self.folder.rename(self.whole)
        self.targets = sorted({_pattern(path, self.whole) for path in self.whole.rglob("*")})

    def arrange(self, damages: Sequence[Damage], user: int | None = None) -> list[str]:
        """Puts a damaged copy in place, which belongs to `user`; the paths that were damaged."""
        self.close()
        shutil.copytree(self.whole, self.folder, symlinks=True)
        os.mkfifo(self.folder / "fifo")  # copytree copies none
        if user is not None:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, user, user, follow_symlinks=False)
        damaged = []
        for damage in damages:
            for path in sorted(self.folder.glob(damage.target))[:1]:
                damaged.append(path.relative_to(self.folder).as_posix())
                if not path.is_symlink():
                    _damage(path, damage)
        return damaged

    def close(self) -> None:
        """Removes the copy."""
        for parent, names, _ in os.walk(self.folder):
            for path in (Path(parent) / name for name in (".", *names)):
                if not path.is_symlink():
                    path.chmod(0o700)
        shutil.rmtree(self.folder, ignore_errors=True)


def _pattern(path: Path, folder: Path) -> str:
    """A path without what differs from one run to the next, such as hashes and times."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "*", path.relative_to(folder).as_posix())


# --- What is there --------------------------------------------------------------------------------
def _make_datasets(folder: Path) -> None:
    photos = make_photos(folder / "photos", 12)
    with (photos / "captions.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"p{number:02}.png,개 {number} 마리 \x1b[31m\n" for number in range(12))
    names = sorted(path.name for path in photos.glob("*.png"))
    for form in ("csv", "jsonl"):
        shutil.copytree(photos, folder / form, ignore=shutil.ignore_patterns("captions.txt"))
    rows = [{"file_name": name, "text": f"개 {number}"} for number, name in enumerate(names)]
    lines = {
        "csv": ["file_name,text", *(",".join(row.values()) for row in rows)],
        "jsonl": [json.dumps(row, ensure_ascii=False) for row in rows],
    }
    for form, text in lines.items():
        (folder / form / f"metadata.{form}").write_text("\n".join(text) + "\n", encoding="utf-8")
    _make_tables(folder, [(photos / name).read_bytes() for name in names])
    _make_odd_names(folder)


def _make_tables(folder: Path, images: Sequence[bytes]) -> None:
    from datasets import Dataset, DatasetDict, Features, Image, Value, disable_progress_bars

    disable_progress_bars()
    cells = [{"bytes": image, "path": None} for image in images]
    columns = {"image": cells, "text": [f"개 {number}" for number in range(len(images))]}
    table = Dataset.from_dict(columns, Features({"image": Image(), "text": Value("string")}))
    (folder / "tables").mkdir()
    for name in ("table.parquet", "tables/train.parquet"):
        table.to_parquet(folder / name)
    table.save_to_disk(folder / "saved")
    DatasetDict({"train": table}).save_to_disk(folder / "splits")
    shutil.copy(next((folder / "saved").glob("*.arrow")), folder / "table.arrow")


def _make_odd_names(folder: Path) -> None:
    """Own images, links that lead nowhere, and names that steer a terminal."""
    (folder / "own").mkdir()
    for number, name in enumerate(("a", "\x1b[31mred", "a\nb", "\udcff", "n" * 240, "개")):
        picture(20 + number).save(folder / "own" / f"{name}.png")
    (folder / "own" / "notes.txt").write_text("no image", encoding="utf-8")
    shutil.copytree(folder / "photos", folder / "\x1b]0;odd\x07")
    for name, target in {"linked": "databases", "loop": "loop", "dangling": "nowhere"}.items():
        (folder / name).symlink_to(target)
    (folder / "databases").mkdir()
    (folder / "empty").mkdir()


def _use(folder: Path) -> None:
    """Runs every command once; leaves updates in the journal, and an unfinished evaluation."""
    flags = [f"{flag}={value.format(folder=folder)}" for flag, value in FLAGS.items()]
    for command in (["--image", str(folder / "own/a.png")], ["--all"], ["search", "a dog"]):
        done = run_main(*command, *flags)
        assert done.returncode == 0, done.stderr
    with _kept(folder / "results", "evaluation_*.partial.jsonl"):
        assert run_main("evaluate", *flags, "--vlm-batch-size=1").returncode == 0
    assert run_here(lambda: _leave_a_journal(flags)).returncode == 0


@contextmanager
def _kept(folder: Path, pattern: str) -> Iterator[None]:
    """Keeps a copy of the file that appears in `folder` and is gone at the end."""
    copies: list[tuple[Path, bytes]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            for path in folder.glob(pattern):
                with suppress(FileNotFoundError):
                    copies.append((path, path.read_bytes()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    path, content = copies[-1]
    path.write_bytes(content)


def _leave_a_journal(words: Sequence[str]) -> int:
    """Captions an image as a process does that is killed before it compacts."""
    from cli import flags
    from main import initialize_system, run_experiment

    flags.apply(flags.parse(words))
    system = initialize_system()
    run_experiment(*system, 1)
    system.db_manager.close(compact=False)
    return 0


# --- Damage ---------------------------------------------------------------------------------------
def _damage(path: Path, damage: Damage) -> None:
    if damage.kind == "unreadable":
        path.chmod(0)
    elif damage.kind == "read-only":
        path.chmod(0o555 if path.is_dir() else 0o444)
    elif damage.kind in PLACES:
        _replace(path, damage.kind)
    elif path.is_file():
        path.write_bytes(damaged_content(path.read_bytes(), damage.kind, damage.part))


def _replace(path: Path, kind: str) -> None:
    """Puts something else in the place of a file or folder."""
    aside = path.with_name(f"aside{len(list(path.parent.iterdir()))}")
    path.rename(aside)
    if kind == "linked":
        path.symlink_to(aside.name)
        return
    shutil.rmtree(aside) if aside.is_dir() and not aside.is_symlink() else aside.unlink()
    make: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_bytes(bytes(range(256))),
        "folder": path.mkdir,
        "dangling": lambda: path.symlink_to("nowhere"),
        "loop": lambda: path.symlink_to(path.name),
        "fifo": lambda: os.mkfifo(path),
    }
    if kind != "missing":
        make[kind]()


def damaged_content(data: bytes, kind: str, part: float) -> bytes:
    """The content of a file, damaged at `part` of its length."""
    place, (name, _, value) = int(part * len(data)), kind.partition(" ")
    if name == "value":
        return _with_value(data, value, part)
    if name == "drop":
        return _with_value(data, None, part)
    if name == "becomes":
        return value.encode()
    if name == "newer":
        return re.sub(rb'"format_version": *1', b'"format_version": 2', data)
    if name in ("huge", "nan"):
        return _with_number(data, b"9" * 400 if name == "huge" else b"NaN", part)
    if name == "garbage":
        return data[:place] + b"\xff\x00\x1b[31m\xc3" + data[place + 7 :]
    if value == "character":
        found = re.search(rb"[\xc2-\xf4]", data[place:])
        return data[: place + found.start() + 1] if found else data + b"\xea\xb0"
    return data[: 0 if name == "empty" else place]


def _with_number(data: bytes, number: bytes, part: float) -> bytes:
    """Text with another number, in the place of one if there is any."""
    found = list(re.finditer(rb"(?<=[:\[ ])-?\d+(\.\d+)?(?=[,\]}\n ])", data))
    start = end = int(part * len(data))
    if found:
        start, end = found[int(part * (len(found) - 1))].span()
    return data[:start] + number + data[end:]


def _with_value(data: bytes, value: str | None, part: float) -> bytes:
    """JSON, or a line of it, with another value in the place of one of its; None leaves it out."""
    lines = data.split(b"\n")
    line = int(part * max(1, len(lines) - 1))
    for some in (slice(0, len(lines)), slice(line, line + 1)):
        try:
            document = json.loads(b"\n".join(lines[some]))
        except ValueError:
            continue
        places = list(_places(document))
        if places:
            inside, key = places[int(part * 997) % len(places)]
            inside[key] = None if value is None else json.loads(value)
            if value is None:
                del inside[key]
        lines[some] = [json.dumps(document, ensure_ascii=False).encode()]
        break
    return b"\n".join(lines)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: the list or object, and the index or key in it."""
    if not isinstance(value, dict | list):
        return
    for key, inner in list(value.items()) if isinstance(value, dict) else enumerate(value):
        yield value, key
        yield from _places(inner)
