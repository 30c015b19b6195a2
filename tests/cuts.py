"""Power cuts: the states in which a disk can be found after one, from the recorded steps of a program.

Durable is what a sync has covered and nothing else: the content of a file by a sync of the file, its name by one of
the folder. Of the rest there survives, by the model,

prefix  what was done up to some moment after the last sync, in order, its last write torn at a sector
subset  of each file any of its sectors, of each folder its changes up to any moment
"""

import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from traced import Step

SECTOR = 512
MODELS = ("prefix", "subset")

Change = tuple[str, int, bytes]  # write, resize or touch; where or how much; what


@dataclass(slots=True)
class File:
    """Durable content, and the changes that no sync has covered."""

    content: bytearray = field(default_factory=bytearray)
    time_ns: int = 0
    changes: list[Change] = field(default_factory=list)

    def apply(self, change: Change) -> None:
        kind, at, data = change
        if kind == "touch":
            self.time_ns = at
        elif kind == "resize":
            del self.content[at:]
            self.content.extend(bytes(at - len(self.content)))
        else:
            self.content.extend(bytes(max(0, at + len(data) - len(self.content))))
            self.content[at : at + len(data)] = data


@dataclass(slots=True)
class Folder:
    """Durable names, and the changes that no sync has covered; one that renames changes two names at once."""

    names: "dict[str, File | Folder]" = field(default_factory=dict)
    changes: "list[dict[str, File | Folder | None]]" = field(default_factory=list)

    def apply(self, change: "dict[str, File | Folder | None]") -> None:
        for name, node in change.items():
            if node is None:
                self.names.pop(name, None)
            else:
                self.names[name] = node

    def now(self, name: str) -> "File | Folder | None":
        """What the running program finds under a name."""
        for change in reversed(self.changes):
            if name in change:
                return change[name]
        return self.names.get(name)


class Disk:
    """A folder as the disk holds it while a program works in it; starts as a copy of `origin`."""

    def __init__(self, origin: Path) -> None:
        self.root = _copied(origin)
        self._covered: dict[str, list[tuple[File | Folder, int]]] = {}

    def do(self, step: Step) -> None:
        """Carry out one step of the program."""
        if step.kind in ("said", "sent"):
            return
        if step.kind in ("begin", "end"):
            self._sync(step)
            return
        if step.kind in ("write", "resize", "touch"):
            node = self._node(step.path)
            if isinstance(node, File):  # else: of a file that was removed while it was open
                node.changes.append((step.kind, step.at, step.data))
            return
        folder, name = self._place(step.path)
        if step.kind == "make":
            if folder.now(name) is None:
                folder.changes.append({name: File()})
        elif step.kind == "folder":
            folder.changes.append({name: Folder()})
        elif step.kind == "remove":
            folder.changes.append({name: None})
        else:
            there, new = self._place(step.other)
            assert there is folder, "a rename from folder to folder is not simulated"
            folder.changes.append({name: None, new: folder.now(name)})

    def _sync(self, step: Step) -> None:
        node = self._node(step.path)
        waiting = self._covered.setdefault(step.path, [])
        if step.kind == "begin":
            if node is not None:
                waiting.append((node, len(node.changes)))
            return
        if not waiting:  # of a file that was removed while it was open
            return
        node, count = waiting.pop(0)
        _settle(node, count)
        for path, others in self._covered.items():  # syncs of the same that are still under way
            self._covered[path] = [(one, number - count if one is node else number) for one, number in others]

    def _node(self, path: str) -> "File | Folder | None":
        node: File | Folder | None = self.root
        for part in Path(path).parts:
            node = node.now(part) if isinstance(node, Folder) else None
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        folder = self._node(os.path.dirname(path) or ".")
        assert isinstance(folder, Folder), path
        return folder, os.path.basename(path)


def cut(origin: Path, steps: Sequence[Step], at: int, model: str, chance: random.Random, target: Path) -> None:
    """Make `target` what may be found if the power fails after the first `at` steps of a program."""
    disk = Disk(origin)
    if model == "subset":
        for step in steps[:at]:
            disk.do(step)
        _surviving(disk.root, chance)
    else:
        ends = [number for number, step in enumerate(steps[:at]) if step.kind == "end"]
        kept = chance.randint(ends[-1] + 1 if ends else 0, at)
        for step in steps[:kept]:
            disk.do(step)
        if kept < at and steps[kept].kind == "write":
            torn = steps[kept].data[: SECTOR * chance.randint(0, len(steps[kept].data) // SECTOR)]
            disk.do(Step("write", steps[kept].path, at=steps[kept].at, data=torn))
        _settled(disk.root)
    shutil.rmtree(target, ignore_errors=True)
    _laid_out(disk.root, target)


def _surviving(folder: Folder, chance: random.Random) -> None:
    _settle(folder, chance.choice((0, len(folder.changes), chance.randint(0, len(folder.changes)))))
    for node in folder.names.values():
        if isinstance(node, Folder):
            _surviving(node, chance)
            continue
        share = chance.choice((0.0, 0.5, 0.9, 1.0))
        changes, node.changes = node.changes, []
        for kind, at, data in changes:
            if kind == "write":
                for start, piece in _sectors(at, data):
                    if chance.random() < share:
                        node.apply((kind, start, piece))
            elif chance.random() < share:
                node.apply((kind, at, data))


def _sectors(at: int, data: bytes) -> list[tuple[int, bytes]]:
    edges = [at, *range((at // SECTOR + 1) * SECTOR, at + len(data), SECTOR), at + len(data)]
    return [(start, data[start - at : end - at]) for start, end in pairwise(edges)]


def _settled(folder: Folder) -> None:
    _settle(folder, len(folder.changes))
    for node in folder.names.values():
        if isinstance(node, Folder):
            _settled(node)
        else:
            _settle(node, len(node.changes))


def _settle(node: File | Folder, count: int) -> None:
    for change in node.changes[:count]:
        node.apply(change)  # type: ignore[arg-type]
    del node.changes[:count]


def _copied(origin: Path) -> Folder:
    found = Folder()
    for place in origin.iterdir():
        if place.is_dir():
            found.names[place.name] = _copied(place)
        else:
            found.names[place.name] = File(bytearray(place.read_bytes()), place.stat().st_mtime_ns)
    return found


def _laid_out(folder: Folder, target: Path) -> None:
    target.mkdir(mode=0o700)
    for name, node in folder.names.items():
        if isinstance(node, Folder):
            _laid_out(node, target / name)
            continue
        (target / name).write_bytes(node.content)
        (target / name).chmod(0o600)
        if node.time_ns:
            os.utime(target / name, ns=(node.time_ns, node.time_ns))
