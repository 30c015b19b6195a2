"""Writing the credential file: whole or not at all, 0600, never older than what it replaces.

The temporary file is made, with its space on the disk, before anything is spent on a new content.
"""

import contextlib
import errno
import json
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from flowcraft.core.disk import sync_folder
from flowcraft.core.errors import AuthError
from flowcraft.llm.oauth import credentials
from flowcraft.llm.oauth.credentials import MAX_BYTES, Credentials, CredentialsError

log = logging.getLogger(__name__)

_ROOM = 16_384  # a real file has under 1 KiB
_TICK_NS = 2_000_000  # running CLIs reload only if the mtime in (fractional) milliseconds has grown


class Replacement:
    """A new content for the file `real`, not yet in place; a context manager that cleans up.

    Raises CredentialsError where the folder or the disk would not take it.
    """

    def __init__(self, real: Path) -> None:
        self._real = real
        self._path = real.with_name(f".{real.name}.flowcraft-{secrets.token_hex(6)}.tmp")
        self._descriptor = -1

    def __enter__(self) -> "Replacement":
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._path, flags, 0o600)
            _reserve(self._descriptor)
        except OSError as error:
            self.__exit__(None, None, None)
            raise CredentialsError(
                f"the credential file {self._real} cannot be replaced: {error.strerror}",
                hint="make room and make its folder writable; the refresh token was not spent",
                sent=False,
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def commit(self, fields: Mapping[str, Any]) -> None:
        """Put `fields` in place of the file; raises OSError, and the old file is still whole then."""
        data = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False).encode()
        if len(data) > MAX_BYTES:
            raise OSError(errno.EFBIG, "the new content is too large")
        if os.pwrite(self._descriptor, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(self._descriptor, len(data))  # only now, so that the room stays ours
        old_ns = _mtime_ns(self._real)
        self._touch(max(os.fstat(self._descriptor).st_mtime_ns, old_ns + _TICK_NS))
        os.fsync(self._descriptor)
        os.replace(self._path, self._real)
        if _mtime_ns(self._real) <= old_ns:  # a file system that counts in seconds
            self._touch(old_ns + 2_000_000_000)
        _sync_folder(self._real.parent)

    def _touch(self, mtime_ns: int) -> None:
        os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))


def as_fields(old: Credentials | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the file after `new` values came in: the CLI's order, then all we do not know."""
    known = ("access_token", "token_type", "refresh_token", "resource_url", "expiry_date")
    merged = {**(old.fields if old else {}), **{name: value for name, value in new.items() if value is not None}}
    return {name: merged.pop(name) for name in known if name in merged} | merged


def recover(real: Path) -> None:
    """Finish the replacement of a process that was killed with the answer in its hands.

    Only for the holder of our own lock, to whom every temporary file is an orphan.
    """
    for left in _left(real):
        try:
            newer = credentials.read(left).mtime_ns > _mtime_ns(real) > 0
        except AuthError:  # not written to its end
            newer = False
        if newer:
            log.warning("%s was refreshed by a process that was killed before it could save it", real)
            os.replace(left, real)
            _sync_folder(real.parent)
        else:
            left.unlink(missing_ok=True)


def sweep(real: Path) -> None:
    """Remove what killed processes have left; only for the holder of our own lock."""
    for left in _left(real):
        left.unlink(missing_ok=True)


def _left(real: Path) -> list[Path]:
    return sorted(real.parent.glob(f".{real.name}.flowcraft-*.tmp"))


def _reserve(descriptor: int) -> None:
    # A write and a sync find the full disk that opening a file does not.
    if os.write(descriptor, b" " * _ROOM) != _ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def _mtime_ns(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _sync_folder(folder: Path) -> None:
    try:
        sync_folder(folder)
    except OSError as error:  # the file is in place
        log.debug("%s cannot be synced: %s", folder, error.strerror)
