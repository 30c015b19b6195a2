"""One process per run: a lock file that names its holder, free as soon as the holder ends, however it ends."""

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowcraft.core.errors import LedgerError, UsageError

NAMED_S = 0.3  # between getting the lock and having written who has it; machines are slow at times


class RunLock:
    """The lock of the run `run_id`; raises UsageError at once, naming the process, if another one has it."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.path = folder / f"{run_id}.lock"
        self._handle: int | None = None
        while self._handle is None:
            handle = self._opened()
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(handle)
                os.close(handle)
                raise _taken(run_id, holder) from None
            if self._is_current(handle):
                self._handle = handle
            else:  # the holder before us has removed the file between our open and our lock
                os.close(handle)
        self._write()

    def release(self) -> None:
        """Remove the file and let go; safe to call again."""
        if self._handle is not None:
            with suppress(OSError):
                self.path.unlink()
            os.close(self._handle)
            self._handle = None

    def _opened(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be written: {error.strerror}", hint="check the folder") from error

    def _is_current(self, handle: int) -> bool:
        with suppress(FileNotFoundError):
            return os.stat(self.path).st_ino == os.fstat(handle).st_ino
        return False

    def _write(self) -> None:
        assert self._handle is not None
        text = json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        try:
            os.truncate(self._handle, 0)
            os.pwrite(self._handle, text.encode(), 0)
        except OSError as error:
            self.release()
            raise LedgerError(f"{self.path} cannot be written: {error.strerror}", hint="check the disk") from error


def check_free(folder: Path, run_id: str) -> None:
    """Raise UsageError, naming the process, if one is at work on the run at this moment."""
    try:
        handle = os.open(folder / f"{run_id}.lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(run_id, _holder(handle)) from None
    finally:
        os.close(handle)


def is_running(folder: Path, run_id: str) -> bool:
    """Whether a process is at work on the run at this moment."""
    try:
        check_free(folder, run_id)
    except UsageError:
        return True
    return False


def _taken(run_id: str, holder: str) -> UsageError:
    return UsageError(
        f"run {run_id} is being worked on by another process{holder}",
        hint="wait for its end, or stop it; then: flowcraft resume " + run_id,
    )


def _holder(handle: int) -> str:
    """Who has the lock; waits a moment for one that has it but has not yet written its name."""
    until_s = time.monotonic() + NAMED_S
    while True:
        known = _named(handle)
        if (known and _is_alive(known["pid"])) or time.monotonic() >= until_s:
            return f": pid {known['pid']}, since {known['since']}" if known else ""
        time.sleep(0.005)


def _named(handle: int) -> dict[str, Any] | None:
    with suppress(ValueError):
        known = json.loads(os.pread(handle, 200, 0))
        if isinstance(known, dict) and isinstance(known.get("pid"), int) and known["pid"] > 0 and "since" in known:
            return known
    return None


def _is_alive(pid: int) -> bool:
    # A killed holder has left its name in the file, for the next one to write over.
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError, ValueError):
            return False
    return True
