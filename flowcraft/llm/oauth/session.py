"""A token that works, from a file that many threads, processes and the qwen-code CLI use at the same time.

Refresh tokens can be used once. So: one refresh per process, our lock, the CLI's lock, look again,
make room for the answer, ask, compare, replace. The file is never deleted or blanked; an answer that
cannot be saved is kept in memory, and a file that a CLI has deleted after our refresh is put back.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flowcraft.core.errors import ProviderError
from flowcraft.core.scope import Scope
from flowcraft.llm.oauth import credentials, resource
from flowcraft.llm.oauth.credentials import Credentials, CredentialsError, LoginRequired, NoCredentials, digest
from flowcraft.llm.oauth.flights import Flights
from flowcraft.llm.oauth.locks import OwnLock, PeerLock
from flowcraft.llm.oauth.service import Grant, OAuthService, RefusedGrant
from flowcraft.llm.oauth.storage import Replacement, as_fields, recover

log = logging.getLogger(__name__)

_FLIGHTS: Flights[Credentials] = Flights()
_LOGIN = "sign in again with `flowcraft auth login qwen`, or set DASHSCOPE_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long things may take, in seconds."""

    margin_s: float = 60.0  # refreshed so long before it expires
    request_s: float = 8.0  # below the 10 s after which old CLIs take a lock for stale
    section_s: float = 18.0  # all requests under the CLI's lock; it is kept fresh for 20 s
    retries: int = 2
    peer_s: float = 3.0  # a CLI without the lock that was faster still has to write its file
    again_s: float = 60.0  # between attempts to refresh ahead or to save
    ahead_s: float = 10.0  # for a refresh while the old token still works
    new_s: float = 300.0  # a token that is refused while so young is no reason to fetch another
    vanish_s: float = 30.0  # a file that is gone so soon after our refresh was deleted by a CLI that lost a race


@dataclass(frozen=True, slots=True, repr=False)
class _Issued:
    """The last login that this process got or put back.

    `until_s` is its end on the monotonic clock, `unsaved_over` the digest of the file it could not replace.
    """

    creds: Credentials
    until_s: float
    unsaved_over: str | None = None
    new_until_s: float = 0.0


