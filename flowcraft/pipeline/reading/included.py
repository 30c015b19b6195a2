"""Files that a pipeline names by `{file: path}`: relative to the pipeline file, in its folder or below."""

import os
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from flowcraft.core.document import MAX_BYTES, shown
from flowcraft.core.globs import escapes
from flowcraft.core.problems import Problem, nearest

MAX_SEARCHED = 2000


class Unusable(Exception):
    """A named file that cannot be used; the code and hint of the problem."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of plain text, in which problems can be marked."""

    file: str
    text: str

    def problem(
        self, offset: int, width: int, message: str, *, code: str, hint: str | None = None, severity: str = "error"
    ) -> Problem:
        """The problem at the place `offset`."""
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        source = self.text[start : end if end >= 0 else len(self.text)].rstrip("\r")
        return Problem(
            file=self.file,
            line=self.text.count("\n", 0, offset) + 1,
            column=offset - start + 1,
            code=code,
            message=message,
            hint=hint,
            source=source,
            width=max(1, min(width, len(source) - (offset - start))),
            severity=severity,
        )


def is_guarded(name: str) -> bool:
    """Whether a path is git's or FlowCraft's own: a hook written there would run as a program.

    Some file systems do not tell upper case from lower.
    """
    return any(part.casefold() in (".git", ".flowcraft") for part in PurePosixPath(name).parts)


def located(folder: Path, name: str) -> Path:
    """The path of a named file; raises Unusable if it leaves the folder or is no file."""
    inside = "files of a pipeline are in its folder or below"
    if escapes(name):
        raise Unusable("FC131", f"{name} is outside the folder of the pipeline", inside)
    root = folder.resolve()
    try:
        place = (root / name).resolve()
        there = place.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise Unusable("FC130", f"{name[:80]} is not a path that can be used") from error
    if place != root and root not in place.parents:
        raise Unusable("FC131", f"{name} is a link to {place}, outside the folder of the pipeline", inside)
    if not there:
        close = nearest(name, _files(root))
        raise Unusable(
            "FC130",
            f"no file {name}",
            f"did you mean {close}?" if close else "paths start at the folder of the pipeline file",
        )
    if not place.is_file():
        raise _not_ordinary(name)
    return place


def read(place: Path, name: str) -> TextFile:
    """The text of a file that `located` has found; raises Unusable."""
    try:
        data = _content(place)
    except OSError as error:
        raise Unusable("FC130", f"{name} cannot be read: {error.strerror}", "name an ordinary file") from error
    if data is None:
        raise _not_ordinary(name)
    if len(data) > MAX_BYTES:
        raise Unusable("FC130", f"{name} is larger than {MAX_BYTES >> 20} MiB", "use a part of it")
    try:
        return TextFile(shown(place), data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise Unusable("FC130", f"{name} is not text in UTF-8 (byte {error.start})", "save it as UTF-8") from error


def _not_ordinary(name: str) -> Unusable:
    return Unusable("FC130", f"{name} is not an ordinary file", "name a file of text")


def _content(place: Path) -> bytes | None:
    """What is in the file, one byte more than is allowed at most; None if it is a folder, a pipe or the like."""
    # A FIFO without a writer would block an ordinary open for ever.
    handle = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    with open(handle, "rb") as file:
        return file.read(MAX_BYTES + 1)


def _files(root: Path) -> list[str]:
    found = (
        (Path(folder) / name).relative_to(root).as_posix()
        for folder, folders, names in os.walk(root)
        for name in (*names, *_without_hidden(folders))
    )
    return list(islice(found, MAX_SEARCHED))


def _without_hidden(folders: list[str]) -> list[str]:
    folders[:] = [name for name in folders if not name.startswith(".")]
    return []
