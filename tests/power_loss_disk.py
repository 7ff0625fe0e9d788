"""A disk in memory: calls change it, and it says what it may hold after a power failure.

The model is described in tests/power_loss.py.
"""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PAGE = 4096  # bytes that a disk writes as a whole
FEW = 4  # changes of a file or folder of which all combinations are tried
SAMPLED = 12  # of more changes, as many are lost in every way
COMBINATIONS = 48  # of several files and folders, tried in full
Tree = tuple[tuple[str, bytes | None], ...]  # path -> content; None for a folder


class Model(NamedTuple):
    """Which unsynced changes of a folder can be lost, and what fsync makes durable."""

    name: str
    ordered: bool  # a folder's changes are lost from the end only
    names: bool  # fsync of a file or folder makes its name durable too


MODELS = Model("journalled", True, True), Model("minimal", False, False)


class Call(NamedTuple):
    """A successful call of a program to the file system, its arguments by kind."""

    process: str
    name: str
    files: list[tuple[int, str]]  # descriptors, with the path that each had when it was used
    texts: list[bytes]  # paths, or what is written
    numbers: list[int]
    flags: str
    result: int

    def __str__(self) -> str:
        paths = [path for _, path in self.files] or map(os.fsdecode, self.texts)
        return f"{self.name}({', '.join(path.rpartition('/')[2] for path in paths)})"


# --- Files and folders ----------------------------------------------------------------------------
class Variant(NamedTuple):
    """What a file or folder may hold, and what of it that is, in words."""

    value: bytes | dict[str, "Node"]
    words: str


@dataclass(eq=False)
class File:
    """The content of a file: as synced, the changes since, and as a running program sees it."""

    synced: bytes = b""
    now: bytes = b""
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut off there
    found: list[Variant] = field(default_factory=list)

    def write(self, offset: int, data: bytes) -> None:
        while data:
            room = PAGE - offset % PAGE
            self._change(offset, data[:room])
            offset, data = offset + room, data[room:]

    def truncate(self, length: int) -> bool:
        """Cuts the file off, or extends it; whether that changed it."""
        if length == len(self.now):
            return False
        self._change(length, None)
        return True

    def sync(self) -> None:
        self.synced, self.changes, self.found = self.now, [], []

    def variants(self, _: Model) -> list[Variant]:
        self.found = self.found or list(self._variants())
        return self.found

    def _change(self, offset: int, data: bytes | None) -> None:
        self.changes.append((offset, data))
        self.now, self.found = _changed(self.now, offset, data), []

    def _variants(self) -> Iterator[Variant]:
        for kept in subsets(len(self.changes)):
            content = self.synced
            for n in kept:
                content = _changed(content, *self.changes[n])
            words = f"pieces {list(kept)} of {len(self.changes)}"
            yield Variant(content, words)
            if len(content) < len(self.now):
                zeros = bytes(len(self.now) - len(content))
                yield Variant(content + zeros, f"{words}, then zeros")


def _changed(content: bytes, offset: int, data: bytes | None) -> bytes:
    """`content` with `data` at `offset`; without, cut off there."""
    start = content[:offset] + bytes(max(0, offset - len(content)))
    return start if data is None else start + data + content[offset + len(data) :]


class Entry(NamedTuple):
    """A change of a folder: a name that comes or goes, and one that goes in the same step."""

    name: str
    node: "Node | None"
    gone: str = ""

    def apply(self, entries: dict[str, "Node"]) -> None:
        entries.pop(self.gone, None)
        entries.pop(self.name, None)
        if self.node:
            entries[self.name] = self.node


@dataclass(eq=False)
class Folder:
    """The entries of a folder: as synced, the changes since, and as a running program sees them."""

    synced: dict[str, "Node"] = field(default_factory=dict)
    now: dict[str, "Node"] = field(default_factory=dict)
    changes: list[Entry] = field(default_factory=list)

    def change(self, name: str, node: "Node | None", gone: str = "") -> None:
        self.changes.append(Entry(name, node, gone))
        self.changes[-1].apply(self.now)

    def sync(self) -> None:
        self.synced, self.changes = dict(self.now), []

    def sync_name(self, node: "Node") -> None:
        """Makes the changes up to the newest one of this node durable."""
        newest = max((n for n, c in enumerate(self.changes, 1) if c.node is node), default=0)
        for change in self.changes[:newest]:
            change.apply(self.synced)
        del self.changes[:newest]

    def variants(self, model: Model) -> Iterator[Variant]:
        count = len(self.changes)
        ends = [tuple(range(n)) for n in range(count + 1)]
        for kept in ends if model.ordered else subsets(count):
            entries = dict(self.synced)
            for n in kept:
                self.changes[n].apply(entries)
            lost = [("-", "+")[c.node is not None] + c.name for c in self.changes]
            words = ", ".join(word for n, word in enumerate(lost) if n not in kept)
            yield Variant(entries, f"lost {words}" if words else "whole")

    def below(self) -> dict["Node", str]:
        """This folder and all that may be found in it after a power failure, with its path."""
        changes = [(change.name, change.node) for change in self.changes]
        paths: dict[Node, str] = {self: ""}
        for name, node in [*self.synced.items(), *changes, *self.now.items()]:
            if isinstance(node, Folder):
                paths |= {other: f"{name}/{path}" for other, path in node.below().items()}
            elif node:
                paths[node] = name
        return paths


Node = File | Folder