class TokenSource:
    """Working tokens from one credential file; thread-safe, holds no lock between calls."""

    def __init__(
        self,
        path: Path,
        service: OAuthService,
        *,
        may_send_to: Callable[[str], bool] = lambda url: resource.base_url(url) is not None,
        patience: Patience = Patience(),
    ) -> None:
        self.path = Path(os.path.abspath(path.expanduser()))
        self._service = service
        self._may_send_to = may_send_to
        self._patience = patience
        self._cache: tuple[object, Credentials] | None = None
        self._issued: _Issued | None = None
        self._spent: set[str] = set()
        self._not_before_s = 0.0

    def current(self, scope: Scope) -> Credentials:
        """Credentials that have not expired, refreshed if need be.

        Raises NoCredentials, CredentialsError or LoginRequired, or ProviderError if the service is down
        and the old token has expired.
        """
        found = self._load()
        if found is None:
            return self._renewed(None, scope)
        if not found.alive():
            return self._renewed(None, scope)
        unsaved = self._issued is not None and self._issued.unsaved_over is not None
        if (self._usable(found) and not unsaved) or time.monotonic() < self._not_before_s:
            return found
        return self._renewed_ahead(found, scope)

    def after_refusal(self, refused: str, scope: Scope) -> Credentials:
        """Credentials with another access token than `refused`; raises as `current`."""
        found = self._load()
        return found if found and self._answers(found, refused) else self._renewed(refused, scope)

    def _renewed_ahead(self, found: Credentials, scope: Scope) -> Credentials:
        """What to use while `found` still works: something newer if that is to be had soon."""
        ahead = Scope(self._patience.ahead_s, parent=scope)
        try:
            return self._renewed(None, ahead)
        except ProviderError as error:
            self._not_before_s = time.monotonic() + max(self._patience.again_s, error.retry_after_s or 0.0)
            log.warning("the Qwen login could not be refreshed ahead of its end: %s", error)
            return found
        finally:
            ahead.close()

    def is_new(self, found: Credentials) -> bool:
        """Whether this process got the token from the service a few minutes ago at most."""
        issued = self._issued
        same = issued is not None and issued.creds.access_token == found.access_token
        return issued is not None and same and time.monotonic() < issued.new_until_s

    def _renewed(self, refused: str | None, scope: Scope) -> Credentials:
        key = os.path.realpath(self.path)
        found = _FLIGHTS.join(key, lambda own: self._renew(refused, own), scope)
        if found.access_token == refused:
            # The flight was under way for another reason and brought the very token that was refused.
            found = _FLIGHTS.join(key, lambda own: self._renew(refused, own), scope)
        return found

    def _renew(self, refused: str | None, scope: Scope) -> Credentials:
        real = Path(os.path.realpath(self.path))
        with OwnLock(real, scope) as own:
            peer = PeerLock(self.path.parent, own, scope)
            if own.exclusive:
                recover(real)
                peer.clear_orphan()
            found = self._under_lock(real, own)
            if self._answers(found, refused):
                return found
            with peer:
                found = credentials.read(self.path)
                if self._answers(found, refused):
                    return found
                scope.check()  # from here on the answer is waited for, whoever leaves
                return self._redeem(found, real, own, peer)

    def _under_lock(self, real: Path, own: OwnLock) -> Credentials:
        """What the file says, after putting back what only this process still has."""
        issued = self._issued
        try:
            found = credentials.read(self.path)
        except NoCredentials:
            issued = self._vanished(own)
            if issued is None:
                raise
            found = None
            log.warning("%s was deleted by another program after a refresh, putting it back", self.path)
        if issued and (found is None or found.digest == issued.unsaved_over):
            with Replacement(real) as place:
                return self._save(issued, found, place, own)
        assert found is not None
        return found

    def _vanished(self, own: OwnLock) -> _Issued | None:
        """What was in the file when it was deleted, if that was no decision of the user's."""
        try:
            young = time.time() - float(own.note.get("at", "0")) < self._patience.vanish_s
        except ValueError:
            return None
        known = [self._issued] if self._issued else []
        known += [_Issued(self._cache[1], math.inf)] if self._cache else []
        return next((one for one in known if young and own.note.get("saved") == digest(one.creds.refresh_token)), None)

    def _redeem(self, found: Credentials, real: Path, own: OwnLock, peer: PeerLock, again: bool = False) -> Credentials:
        if not found.refresh_token:
            why = f"the login in {self.path} has expired and has no refresh token"
            raise LoginRequired(why, hint=_LOGIN, sent=False)
        if digest(found.refresh_token) in self._spent:
            raise self._over("the sign-in service has refused this login before")
        with Replacement(real) as place:
            try:
                grant = self._ask(found)
            except RefusedGrant as error:
                self._spent.add(digest(found.refresh_token))
                other = self._of_peer(found)
                if other is None or again:
                    raise self._over(error.message) from None
            else:
                return self._keep(grant, found, real, place, own, peer)
        return other if self._answers(other, found.access_token) else self._redeem(other, real, own, peer, True)

    def _ask(self, found: Credentials) -> Grant:
        # Not the caller's scope: once sent, the answer is the only thing that keeps the login alive.
        until_s = time.monotonic() + self._patience.section_s
        for left in range(self._patience.retries, -1, -1):
            room_s = until_s - time.monotonic()
            try:
                return self._service.refresh(found.refresh_token, Scope(min(self._patience.request_s, room_s)))
            except ProviderError as error:
                wait_s = 0.5 if error.retry_after_s is None else error.retry_after_s
                again = error.retryable and (not error.sent or error.status is not None)
                if not again or not left or time.monotonic() + wait_s + 1.0 > until_s:
                    if error.sent and error.status is None:
                        raise self._lost() from error.with_traceback(None)
                    if not left and error.sent:
                        error.retryable = False  # the call would multiply our tries with its own
                    # Without its frames: their variables hold the token.
                    raise error.with_traceback(None) from error.__cause__
                time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _of_peer(self, found: Credentials) -> Credentials | None:
        """The file as a faster program has written it meanwhile, or None."""
        until_s = time.monotonic() + self._patience.peer_s
        while True:
            try:
                other = credentials.read(self.path)
            except CredentialsError:
                other = found
            except NoCredentials:  # a CLI that has lost as well deletes what it finds
                other = found
            if other.refresh_token != found.refresh_token:
                return other
            if time.monotonic() > until_s:
                return None
            time.sleep(0.02)

    def _keep(
        self, grant: Grant, spent: Credentials, real: Path, place: Replacement, own: OwnLock, peer: PeerLock
    ) -> Credentials:
        if grant.resource_url and not self._may_send_to(grant.resource_url):
            log.warning("the sign-in service named a resource_url that no token may go to; it is ignored")
            grant = replace(grant, resource_url=None)
        fields = as_fields(spent, grant.fields(time.time()))
        creds = replace(
            spent,
            access_token=grant.access_token,
            refresh_token=grant.refresh_token or spent.refresh_token,
            expires_at_s=fields["expiry_date"] / 1000,
            resource_url=fields.get("resource_url"),
            fields=fields,
        )
        now_s = time.monotonic()
        issued = _Issued(creds, now_s + grant.expires_in_s, spent.digest, now_s + self._patience.new_s)
        self._issued = issued
        self._not_before_s = 0.0
        saved = self._save(issued, spent, place, own)
        if not peer.held and self._issued.unsaved_over is None:
            self._watch(real, own)
        return saved

    def _save(self, issued: _Issued, spent: Credentials | None, place: Replacement, own: OwnLock) -> Credentials:
        """Put what was issued in the file, unless a newer login has come into it since `spent` was read."""
        creds = issued.creds
        try:
            there = credentials.read(self.path)
            if there.digest != (spent.digest if spent else ""):
                if spent is None or there.refresh_token not in (spent.refresh_token, creds.refresh_token):
                    return self._yielded(issued, there)
                creds = replace(creds, fields=as_fields(there, creds.fields))
        except NoCredentials:
            pass
        except CredentialsError as error:
            return self._not_saved(issued, spent, str(error))
        try:
            place.commit(creds.fields)
        except OSError as error:
            return self._not_saved(issued, spent, error.strerror or "unknown error")
        own.leave(saved=digest(creds.refresh_token), at=f"{time.time():.0f}")
        self._issued = replace(issued, creds=creds, unsaved_over=None)
        log.info("saved the refreshed Qwen login in %s", self.path)
        return creds

    def _yielded(self, issued: _Issued, there: Credentials) -> Credentials:
        log.warning("%s holds a newer login by now, keeping that one", self.path)
        self._issued = replace(issued, unsaved_over=None)
        return there if self._usable(there) else issued.creds

    def _not_saved(self, issued: _Issued, spent: Credentials | None, why: str) -> Credentials:
        log.warning("%s could not be saved (%s): the new login lives in this process only", self.path, why)
        self._issued = replace(issued, unsaved_over=spent.digest if spent else None)
        self._not_before_s = time.monotonic() + self._patience.again_s
        return issued.creds

    def _watch(self, real: Path, own: OwnLock) -> None:
        """Stay a moment where the CLI's lock was taken from us: a CLI that loses the race deletes the file."""
        until_s = time.monotonic() + min(2.0, self._patience.peer_s)
        while time.monotonic() < until_s:
            if not self.path.exists():
                self._under_lock(real, own)
            time.sleep(0.02)

    def _load(self) -> Credentials | None:
        """What the file says, read again only when it has changed; None if only this process knows better."""
        # Looked at before it is read: a file that changes in between is read again next time.
        seen, cache, issued = credentials.signature(self.path), self._cache, self._issued
        if cache is not None and cache[0] == seen and seen is not None:
            found = cache[1]
        else:
            try:
                found = credentials.read(self.path)
            except NoCredentials:
                if cache is None and issued is None:
                    raise
                return None
            self._cache = (seen, found)
        return issued.creds if issued and issued.unsaved_over == found.digest else found

    def _usable(self, found: Credentials) -> bool:
        """Not about to expire, by the wall clock and by the monotonic one where we know it."""
        issued = self._issued
        known = issued is not None and issued.creds.access_token == found.access_token
        if issued and known and time.monotonic() > issued.until_s - self._patience.margin_s:
            return False
        return found.alive(self._patience.margin_s)

    def _answers(self, found: Credentials, refused: str | None) -> bool:
        return found.access_token != refused and self._usable(found)

    def _over(self, why: str) -> LoginRequired:
        return LoginRequired(f"{why}; the login in {self.path} is over", hint=_LOGIN)

    def _lost(self) -> LoginRequired:
        return LoginRequired(
            f"the sign-in service got the refresh token of {self.path}, but its answer was lost",
            hint=f"try once more; if that is refused, {_LOGIN}",
        )
