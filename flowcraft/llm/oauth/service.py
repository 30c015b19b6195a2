"""The sign-in service: what is asked of it and what its answers mean. No files, no locks.

Constants and forms are those of qwen-code 0.5 to 0.24; they have never changed.
"""

import base64
import hashlib
import json
import logging
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flowcraft.core.errors import AuthError, ProviderError, RateLimitError, TransportError, UsageError
from flowcraft.core.masking import Unpicklable
from flowcraft.core.scope import Scope
from flowcraft.llm.oauth.credentials import LoginRequired, usable_token
from flowcraft.llm.oauth.resource import is_safe
from flowcraft.llm.wire.status import quoted

log = logging.getLogger(__name__)

HOST = "https://chat.qwen.ai"
CLIENT_ID = "f0304373b74a44d2b584a3fb70ca9e56"  # public, of the qwen-code CLI
SCOPE = "openid profile email model.completion"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

USUAL_LIFE_S = 3600  # where the service does not say
SHORTEST_LIFE_S = 120  # twice the margin before expiry, so that there is at most one refresh a minute
_LONGEST_LIFE_S = 31_536_000


@dataclass(frozen=True, slots=True)
class FormAnswer:
    """An HTTP answer: status, headers (looked up in any case) and a bounded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    retry_after_s: float | None = None


Post = Callable[[str, bytes, Mapping[str, str], Scope], FormAnswer]
"""POST a form (already encoded) to a URL with headers; raises TransportError or DeadlineError."""


@dataclass(frozen=True, slots=True, repr=False)
class Grant(Unpicklable):
    """Tokens as the service gave them; `expires_in_s` is always sensible."""

    access_token: str
    refresh_token: str | None
    token_type: str
    expires_in_s: int
    resource_url: str | None

    def __repr__(self) -> str:
        return f"Grant(expires_in_s={self.expires_in_s}, tokens hidden)"

    def fields(self, now_s: float) -> dict[str, Any]:
        """What of it goes into the credential file."""
        return {
            "access_token": self.access_token,
            "token_type": self.token_type,
            "refresh_token": self.refresh_token,
            "resource_url": self.resource_url,
            "expiry_date": int((now_s + self.expires_in_s) * 1000),
        }


@dataclass(frozen=True, slots=True, repr=False)
class DeviceCode(Unpicklable):
    """What the user is to open and type, and what we ask with meanwhile."""

    user_code: str
    url: str
    expires_in_s: int
    interval_s: float
    device_code: str
    verifier: str


class RefusedGrant(AuthError):
    """The service does not take this refresh token."""


class Pending(Exception):
    """The user has not answered yet; `slow_down` if we ask too often."""

    def __init__(self, *, slow_down: bool = False) -> None:
        super().__init__()
        self.slow_down = slow_down


class OAuthService:
    """The endpoints below one base URL; raises UsageError for one that is neither https nor loopback."""

    def __init__(self, post: Post, base_url: str = HOST) -> None:
        if not is_safe(base_url):
            raise UsageError(
                f"oauth_base_url must be https, or http on this machine, not '{base_url}'",
                hint="write https://...",
            )
        self._post = post
        self._base_url = base_url.rstrip("/") + "/api/v1/oauth2"

    def refresh(self, refresh_token: str, scope: Scope) -> Grant:
        """Spend `refresh_token`. Raises RefusedGrant if the service will not take it, else ProviderError."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": CLIENT_ID}
        answer = self._send("token", form, scope)
        found = _object(answer) if answer.status == 200 or answer.body.strip() else {}
        if answer.status != 200 or "error" in found:
            reason = _reason(found, refresh_token)
            raise RefusedGrant(f"the sign-in service refused the refresh token{reason}", status=answer.status)
        return _grant(found, answer)

    def device_code(self, scope: Scope) -> DeviceCode:
        """Start a sign-in; raises ProviderError."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        form = {
            "client_id": CLIENT_ID,
            "scope": SCOPE,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        found = _object(self._send("device/code", form, scope, {"x-request-id": str(uuid.uuid4())}))
        code, url = found.get("device_code"), found.get("verification_uri_complete") or found.get("verification_uri")
        if not (isinstance(code, str) and code and isinstance(url, str) and is_safe(url.partition("?")[0])):
            raise AuthError(f"the sign-in service gave no code{_reason(found, verifier)}", hint="try again later")
        return DeviceCode(
            user_code=str(found.get("user_code") or ""),
            url=url,
            expires_in_s=_whole(found.get("expires_in"), 1, 3600) or 900,
            interval_s=_number(found.get("interval"), 0.1, 60.0) or 2.0,
            device_code=code,
            verifier=verifier,
        )

    def poll(self, code: DeviceCode, scope: Scope) -> Grant:
        """Ask whether the user has agreed; raises Pending, LoginRequired when it is over, else ProviderError."""
        form = {
            "grant_type": _DEVICE_GRANT,
            "client_id": CLIENT_ID,
            "device_code": code.device_code,
            "code_verifier": code.verifier,
        }
        answer = self._send("token", form, scope, known=(400, 401, 429))
        found = _object(answer)
        error = found.get("error")
        if error in ("authorization_pending", "slow_down") or (not error and found.get("status") == "pending"):
            raise Pending(slow_down=error == "slow_down")
        if answer.status == 429:
            raise _limited(answer)
        if error or answer.status != 200:
            hint = "start it again and agree in the browser"
            reason = _reason(found, code.device_code, code.verifier)
            raise LoginRequired(f"signing in did not work{reason}", hint=hint)
        return _grant(found, answer)

    def _send(
        self,
        path: str,
        form: Mapping[str, str],
        scope: Scope,
        headers: Mapping[str, str] | None = None,
        known: tuple[int, ...] = (400, 401),
    ) -> FormAnswer:
        # The service wants %20, not +.
        body = "&".join(f"{name}={quote(value, safe='')}" for name, value in form.items()).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        answer = self._post(f"{self._base_url}/{path}", body, {**kind, **(headers or {})}, scope)
        if answer.status == 200 or answer.status in known:
            return answer
        if answer.status == 429:
            raise _limited(answer)
        raise _failed(f"the sign-in service answered with status {answer.status}", answer)


def _object(answer: FormAnswer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    kind = "nothing" if not answer.body.strip() else "no JSON object (a firewall or login page?)"
    raise _failed(f"the sign-in service answered with {kind}", answer)


def _grant(found: Mapping[str, Any], answer: FormAnswer) -> Grant:
    token, refresh_token = found.get("access_token"), found.get("refresh_token")
    if not usable_token(token):
        raise _failed("the sign-in service gave no usable access token", answer)
    resource_url, token_type = found.get("resource_url"), found.get("token_type")
    return Grant(
        access_token=str(token),
        refresh_token=str(refresh_token) if usable_token(refresh_token) else None,
        token_type=token_type if isinstance(token_type, str) and token_type else "Bearer",
        expires_in_s=_life_s(found.get("expires_in")),
        resource_url=resource_url if isinstance(resource_url, str) and resource_url else None,
    )


def _life_s(value: object) -> int:
    found = _whole(value, 1, _LONGEST_LIFE_S)
    if found is None:
        log.warning("the sign-in service gave no sensible expires_in, taking %d s", USUAL_LIFE_S)
        return USUAL_LIFE_S
    return max(found, SHORTEST_LIFE_S)


def _whole(value: object, least: int, most: int) -> int | None:
    found = _number(value, least, most)
    return None if found is None else int(found)


def _number(value: object, least: float, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if least <= value <= most else None


def _reason(found: Mapping[str, Any], *secrets: str) -> str:
    # Only the two fields that the protocol has for this; a service may echo a token in others.
    words = [found.get(name) for name in ("error", "error_description")]
    text = ": ".join(word for word in words if isinstance(word, str) and word)
    return f": {quoted(text, secrets)[:200]}" if text else ""


def _limited(answer: FormAnswer) -> ProviderError:
    return RateLimitError(
        "the sign-in service is asked too often",
        status=429,
        retryable=True,
        retry_after_s=answer.retry_after_s,
        hint="wait a minute, then try again",
    )


def _failed(message: str, answer: FormAnswer) -> ProviderError:
    return TransportError(
        message,
        status=answer.status,
        retryable=answer.status >= 500,
        retry_after_s=answer.retry_after_s,
        hint="try again later; the login is unchanged",
    )
