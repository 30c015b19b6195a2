"""Paths of a run: everything a pipeline reads or writes by name stays below one folder.

A path is checked twice: as text (no `..`, not absolute), and as it is on disk (links are followed and must
lead back inside). Files are written beside their place and then moved there, so that nobody ever
sees half of one.
"""

import os
import secrets
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from flowcraft.core.disk import sync, sync_folder
from flowcraft.core.errors import StageError, UsageError
from flowcraft.core.globs import mistake
from flowcraft.pipeline.reading.included import is_guarded
from flowcraft.runner.finding import fitting

MAX_READ_BYTES = 8 * 1024 * 1024  # more text than any model takes

_UNSEEN = ("Cc", "Cf")  # would change what a terminal shows; some file systems leave them out of names
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Workspace:
    """The folder a run works in; `root` is absolute and free of links. `tag` marks its half-written files."""

    def __init__(self, root: str | os.PathLike[str], *, tag: str = "") -> None:
        self.root = Path(root).resolve()
        self._tag = tag
        if not self.root.is_dir():
            raise UsageError(f"the workspace {self.root} is not a folder", hint="name an existing folder")

    def inside(self, path: str) -> Path:
        """Where `path` is; raises UsageError if it leaves the workspace, by its text or through a link."""
        checked = _checked(path)
        try:
            place = (self.root / checked).resolve()
        except (OSError, RuntimeError) as error:
            raise UsageError(f"'{path}' cannot be followed: {error}", hint="look for a loop of links") from error
        if place != self.root and self.root not in place.parents:
            raise UsageError(f"'{path}' leads out of the workspace, to {place}", hint="use a path inside it")
        return place

    def has(self, path: str) -> bool:
        """Whether there is something under this path, in the workspace."""
        try:
            return self.inside(path).exists()
        except (OSError, UsageError):
            return False

    def folder(self, path: str) -> Path:
        """An existing folder of the workspace."""
        place = self.inside(path)
        if not place.is_dir():
            raise UsageError(f"there is no folder '{path}' in {self.root}", hint="make it in a stage before this one")
        return place

    def target(self, path: str) -> Path:
        """Where a file may be written; its folders need not exist yet."""
        place = self.inside(path)
        if place == self.root or place.is_dir():
            raise UsageError(f"'{path}' is a folder", hint="name a file")
        relative = place.relative_to(self.root)
        if any(unicodedata.category(letter) in _UNSEEN for letter in str(relative)):
            raise UsageError(f"{path!r} has a character that does not show", hint="use a name without it")
        if is_guarded(str(relative)):
            raise UsageError(f"'{path}' may not be written", hint="what git and FlowCraft keep is theirs")
        if file := next((above for above in relative.parents if (self.root / above).is_file()), None):
            raise UsageError(f"'{path}' cannot be written: {file} is a file", hint="use another path")
        return place

    def write(self, place: Path, text: str) -> str:
        """Put `text` into the file `place` (one that `target` has given), at once or not at all."""
        return self.write_bytes(place, text.encode("utf-8", "replace"))

    def write_bytes(self, place: Path, data: bytes) -> str:
        """Put `data` into the file `place`, at once or not at all."""
        relative = place.relative_to(self.root)
        try:
            with self._open_folder(relative.parent) as folder:
                _replace(folder, place.name, data, self._tag)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StageError(
                f"'{relative}' cannot be written: {reason}", hint="check the folder and the disk"
            ) from error
        return relative.as_posix()

    def remove(self, place: Path) -> None:
        """Delete the file `place`, if there is one, for good; raises OSError."""
        with suppress(FileNotFoundError):
            place.unlink()
            sync_folder(place.parent)

    def read(self, path: str) -> str:
        """The text of a file; what `read()` in a template does."""
        data = self.start(path, MAX_READ_BYTES + 1)
        if len(data) > MAX_READ_BYTES:
            raise UsageError(f"'{path}' is larger than {MAX_READ_BYTES} bytes", hint="give the model a part of it")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(f"'{path}' is not text in UTF-8 (byte {error.start})", hint="convert it first") from error

    def start(self, path: str, size: int) -> bytes:
        """The first `size` bytes of an ordinary file; raises UsageError."""
        place = self.inside(path)
        try:
            # A FIFO without a writer would block an ordinary open for ever.
            handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                kind = os.fstat(handle).st_mode
                if stat.S_ISREG(kind):
                    with open(handle, "rb", closefd=False) as file:
                        return file.read(size)
            finally:
                os.close(handle)
        except OSError as error:
            raise UsageError(f"'{path}' cannot be read: {error.strerror}", hint="check the path") from error
        if stat.S_ISDIR(kind):
            raise UsageError(
                f"'{path}' is a folder", hint=f"name a file; '{path.rstrip('/')}/**' means all files in it"
            )
        raise UsageError(f"'{path}' is not a file", hint="name an ordinary file")

    def glob(self, pattern: str, spend: Callable[[int], None] | None = None) -> list[str]:
        """The files that match, sorted; what `glob()` in a template does.

        `**` goes through folders but not through links. Names that start with a dot match only where
        the pattern has a dot, too.
        """
        _checked(pattern)
        if wrong := mistake(pattern):
            raise UsageError(f"'{pattern}' {wrong[0]}", hint=wrong[1])
        return fitting(self.root, pattern, spend)

    @contextmanager
    def _open_folder(self, relative: Path) -> Iterator[int]:
        """A handle of a folder, made where it is missing; never through a link that was put there meanwhile."""
        handle = os.open(self.root, _FOLDER)
        try:
            for part in relative.parts:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=handle)
                    sync_folder(handle)
                below = os.open(part, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)


def _checked(path: str) -> PurePosixPath:
    if not path or "\0" in path or "\n" in path:
        raise UsageError(f"{path!r} is no path", hint="use a path relative to the workspace")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise UsageError(f"'{path}' leaves the workspace", hint="use a path relative to the workspace, without '..'")
    if any(len(os.fsencode(part)) > 255 for part in pure.parts):
        raise UsageError(f"'{path[:60]}...' has a name longer than 255 bytes", hint="use a shorter name")
    return pure


def _mode(folder: int, name: str) -> int:
    # A file that is written again keeps its permissions; a new one gets those the umask leaves.
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return -1


def _replace(folder: int, name: str, data: bytes, tag: str) -> None:
    temporary = f".flowcraft-{tag}-{secrets.token_hex(4)}.tmp"
    try:
        _write_new(folder, temporary, data, _mode(folder, name))
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _remove(folder, temporary)
        raise
    sync_folder(folder)


def _write_new(folder: int, name: str, data: bytes, mode: int) -> None:
    handle = os.open(name, _NEW_FILE, 0o666, dir_fd=folder)
    with open(handle, "wb") as file:
        if mode >= 0:
            os.fchmod(handle, mode)
        file.write(data)
        file.flush()
        sync(handle)


def _remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