def subsets(count: int) -> list[tuple[int, ...]]:
    """Which of `count` changes are there: none first, all last; what is tried in between."""
    every = tuple(range(count))
    if count <= FEW:
        return [kept for size in range(count + 1) for kept in itertools.combinations(every, size)]
    chosen: list[tuple[int, ...]] = [()]
    for n in sorted({count * i // SAMPLED for i in range(SAMPLED)} | {count - 1}):
        swapped = (*every[:n], *every[n + 1 : n + 2])
        chosen += [every[:n], swapped, (n,), every[:n] + every[n + 1 :]]
    return [*dict.fromkeys(chosen), every]


# --- The disk -------------------------------------------------------------------------------------
@dataclass
class Handle:
    """An open file or folder."""

    node: Node
    append: bool
    offset: int = 0


class Disk:
    """What lies below one folder of a file system."""

    def __init__(self, path: Path, model: Model):
        self.path, self.model, self.root = str(path), model, Folder()
        self.operations = 0  # calls that changed the disk, or what is durable of it
        self._handles: dict[tuple[str, int], Handle] = {}

    # --- Calls ------------------------------------------------------------------------------------
    def run(self, call: Call) -> bool:
        """Does what a call did; whether that changed the disk, or what is durable of it."""
        if call.name == "open":
            changed = self._open(call)
        elif call.files:
            handle = self._handles.get((call.process, call.files[0][0]))
            changed = handle is not None and self._with_handle(call, handle)
        else:
            found = [self._find(path) for path in call.texts]
            changed = None not in found and self._with_names(call, found)
        self.operations += changed
        return changed

    def _find(self, path: bytes) -> tuple[Folder, str] | None:
        """The folder of a path, and the name in it; None for what is not on this disk."""
        text = os.fsdecode(path)
        if not text.startswith(self.path + "/"):
            return None
        *parents, name = text.removeprefix(self.path + "/").split("/")
        folder = self.root
        for parent in parents:
            folder = folder.now[parent]
        return folder, name

    def _open(self, call: Call) -> bool:
        handle = Handle(self.root, "O_APPEND" in call.flags)
        self._handles[call.process, call.result] = handle
        if call.texts[0] == os.fsencode(self.path):
            return False
        found = self._find(call.texts[0])
        if found is None:
            del self._handles[call.process, call.result]
            return False
        folder, name = found
        if created := name not in folder.now:
            folder.change(name, File())
        handle.node = folder.now[name]
        return ("O_TRUNC" in call.flags and handle.node.truncate(0)) or created

    def _with_handle(self, call: Call, handle: Handle) -> bool:
        node = handle.node
        match call.name:
            case "lseek":
                handle.offset = call.result
                return False
            case "write":
                offset = len(node.now) if handle.append else handle.offset
                node.write(offset, call.texts[0][: call.result])
                handle.offset = offset + call.result
            case "pwrite":
                node.write(call.numbers[-1], call.texts[0][: call.result])
            case "ftruncate":
                return node.truncate(call.numbers[-1])
            case "fsync" | "fdatasync":
                node.sync()
                if self.model.names:
                    self._sync_name(node)
        return True

    def _with_names(self, call: Call, found: list[tuple[Folder, str]]) -> bool:
        (folder, name), (target, new) = found[0], found[-1]
        match call.name:
            case "rename":
                assert folder is target, "only renames within a folder are modelled"
                target.change(new, folder.now[name], gone=name)
            case "link":
                target.change(new, folder.now[name])
            case "unlink" | "rmdir":
                folder.change(name, None)
            case "mkdir":
                folder.change(name, Folder())
            case "truncate":
                return folder.now[name].truncate(call.numbers[-1])
        return True

    def _sync_name(self, node: Node) -> None:
        for folder in self.root.below():
            if isinstance(folder, Folder) and node in folder.now.values():
                folder.sync_name(node)
                self._sync_name(folder)

    def start(self) -> None:
        """Makes everything durable, and counts from here."""
        self.operations = 0
        for node in self.root.below():
            node.sync()

    # --- Power failures ---------------------------------------------------------------------------
    def now(self) -> Tree:
        """What a running program sees."""
        return tuple(_tree(self.root, {node: node.now for node in self.root.below()}))

    def states(self) -> Iterator[tuple[Tree, str]]:
        """What may be here if the power fails now, and what of it that is, in words."""
        open_nodes = {node: path for node, path in self.root.below().items() if node.changes}
        for choice in _choices([list(node.variants(self.model)) for node in open_nodes]):
            chosen = list(zip(open_nodes.items(), choice, strict=True))
            values = {node: variant.value for (node, _), variant in chosen}
            words = [f"/{path}: {variant.words}" for (_, path), variant in chosen]
            yield tuple(_tree(self.root, values)), "; ".join(words)


def _tree(folder: Folder, values: dict, path: str = "") -> Iterator[tuple[str, bytes | None]]:
    for name, node in sorted(values.get(folder, folder.synced).items()):
        if isinstance(node, Folder):
            yield path + name, None
            yield from _tree(node, values, f"{path}{name}/")
        else:
            yield path + name, values.get(node, node.synced)


def _choices(options: list[list[Variant]]) -> Iterator[tuple[Variant, ...]]:
    """One variant of each: all combinations, or where they are many, some."""
    if math.prod(map(len, options)) <= COMBINATIONS:
        yield from itertools.product(*options)
        return
    yield from itertools.product(*[(variants[0], variants[-1]) for variants in options])
    for n, variants in enumerate(options):
        for end in (0, -1):
            others = [other[end] for other in options]
            yield from ((*others[:n], variant, *others[n + 1 :]) for variant in variants)
