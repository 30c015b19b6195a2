"""The two locks around a refresh: our own flock, then the lock file of the qwen-code CLI.

Ours is fair, ends with its holder and cannot be removed by others, but the CLI does not know it. The
CLI's is a file made with O_EXCL that every exiting CLI removes, whoever holds it, and that counts as
stale after 10 s (up to 0.15) or 35 s (later): so we touch it while we hold it and take over a foreign
one only after the longer time. Who holds our flock knows that any lock file of ours is an orphan.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from flowcraft.core.errors import DeadlineError, TransportError
from flowcraft.core.scope import Scope
from flowcraft.llm.oauth.credentials import CredentialsError

log = logging.getLogger(__name__)

STALE_S = 35.0  # qwen-code 0.21 and later; older ones say 10 s, but they find our lock touched
BEAT_S = 2.5  # well below the 10 s of the older ones
BEAT_FOR_S = 20.0  # a CLI gives up after 28.9 s of waiting and asks its user to sign in again
OWN_WAIT_S, PEER_WAIT_S = 30.0, 40.0
_POLL_S = 0.02
_NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class OwnLock:
    """FlowCraft's lock of one credential file, beside it (never on it: a replaced file is another inode).

    A context manager. Its content is a small note for the next holder. Where the file system has no
    flock, the CLI's lock has to do.
    """

    def __init__(self, real: Path, scope: Scope, wait_s: float = OWN_WAIT_S) -> None:
        self._path = real.with_name(real.name + ".flowcraft.lock")
        self._scope = scope
        self._wait_s = wait_s
        self._descriptor = -1
        self.exclusive = False

    def __enter__(self) -> "OwnLock":
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise _unmakable(self._path, error) from None
        try:
            self._wait()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Unlocked by name: a child that was forked meanwhile shares this descriptor and keeps it open.
        if self.exclusive:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)

    @property
    def note(self) -> Mapping[str, str]:
        """What the last holder has left: `lock` (text of its lock file), `saved` (digest of its refresh token)."""
        try:
            found = json.loads(os.pread(self._descriptor, 4096, 0))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def leave(self, **changes: str) -> None:
        """Change the note."""
        text = json.dumps({**self.note, **changes}).encode()
        with contextlib.suppress(OSError):  # a full disk: the note only saves others time
            os.pwrite(self._descriptor, text.ljust(256), 0)

    def _wait(self) -> None:
        until_s = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno not in _NO_FLOCK:
                    raise
                log.warning("%s: no file locks here (%s), using qwen-code's lock alone", self._path, error.strerror)
                return
            else:
                self.exclusive = True
                return
            _pause(self._scope, until_s, f"another FlowCraft process keeps {self._path} locked")


class PeerLock:
    """The lock file of the qwen-code CLI, `oauth_creds.lock`; a context manager.

    While held it is touched by a thread, for a limited time. A lock file that the note of `own` names
    is an orphan: its holder had `own` before us.
    """

    def __init__(self, folder: Path, own: OwnLock, scope: Scope, *, wait_s: float = PEER_WAIT_S) -> None:
        self._path = folder / "oauth_creds.lock"
        self._own = own
        self._scope = scope
        self._wait_s = wait_s
        self._text = str(uuid.uuid4())
        self._descriptor = -1
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._keep_fresh, name="flowcraft-qwen-lock", daemon=True)

    def __enter__(self) -> "PeerLock":
        self.clear_orphan()
        self._own.leave(lock=self._text)  # before the file is there, or a kill in between leaves a riddle
        until_s = time.monotonic() + self._wait_s
        watched = _Watched()
        while not self._made():
            if watched.stale(self._path):
                log.warning("taking over the stale lock %s", self._path)
                self._take_away(watched.is_same)
            else:
                _pause(self._scope, until_s, f"another program keeps {self._path} locked")
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._beat.join()
        os.close(self._descriptor)
        if self.held:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        else:
            log.debug("%s was removed or taken over by another program meanwhile", self._path)

    @property
    def held(self) -> bool:
        """Whether the lock file is still there and ours."""
        return _content(self._path) == self._text

    def clear_orphan(self) -> None:
        """Remove the lock file of a process that was killed while it held `own`, too."""
        orphan = self._own.note.get("lock") if self._own.exclusive else None
        if orphan and _content(self._path) == orphan:
            self._take_away(lambda aside: _content(aside) == orphan)

    def _made(self) -> bool:
        try:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        except OSError as error:
            raise _unmakable(self._path, error) from None
        os.write(self._descriptor, self._text.encode())
        return True

    def _take_away(self, is_it: Callable[[Path], bool]) -> None:
        # Between our look and the rename somebody may have made a new lock: then it goes back.
        aside = self._path.with_name(f"{self._path.name}.stale.{uuid.uuid4()}")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        if not is_it(aside):
            with contextlib.suppress(FileExistsError):
                os.link(aside, self._path)
        os.unlink(aside)

    def _keep_fresh(self) -> None:
        until_s = time.monotonic() + BEAT_FOR_S
        while not self._stop.wait(BEAT_S) and time.monotonic() < until_s:
            os.utime(self._descriptor)  # our inode, whatever lies under the name by now


class _Watched:
    """Tells a stale lock file also where the clock has jumped: nothing touched it for long while we looked."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._since_s = 0.0

    def stale(self, path: Path) -> bool:
        """Whether the lock's holder must be dead."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        seen = status.st_ino, status.st_mtime_ns
        if seen != self._seen:
            self._seen, self._since_s = seen, time.monotonic()
        return time.time() - status.st_mtime > STALE_S or time.monotonic() - self._since_s > STALE_S

    def is_same(self, path: Path) -> bool:
        """Whether `path` is the very file that was looked at, untouched."""
        status = os.stat(path)
        return (status.st_ino, status.st_mtime_ns) == self._seen


def _content(path: Path) -> str | None:
    try:
        with open(path, "rb") as lock:
            return lock.read(64).decode("ascii", "replace")
    except OSError:
        return None


def _pause(scope: Scope, until_s: float, why: str) -> None:
    if scope.expired:
        raise DeadlineError(f"no time left: {why}", sent=False, hint="raise the timeout of the call")
    if time.monotonic() >= until_s:
        raise TransportError(why, sent=False, hint="end the program that hangs, then try again")
    scope.wait(_POLL_S)


def _unmakable(path: Path, error: OSError) -> CredentialsError:
    return CredentialsError(
        f"cannot make {path}: {error.strerror}",
        hint="make the folder writable; the refresh token was not spent",
        sent=False,
    )
