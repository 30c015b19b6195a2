"""One POST and its answer over `requests`, at the level of its transport adapter.

With `connection`, `dial` and `failure` the only place that knows requests and urllib3. Every failure leaves here as one
of our errors; no URL query, header value or token is in any of them. Nothing is sent twice: a kept connection that
turns out to be dead after the request has left is a `stale` error, for those who count the requests to ask again.
"""

import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import requests
import urllib3
from requests.utils import should_bypass_proxies

from flowcraft.core.errors import AuthError, FlowcraftError, ProviderError, TransportError, UsageError
from flowcraft.core.masking import Unpicklable, Unshown
from flowcraft.core.scope import Scope
from flowcraft.core.values import Timeouts
from flowcraft.llm.wire.connection import Adapter, current
from flowcraft.llm.wire.deadline import Guard
from flowcraft.llm.wire.failure import FOREIGN, translated
from flowcraft.llm.wire.status import quoted, request_id

MAX_BODY_BYTES = 32 * 1024 * 1024
_PIECE = 65536
_SHORTEST = 6  # of a secret that is taken out of what a service says
_OPEN = ("accept", "anthropic-", "content-", "user-agent", "x-dashscope-", "x-request-id")  # headers without any
_PASSWORD = re.compile(r"://[^:]*:(.*)@")
_HEADER_VALUE = re.compile(r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")


# No blanks, no backslashes, no user or password: what is before the path is a host and nothing else.
_URL = re.compile(r"https?://[^\s\\@/?#]+(?:[/?][^\s\\#]*)?\Z", re.IGNORECASE)


class Wire(Unpicklable):
    """The connections of one provider, shared by its threads.

    `keep_alive` False has the service close each connection; `direct` ignores proxies. Proxies and the
    CA bundle are read from the environment once, here.
    """

    def __init__(self, *, keep_alive: bool = True, direct: bool = False, pool_maxsize: int = 256) -> None:
        self._headers = {"User-Agent": "flowcraft", "Content-Type": "application/json", "Accept-Encoding": "identity"}
        if not keep_alive:
            self._headers["Connection"] = "close"
        self._pool_maxsize = pool_maxsize
        self._proxies = {} if direct else getproxies()
        self._no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or None
        self._verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._targets: dict[str, _Target] = {}
        self._adapter: Adapter | None = None
        self._pid = os.getpid()
        # Kept connections made before this (monotonic clock) are not used: what is to be closed may still be there.
        self._trusted_s = 0.0 if keep_alive else math.inf

    def post(
        self, url: str, body: bytes, *, headers: Mapping[str, str], scope: Scope, timeouts: Timeouts, streamed: bool
    ) -> "Reply":
        """Send `body` with the secret `headers` of this call, and come back when the answer's headers are there.

        Raises Cancelled and ProviderError; any status is an answer. The reply must be closed.
        """
        target = self._target(url)
        request = target.prepared.copy()
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        request.headers["Accept"] = "text/event-stream" if streamed else "application/json"
        headers = Unshown(headers)
        del body  # it may hold a token as well
        _check(headers)
        request.headers.update(headers)
        scope.check()
        guard = Guard(scope, timeouts, streamed=streamed)
        guard.trusted_s = self._trusted_s
        try:
            raw = self._send(request, target, guard)
        except BaseException:
            guard.close()
            raise
        return Reply(raw, guard, target.host, (*_secrets(headers), *target.secrets))

    def close(self) -> None:
        """Close the idle connections; the next call opens new ones."""
        adapter, self._adapter = self._adapter, None
        if adapter is not None and self._pid == os.getpid():
            adapter.close()

    def _send(self, request: requests.PreparedRequest, target: "_Target", guard: Guard) -> urllib3.HTTPResponse:
        guard.left_s()  # raises if the time is over already
        current.guard = guard
        try:
            response = self._connections().send(
                request, stream=True, timeout=target.timeout, verify=self._verify, proxies=target.proxies
            )
            if guard.stopped:
                response.raw.close()
            guard.check()
        except FOREIGN as error:
            failure = translated(error, guard, target.host, target.secrets)
        except FlowcraftError as error:  # of the connection: without the frames below, whose variables hold the headers
            failure = error.with_traceback(None)
        else:
            raw: urllib3.HTTPResponse = response.raw
            return raw
        finally:
            current.guard = None
        if isinstance(failure, TransportError) and guard.broke_at_once:
            failure.stale = True
            # Others that were kept as long are most likely dead as well.
            self._trusted_s = max(self._trusted_s, time.monotonic())
        # Outside of the except block: the foreign error, which holds the request, is not kept as context.
        try:
            raise failure from failure.__cause__
        finally:
            del failure  # it holds this frame, and with it the connections

    def _connections(self) -> Adapter:
        if self._adapter is None or self._pid != os.getpid():
            # After a fork the connections belong to the parent; an answer of its own could come on them.
            self._adapter = Adapter(pool_connections=8, pool_maxsize=self._pool_maxsize, max_retries=0)
            self._pid = os.getpid()
        return self._adapter

    def _target(self, url: str) -> "_Target":
        target = self._targets.get(url)
        if target is None:
            target = self._targets[url] = _Target(url, self._headers, self._proxies, self._no_proxy)
        return target


class Reply:
    """An answer whose headers are there; `chunks` or `read` give its body, `close` ends it."""

    def __init__(self, raw: urllib3.HTTPResponse, guard: Guard, host: str, secrets: tuple[str, ...]) -> None:
        self._raw = raw
        self.guard = guard
        self.host = host
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.secrets = secrets
        self._ended = False

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def request_id(self) -> str | None:
        return request_id(self.headers, self.secrets)

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, decompressed, in pieces of at most 64 KiB.

        The size bounds what one piece of a gzip bomb can grow to, and what a lying chunk size can ask for.
        """
        raw, guard = self._raw, self.guard
        plain = not self.headers.get("content-encoding")
        try:
            # `stopped` is asked each time: what has arrived before can be read on, and decompressed it may be endless.
            read = guard.read
            if read is not None and plain:
                # Of an event that comes alone, urllib3 would take a third of the time only to hand it on.
                while not guard.stopped and (data := read(_PIECE)):
                    yield data
                guard.check()  # an end that we made ourselves is no end
                raw.release_conn()
            else:
                # Not `stream`, `read` or `read_chunked`: they wait until 64 KiB, or those of one chunk, are there.
                while not guard.stopped and (data := raw.read1(_PIECE, decode_content=True)):
                    yield data
                    if plain and raw.length_remaining == 0:  # saves a read that finds nothing
                        break
                guard.check()
        except FOREIGN as error:
            failure = translated(error, guard, self.host, self.secrets)
        else:
            self._ended = True
            return
        try:
            raise failure from failure.__cause__
        finally:
            del failure  # it holds this frame, and with it the answer

    def read(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """The whole body; raises TransportError if it is larger than `limit` bytes."""
        if self.headers.get("content-encoding"):
            limit //= 2  # nobody asked for compression, so this may be a bomb
        pieces, size = [], 0
        for piece in self.chunks():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                hint = "ask for less, or look at what answers there: no model writes so much"
                raise TransportError(f"the answer of {self.host} is larger than {limit} bytes", hint=hint)
        return b"".join(pieces)

    def opening(self, limit: int = _PIECE, seconds: float = 2.0) -> bytes:
        """The beginning of a body that explains an error: what comes soon, and no failure."""
        self.guard.limit("idle", seconds)
        pieces, size = [], 0
        try:
            for piece in self.chunks():
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    break
        except ProviderError:
            pass
        return b"".join(pieces)[:limit]

    def drain(self, chunks: Iterator[bytes], limit: int = _PIECE, seconds: float = 0.25) -> None:
        """Read on to the end if it is near, so that the connection can be used again."""
        self.guard.limit("idle", seconds)
        size = 0
        try:
            for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    return
        except FlowcraftError:
            pass

    def quote(self, text: str | bytes) -> str:
        """A text from the service, fit for an error message."""
        return quoted(text, self.secrets)

    def close(self) -> None:
        """End the answer; its connection is closed unless the body was read to the end."""
        self.guard.close()
        if not self._ended:
            self._raw.close()

    def __enter__(self) -> "Reply":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Target:
    """What does not change between the calls to one URL: built once, copied for each call."""

    def __init__(
        self, url: str, headers: Mapping[str, str], proxies: Mapping[str, str], no_proxy: str | None = None
    ) -> None:
        prepared = requests.PreparedRequest()
        try:
            if not _URL.match(url):
                raise ValueError("not an http(s) address, or parsers disagree about its host")
            prepared.prepare_method("POST")
            prepared.prepare_url(url, None)
            prepared.prepare_headers(headers)
            parts = urlsplit(prepared.url or "")
            self.host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        except ValueError:  # its text may hold the query
            raise UsageError(
                f"this is not the address of a service: {quoted(url.rpartition('@')[2].partition('?')[0])}",
                hint="base_url looks like https://api.openai.com/v1; keys belong into api_key_env",
            ) from None
        self.prepared = prepared
        self.proxies = {} if not proxies or should_bypass_proxies(url, no_proxy=no_proxy) else dict(proxies)
        self.secrets = _passwords(self.proxies.values())
        # Only a connection through a SOCKS proxy is not ours to break: let its socket time out.
        socks = any(proxy.lower().startswith("socks") for proxy in self.proxies.values())
        self.timeout = 60.0 if socks else None


def prepared_host(url: str) -> str:
    """The host (with its port, if it is named) that a request to `url` really goes to; raises UsageError."""
    return _Target(url, {}, {}).host


def _secrets(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The parts of the headers that must not be shown when a service repeats them."""
    values = (value for name, value in headers.items() if not name.lower().startswith(_OPEN))
    return tuple([word for value in values for word in value.split() if len(word) >= _SHORTEST and word != "Bearer"])


def _passwords(proxies: Iterable[str]) -> tuple[str, ...]:
    """The passwords in the addresses of proxies: a proxy may repeat them as well."""
    found = {match[1] for match in map(_PASSWORD.search, proxies) if match}
    return tuple(word for word in found | set(map(unquote, found)) if len(word) >= _SHORTEST)


def _check(headers: Unshown[str]) -> None:
    if all(map(_HEADER_VALUE.fullmatch, headers.values())):
        return
    bad = ", ".join(name for name in headers if not _HEADER_VALUE.fullmatch(headers[name]))
    raise AuthError(
        f"the value for the header {bad} holds a character that no header can hold",
        sent=False,
        hint="look for line ends or quotes in the key or in the variable it comes from",
    )
