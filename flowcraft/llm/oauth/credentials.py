"""The credential file that FlowCraft and the qwen-code CLI share: read, checked, and nothing else.

A file that is damaged or that others may write is refused with a typed error and never changed. No
token is ever part of a repr, a message or a log line.
"""

import errno
import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowcraft.core.errors import AuthError
from flowcraft.core.masking import Unpicklable

MAX_BYTES = 65_536  # a real file has under 1 KiB
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what an HTTP header can carry
_LOGIN = "sign in with `flowcraft auth login qwen`"
_MOVE_AWAY = f"move the file away and {_LOGIN}"


class CredentialsError(AuthError):
    """The credential file cannot be used as it is."""


class LoginRequired(AuthError):
    """There is no login any more (or none yet); only signing in again helps."""


class NoCredentials(LoginRequired):
    """There is no credential file."""


@dataclass(frozen=True, slots=True, repr=False)
class Credentials(Unpicklable):
    """One state of the file; `refresh_token` is "" and `expires_at_s` (wall clock) None where there is none.

    `fields` is the whole object with what we do not know, `digest` names the bytes it was read from.
    """

    access_token: str
    refresh_token: str
    expires_at_s: float | None
    resource_url: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    mtime_ns: int = 0

    def __repr__(self) -> str:
        return f"Credentials(expires_at_s={self.expires_at_s}, tokens hidden)"

    def alive(self, margin_s: float = 0.0) -> bool:
        """Whether the token is good for another `margin_s` seconds, as far as the file says."""
        return self.expires_at_s is None or time.time() < self.expires_at_s - margin_s


def default_path() -> Path:
    """Where the qwen-code CLI keeps its credentials: `$QWEN_HOME`, else `~/.qwen`."""
    folder = os.environ.get("QWEN_HOME") or "~/.qwen"
    return Path(os.path.abspath(Path(folder).expanduser())) / "oauth_creds.json"


def read(path: Path) -> Credentials:
    """The credentials in `path`; raises NoCredentials or CredentialsError, which name the file.

    Text that is no JSON is read once more: the CLI writes in place where the file is another user's.
    """
    data, status = _bytes(path)
    try:
        return _parsed(path, data, status)
    except CredentialsError:
        time.sleep(0.05)
        again, status = _bytes(path)
        return _parsed(path, again, status)


def signature(path: Path) -> tuple[int, int, int, int] | None:
    """What changes whenever the file does, for a look that costs one system call; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def usable_token(value: object) -> bool:
    """Whether `value` is a token that can be sent at all."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def digest(text: str | bytes) -> str:
    """A name for a secret that does not give it away."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def _bytes(path: Path) -> tuple[bytes, os.stat_result]:
    real = os.path.realpath(path)
    try:
        # Without O_NONBLOCK a FIFO under this name would hold us for ever.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        hint = f"{_LOGIN}, or set DASHSCOPE_API_KEY"
        raise NoCredentials(f"not signed in to Qwen: there is no file {path}", hint=hint, sent=False) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        status = os.fstat(descriptor)
        _check_status(path, status, os.stat(os.path.dirname(real)))
        return os.read(descriptor, MAX_BYTES + 1), status
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> CredentialsError:
    if error.errno == errno.ELOOP:
        return _refused(path, "is a loop of symbolic links", _MOVE_AWAY)
    if error.errno in (errno.EACCES, errno.EPERM):
        return _refused(path, "may not be read by you", f"run `chmod u+rw {path}`, or give it back to your user")
    return _refused(path, f"cannot be read: {error.strerror}", "check the path and the disk")


def _check_status(path: Path, status: os.stat_result, folder: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "is not a regular file", _MOVE_AWAY)
    if status.st_uid != os.geteuid():
        raise _refused(path, "belongs to another user", "run as that user, or sign in with a file of your own")
    if _others_may_write(status):
        raise _refused(path, "may be written by other users", f"run `chmod go-w {path}`")
    if _others_may_write(folder):
        raise _refused(path, "lies in a folder that other users may write to", f"run `chmod go-w {path.parent}`")


def _others_may_write(status: os.stat_result) -> bool:
    # Many Linux systems give each user a group of their own and a umask of 002; that group is nobody else.
    shared_group = status.st_gid != os.getegid() or os.getegid() != os.geteuid()
    sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    return bool(status.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if shared_group else 0))) and not sticky_folder


def _parsed(path: Path, data: bytes, status: os.stat_result) -> Credentials:
    fields = _object(path, data)
    if not usable_token(fields.get("access_token")):
        raise _refused(path, "has no usable access_token", _MOVE_AWAY)
    refresh_token, resource_url = fields.get("refresh_token"), fields.get("resource_url")
    return Credentials(
        access_token=fields["access_token"],
        refresh_token=refresh_token if isinstance(refresh_token, str) and usable_token(refresh_token) else "",
        expires_at_s=_seconds(fields.get("expiry_date")),
        resource_url=resource_url if isinstance(resource_url, str) and resource_url else None,
        fields=fields,
        digest=digest(data),
        mtime_ns=status.st_mtime_ns,
    )


def _object(path: Path, data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise _refused(path, f"is larger than {MAX_BYTES // 1024} KiB, so it is something else", _MOVE_AWAY)
    if not data.strip():
        raise _refused(path, "is empty", _MOVE_AWAY)
    if data.startswith(b"\xef\xbb\xbf"):
        raise _refused(path, "starts with a byte order mark", "save it as UTF-8 without BOM")
    try:
        found = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # the parser's own message may quote the text
        raise _refused(path, "is not JSON, or only a part of it", _MOVE_AWAY) from None
    if not isinstance(found, dict):
        raise _refused(path, "holds no JSON object", _MOVE_AWAY)
    return found


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _seconds(expiry_date: object) -> float | None:
    # The CLI writes null after an answer without expires_in; then only the service knows.
    if isinstance(expiry_date, bool) or not isinstance(expiry_date, (int, float)):
        return None
    try:
        return expiry_date / 1000 if math.isfinite(expiry_date) else None
    except OverflowError:
        return None


def _refused(path: Path, what: str, hint: str) -> CredentialsError:
    return CredentialsError(f"the credential file {path} {what}", hint=hint, sent=False)
