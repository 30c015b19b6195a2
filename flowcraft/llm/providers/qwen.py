"""Qwen models at their vendor: with the login of the qwen-code CLI, or with an API key.

Only this module knows which of them is used, when a refused token is worth another one, and where each
may go. A key in the environment wins over a login, since the free tier of the login has ended.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from flowcraft.core.errors import AuthError, ProviderError, RateLimitError, TransportError, UsageError
from flowcraft.core.masking import Unshown
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta
from flowcraft.llm.formats import dashscope
from flowcraft.llm.formats.chat import Chat, Target
from flowcraft.llm.formats.cumulative import additions
from flowcraft.llm.formats.dashscope import CODING_KEY, DEFAULT_REGIONS, REGIONS, STUDIO_KEY, TOKEN_KEY
from flowcraft.llm.oauth import credentials, resource
from flowcraft.llm.oauth.credentials import Credentials, LoginRequired
from flowcraft.llm.oauth.session import TokenSource
from flowcraft.llm.oauth.wire import oauth_service
from flowcraft.llm.wire.http import prepared_host

_USE_A_KEY = f"use an API key: export {STUDIO_KEY}=... (Model Studio) or {CODING_KEY}=... (Coding Plan)"


@dataclass(frozen=True, slots=True)
class Access:
    """How a model is reached: with the key in `key_variable` at `base_url`, or with the login in `login`."""

    base_url: str | None
    key_variable: str | None = None
    login: Path | None = None


def access(config: ModelSettings, env: Mapping[str, str] = os.environ) -> Access:
    """Which credentials a qwen-code model uses, by its settings and the environment.

    `auth: oauth` and `auth: api-key` decide; else a named key or region; else a key that is set (a plan's
    first, it is paid already); else the login. Raises UsageError for settings that contradict each other.
    """
    options, env = config.options, Unshown(env)
    auth, region = options.get("auth"), options.get("region")
    if region is not None and region not in REGIONS:
        raise UsageError(f"there is no region '{region}'", hint=f"known: {', '.join(REGIONS)}")
    base_url = config.base_url or (REGIONS[region].base_url if region else None)
    variable = config.api_key_env or (REGIONS[region].key_variable if region else None)
    if variable is None and auth != "oauth":
        variable = next((name for name in DEFAULT_REGIONS if env.get(name, "").strip()), None)
    if variable is None and auth == "api-key":
        variable = STUDIO_KEY
    if variable is None or auth == "oauth":
        return Access(base_url, login=login_path(config))
    return Access(base_url or REGIONS[DEFAULT_REGIONS.get(variable, "beijing")].base_url, key_variable=variable)


def login_path(config: ModelSettings) -> Path:
    """Where the login of a qwen-code model is kept, used or not."""
    path = config.options.get("oauth_path")
    return Path(os.path.abspath(Path(path).expanduser())) if path else credentials.default_path()


class QwenCodeProvider(BaseLLMProvider):
    """`qwen3-coder-plus` and its kin. Settings besides the usual ones: `auth`, `region`, `oauth_path`,
    `oauth_base_url`, and `allowed_hosts`, further hosts that a login's `resource_url` may name.
    """

    provider_name: ClassVar[str] = "qwen-code"
    takes_images: ClassVar[bool] = True

    def __init__(self, config: ModelSettings | None = None) -> None:
        if config is None:
            config = ModelSettings(name="qwen3-coder-plus", provider="qwen-code", model="qwen3-coder-plus")
        super().__init__(config)
        self.access = access(config)
        if self.access.base_url and not resource.is_safe(self.access.base_url):
            raise UsageError(
                "base_url must be https, or http on this machine, for a Qwen model", hint="write https://..."
            )
        self._session = dashscope.Session()
        self._worked = ""
        self.at_list_price = self.access.key_variable not in (None, CODING_KEY, TOKEN_KEY)
        self._more_hosts = _hosts(config.options.get("allowed_hosts"))
        self._warned = False
        self._tokens = self._source(self.access.login) if self.access.login else None
        self._chat = Chat(self.provider_name, config, auth_hint=self._how_to_sign_in(), shape=self._shape)

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        """See the base class; with a login at most one refresh and one repetition per call."""
        try:
            if self._tokens is None:
                yield from self._answer(request, self._with_key)
            else:
                yield from self._with_login(request, self._tokens)
        except ProviderError as error:
            better = dashscope.meaning(error)
            if better is error:
                raise
            raise better from None

    def missing(self) -> str | None:
        """See the base class."""
        variable, key = self.access.key_variable, self._key()
        if variable and self._is_misplaced(key):
            return f"a key of the Coding Plan in ${variable} (they start with sk-sp-)"
        if variable:
            return None if key else f"${variable}"
        assert self.access.login is not None
        try:
            found = credentials.read(self.access.login)
        except ProviderError as error:
            return f"a login or an API key ({error.message})"
        try:
            self.service(found)
        except ProviderError as error:
            return f"allowed_hosts or base_url ({error.message})"
        return None if found.alive() or found.refresh_token else "a new login (`flowcraft auth login qwen`)"

    def service(self, found: Credentials) -> str:
        """The base URL to which the token goes: the one of the settings, else the login's, if that is allowed.

        Else the vendor's own, if the vendor has given the token; raises AuthError for a private service's.
        """
        base_url = self.access.base_url or self._named(found)
        if base_url is None and self.config.options.get("oauth_base_url"):
            raise AuthError(
                "the login names no service that its token may go to",
                sent=False,
                hint="add its host to allowed_hosts of the model, or set base_url",
            )
        return (base_url or resource.DEFAULT).rstrip("/")

    def close(self) -> None:
        """Close the kept connections; a later call opens new ones."""
        self._chat.close()

    def _with_login(self, request: ChatRequest, tokens: TokenSource) -> Iterator[Delta]:
        found = tokens.current(request.scope)
        try:
            yield from self._with_token(request, found)
            return
        except AuthError as error:
            if not _is_refusal(error):
                raise
            # The ended service hands out tokens and refuses them all: one that never worked is not replaced.
            if tokens.is_new(found) and found.access_token != self._worked:
                raise _ended(error) from None
        found = tokens.after_refusal(found.access_token, request.scope)
        try:
            yield from self._with_token(request, found)
        except AuthError as error:
            raise (_ended(error) if _is_refusal(error) else error) from None

    def _with_token(self, request: ChatRequest, found: Credentials) -> Iterator[Delta]:
        for delta in self._answer(request, lambda: self._target(found)):
            self._worked = found.access_token
            yield delta

    def _answer(self, request: ChatRequest, target: Callable[[], Target]) -> Iterator[Delta]:
        if dashscope.is_own_host(self.access.base_url or resource.DEFAULT) or self._tokens is not None:
            request = replace(request, params={"metadata": self._session.metadata(), **request.params})
        arrived: list[str] = []
        try:
            deltas = self._chat.deltas(request, target)
            for delta in additions(deltas) if request.stream else deltas:
                if delta.finish_reason == "error_finish":
                    raise _failed_inside(delta.content, bool(arrived))
                arrived.append(delta.content)
                yield delta
        except ProviderError as error:
            error.partial_text = "".join(arrived)  # the wire has counted a stream that repeats itself as it came
            raise

    def _with_key(self) -> Target:
        access = self.access
        key, url = self._key(), f"{str(access.base_url).rstrip('/')}/chat/completions"
        if not key:
            raise AuthError(
                f"there is no API key: the environment variable {access.key_variable} is not set",
                sent=False,
                hint=self._how_to_sign_in(),
            )
        if self._is_misplaced(key):
            raise AuthError(
                f"the key in {CODING_KEY} is not one of the Coding Plan, they start with sk-sp-",
                sent=False,
                hint=f"a key of Model Studio belongs into {STUDIO_KEY}",
            )
        own = dashscope.headers("openai") if dashscope.is_own_host(url) else {}
        return url, {**own, "Authorization": f"Bearer {key}"}

    def _target(self, found: Credentials) -> Target:
        base_url = self.service(found)
        if found.resource_url and not (self.access.base_url or self._named(found) or self._warned):
            self._warned = True
            resource.warn_refused()
        url = f"{base_url}/chat/completions"
        if prepared_host(url) != resource.host_of(base_url):
            why = "the address of the service is ambiguous, so no token goes there"
            raise AuthError(why, sent=False, hint="set base_url of the model")
        return url, {**dashscope.headers("qwen-oauth"), "Authorization": f"Bearer {found.access_token}"}

    def _named(self, found: Credentials) -> str | None:
        return resource.base_url(found.resource_url, self._more_hosts) if found.resource_url else None

    def _shape(self, body: dict[str, Any]) -> None:
        if self._tokens is not None or dashscope.is_own_host(str(self.access.base_url)):
            dashscope.shape(body, needs_system=self._tokens is not None)

    def _source(self, path: Path) -> TokenSource:
        service = oauth_service(self.config.options.get("oauth_base_url"))
        return TokenSource(path, service, may_send_to=lambda url: resource.base_url(url, self._more_hosts) is not None)

    def _is_misplaced(self, key: str) -> bool:
        return self.access.key_variable == CODING_KEY and bool(key) and not key.startswith("sk-sp-")

    def _key(self) -> str:
        return os.environ.get(self.access.key_variable or "", "").strip()

    def _how_to_sign_in(self) -> str:
        if self.access.key_variable:
            return f"export {self.access.key_variable}=... with a valid key; keys are bound to a region (`region`)"
        return f"sign in with `flowcraft auth login qwen`, or {_USE_A_KEY}"


def _is_refusal(error: AuthError) -> bool:
    """Whether the service refused the token itself; 403 is a spent quota as often as anything else."""
    refused = error.sent and not isinstance(error, LoginRequired) and error.status in (401, None)
    return refused and not error.partial_text


def _ended(error: AuthError) -> AuthError:
    return AuthError(
        f"the service refuses a token that was just given out ({error.message}); "
        "Qwen has ended its free tier for logins on 2026-04-15",
        provider=error.provider,
        model=error.model,
        status=error.status or 401,
        request_id=error.request_id,
        hint=_USE_A_KEY,
    )


def _failed_inside(said: str, begun: bool) -> ProviderError:
    limited = "limit" in said.lower() or "quota" in said.lower() or "throttl" in said.lower()
    kind = RateLimitError if limited else TransportError
    text = " ".join(said.split())[:200] or "it gave no reason"
    return kind(f"the service broke off its answer: {text}", retryable=not begun, hint="ask again")


def _hosts(value: object) -> tuple[str, ...]:
    hosts = [value] if isinstance(value, str) else [str(item) for item in value or ()]  # type: ignore[attr-defined]
    for host in hosts:
        if not resource.is_host(host):
            raise UsageError(
                f"allowed_hosts: '{host}' is no host", hint="write a whole name in lower case, such as qwen.example.com"
            )
    return tuple(hosts)
