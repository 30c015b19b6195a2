"""What a run itself has changed in files at which its stages had looked: no reason to run those again.

What has looked at files (a stage, a gate, a condition, the items of a loop) looks once more when the run has written
some of them, and at the end of a session; what it would be then is noted, as a hash. If a resume finds just that,
nobody else has changed anything since, and the result of the first look holds. Any edit between two sessions shows.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from flowcraft.core.disk import sync, sync_folder
from flowcraft.core.errors import FlowcraftError
from flowcraft.core.globs import is_plain, matches
from flowcraft.runner.store.fingerprint import digest
from flowcraft.runner.workspace import Workspace

MOST_AT_ONCE = 16  # looks that are repeated while the run goes on; where a file concerns more, the end is soon enough

FILE = "left.jsonl"

log = logging.getLogger(__name__)

Value = TypeVar("Value")


class Witness(Workspace):
    """A workspace that knows at which files somebody has looked; for one thread at a time."""

    _seen: "set[str] | None" = None

    def watched(self, look: Callable[[], Value]) -> tuple[Value, frozenset[str]]:
        """What `look` gives, with the paths and globs it has looked at."""
        self._seen = set()
        value = look()
        return value, frozenset(self._seen)

    def start(self, path: str, size: int) -> bytes:
        self._note(path)
        return super().start(path, size)

    def glob(self, pattern: str, spend: Callable[[int], None] | None = None) -> list[str]:
        self._note(pattern)
        return super().glob(pattern, spend)

    def _note(self, path: str) -> None:
        if self._seen is not None:
            self._seen.add(PurePosixPath(path).as_posix())


class _Left(NamedTuple):
    """What a look gives when the run has done its work: `now`, for what is `of` this hash, and `was` this value."""

    of: str
    now: str
    was: Any = None


class _Look(NamedTuple):
    """A look that can be repeated; `first` is what `again` gives if nothing has changed."""

    of: str
    first: str
    was: Any
    files: frozenset[str]
    again: Callable[[], str]


class Aftermath:
    """Kept in the folder of the run; a run without it takes its own changes for those of others."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._left = dict(self._read())
        self._looks: dict[str, _Look] = {}
        self._who: dict[str, set[str]] = {}
        self._at_work = False

    def is_own(self, key: str, of: str, now: str) -> bool:
        """Whether the result `of` this hash would be `now` because of the run itself."""
        left = self._left.get(key)
        return left is not None and (left.of, left.now) == (of, now)

    def looked(self, key: str, of: str, files: frozenset[str], again: Callable[[], str]) -> None:
        """Note where a stage or gate has looked; `of` is the hash of its result, `again` gives that of another."""
        if files:
            self._looks[key] = _Look(of, of, None, files, again)
            for file in files:
                self._who.setdefault(file, set()).add(key)

    def found(self, key: str, of: Callable[[], str], files: Witness, look: Callable[[], Value]) -> Value:
        """What `look` finds, or has found before if only the run itself has changed that since.

        `of` gives the hash of all besides files that it depends on.
        """
        try:
            value, seen = files.watched(look)
        except FlowcraftError as error:  # perhaps a file that the run has moved
            if not self.is_own(key, of(), digest(str(error))):
                raise
            lost: Value = self._left[key].was
            return lost
        if not seen:
            return value
        basis = of()
        if self.is_own(key, basis, digest(value)):
            value = self._left[key].was
        self._looks[key] = _Look(basis, digest(value), value, seen, lambda: digest(look()))
        return value

    def works(self) -> None:
        """Note that something runs that may change files."""
        self._at_work = True

    def changed(self, files: Iterable[str]) -> None:
        """Look again where the run has written; a kill may be next."""
        globs = [one for one in self._who if not is_plain(one)]
        concerned: set[str] = set()
        for file in files:
            self._at_work = True  # the files of a result from another run are written without any work
            concerned |= self._who.get(file, set())
            concerned.update(*(self._who[glob] for glob in globs if matches(glob, file)))
        if len(concerned) <= MOST_AT_ONCE:
            self._note(concerned)

    def settle(self, *, goes_on: bool = False) -> None:
        """Look everywhere again: the session ends or waits for a person, and who edits files then is not the run.

        If nothing was at work since the last time, nothing is the run's; `goes_on` says that something still is.
        """
        if self._at_work:
            self._note(self._looks)
        self._at_work = goes_on

    def _note(self, keys: Iterable[str]) -> None:
        lines = []
        for key in keys:
            look = self._looks[key]
            left = _Left(look.of, _given(look.again), look.was)
            if left != self._left.get(key) and (key in self._left or left.now != look.first):
                self._left[key] = left
                lines.append(json.dumps([key, *left]))
        if lines:
            self._write("".join(f"{line}\n" for line in lines))

    def _write(self, text: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(f"\n{text}")  # what a power cut has left of a line ends here
                file.flush()
                sync(file.fileno())
            sync_folder(self._file.parent)
        except OSError as error:
            log.warning("%s cannot be written (%s): a resume may run stages again", self._file, error.strerror)

    def _read(self) -> Iterator[tuple[str, _Left]]:
        try:
            lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                key, *left = json.loads(line)
                yield key, _Left(*left)
            except (ValueError, TypeError):
                continue


def _given(again: Callable[[], str]) -> str:
    try:
        return again()
    except FlowcraftError as error:  # a file that is gone
        return digest(str(error))
