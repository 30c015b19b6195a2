"""The files below a folder that fit a glob: each folder is looked into once, however often `**` stands in the glob."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from flowcraft.core.errors import UsageError
from flowcraft.core.globs import Route

MAX_GLOB = 4096  # characters: longer than any path
MAX_FILES = 10_000
MAX_STEPS = 2_000_000  # names times the parts of the glob that they may fit; some seconds

_CLOSED = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_HINT = "narrow it down"


class _Entry(NamedTuple):
    """What is in a folder; the two last ask the same of what a link leads to."""

    name: str
    is_link: bool
    is_folder: bool
    is_file: bool


def fitting(
    root: Path, glob: str, spend: Callable[[int], None] | None = None, *, most_steps: int = MAX_STEPS
) -> list[str]:
    """The ordinary files that fit, sorted; `root` is free of links. Raises UsageError.

    `**` goes through folders but not through links. Names that start with a dot fit only where the glob
    has such a part, too. What a link leads to counts if it is below `root`. `spend` is told the steps of each folder.
    """
    if len(glob) > MAX_GLOB:
        raise UsageError(f"'{glob[:60]}...' is longer than {MAX_GLOB} characters", hint="no path is as long")
    hidden = any(part.startswith(".") for part in glob.split("/") if part != ".")
    route = Route(glob)
    found: list[str] = []
    steps = 0
    folders = [("", route.start, False)]
    while folders:
        folder, at, linked = folders.pop()
        before = steps
        for entry in _entries(os.path.join(root, folder), route.names(at)):
            steps += at.bit_count()
            if steps > most_steps:
                raise UsageError(f"'{glob}' goes through too many files and folders", hint=_HINT)
            if entry.name.startswith(".") and not hidden:
                continue
            behind = route.into(at, entry.name, link=entry.is_link)
            path, by_link = folder + entry.name, linked or entry.is_link
            if entry.is_folder and route.goes_on(behind):
                folders.append((f"{path}/", behind, by_link))
            elif entry.is_file and route.is_end(behind) and not (by_link and _leaves(root, path)):
                found.append(path)
                if len(found) > MAX_FILES:
                    raise UsageError(f"'{glob}' matches more than {MAX_FILES} files", hint=_HINT)
        if spend:
            spend(steps - before)
    return sorted(found)


def _entries(folder: str, names: list[str] | None) -> Iterator[_Entry]:
    """What is in a folder, or those of the names that are; nothing where it is no folder or closed to us."""
    if names is not None:
        yield from (_named(folder, name) for name in names)
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                link = entry.is_symlink()
                yield _named(folder, entry.name) if link else _Entry(entry.name, link, entry.is_dir(), entry.is_file())
    except OSError as error:
        if error.errno not in _CLOSED:
            raise


def _named(folder: str, name: str) -> _Entry:
    place = os.path.join(folder, name)
    return _Entry(name, os.path.islink(place), os.path.isdir(place), os.path.isfile(place))


def _leaves(root: Path, path: str) -> bool:
    return root not in (root / path).resolve().parents
