"""Signing in and out: the credential file is made or removed because the user said so, under both locks."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from flowcraft.core.errors import ProviderError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.llm.oauth import credentials
from flowcraft.llm.oauth.credentials import Credentials, CredentialsError, LoginRequired, NoCredentials
from flowcraft.llm.oauth.locks import OwnLock, PeerLock
from flowcraft.llm.oauth.service import DeviceCode, Grant, OAuthService, Pending
from flowcraft.llm.oauth.storage import Replacement, as_fields, sweep

_LONGEST_INTERVAL_S = 10.0
_POLL_S = 15.0


def existing(path: Path) -> Credentials | None:
    """The credentials in `path`, None if there is no file; raises CredentialsError for a damaged one."""
    try:
        return credentials.read(path)
    except NoCredentials:
        return None


def wait_for_user(service: OAuthService, code: DeviceCode, scope: Scope) -> Grant:
    """Ask until the user has agreed in the browser; raises LoginRequired when the code has run out."""
    until_s, interval_s = time.monotonic() + code.expires_in_s, code.interval_s
    while time.monotonic() < until_s and not scope.expired:
        scope.wait(interval_s)
        try:
            return service.poll(code, Scope(_POLL_S))  # a yes that is on its way is not given up
        except Pending as pending:
            slower_s = min(_LONGEST_INTERVAL_S, interval_s * 1.5)
            interval_s = slower_s if pending.slow_down else code.interval_s
        except ProviderError as error:
            if not error.retryable:
                raise
    raise LoginRequired("nobody agreed to the sign-in in time", hint="run `flowcraft auth login qwen` again")


def save(path: Path, grant: Grant, scope: Scope) -> None:
    """Write a new login to `path`, making its folder; raises CredentialsError."""
    real = _made(path)
    with _locked(path, real, scope) as own, Replacement(real) as place:
        try:
            place.commit(as_fields(existing(path), grant.fields(time.time())))
        except OSError as error:
            why = f"cannot write {path}: {error.strerror}"
            raise CredentialsError(why, hint="make room and sign in again") from None
        own.leave(saved="")


def remove(path: Path, scope: Scope) -> None:
    """Delete the credential file, damaged or not; raises UsageError if there is none."""
    real = Path(os.path.realpath(path))
    if not os.path.lexists(real):
        raise UsageError(f"not signed in: there is no file {path}")
    with _locked(path, real, scope) as own:
        own.leave(saved="")  # so that no running process puts it back
        try:
            os.unlink(real)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UsageError(f"cannot delete {path}: {error.strerror}") from None


@contextlib.contextmanager
def _locked(path: Path, real: Path, scope: Scope) -> Iterator[OwnLock]:
    with OwnLock(real, scope) as own, PeerLock(path.parent, own, scope):
        if own.exclusive:
            sweep(real)
        yield own


def _made(path: Path) -> Path:
    real = Path(os.path.realpath(path))
    try:
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
    except OSError as error:
        raise CredentialsError(f"cannot make the folder {path.parent}: {error.strerror}", sent=False) from None
    return real
