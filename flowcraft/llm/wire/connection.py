"""urllib3 connections that another thread can break in every phase: look-up, connect, TLS, send, read.

Part of `http`, the only one that imports it. A connection learns from `current.guard` (one per
thread) on whose behalf it works, and tells it what it has seen; only the guard that owns it can break it.
"""

import contextlib
import http.client
import socket
import threading
import time
from typing import Any

import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from flowcraft.llm.wire.chunked import Chunks
from flowcraft.llm.wire.deadline import Guard
from flowcraft.llm.wire.dial import open_socket
from flowcraft.llm.wire.head import take_plain

_WITHOUT_BODY = (101, 204, 304)
_TOGETHER = 65536  # the largest request whose head is copied together with its body


class _Current(threading.local):
    guard: Guard | None = None


current = _Current()


class _Answer(http.client.HTTPResponse):
    """Notes when its first byte is there: until then a dead old connection may be replaced.

    Passes over all interim answers, not only "100 Continue", and reads chunks as they come: urllib3 waits until the
    whole of one is there, and an event with it.
    """

    _chunks: Chunks | None = None
    _guard: Guard | None = None
    _measured = False  # whether what has come with the head is known to be no more than the body

    def begin(self) -> None:
        guard = self._guard = current.guard
        if guard is not None:
            seen = self.fp.peek(1)
            guard.answered = guard.answered or bool(seen)
            taken = take_plain(self, seen)
            if taken:
                guard.read = self.read1 if self.chunked or self.length else None
                self._measure(len(seen) - taken)
                return
        super().begin()
        while self.status // 100 == 1 and self.status != http.client.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment]  # so that it begins again
            super().begin()
        self._check_head()
        if self.status in _WITHOUT_BODY:  # by rule, and against what the head may say; some services send one
            self.chunked, self.length = False, 0
        if self.length == 0:
            self._spoil()

    def _check_head(self) -> None:
        """Refuse what `http.client` reads in another way than it was meant: where would such an answer end?"""
        if str(self.headers.get_payload()).endswith("\n"):  # to it, what follows a line without colon is an e-mail
            raise ValueError("a line of its head is no header")
        coding = ", ".join(self.headers.get_all("transfer-encoding", ())).strip(" \t")
        if coding.lower() == "chunked":
            # With a blank behind it, which is allowed, http.client would hand out the chunks with their sizes.
            self.chunked, self.chunk_left, self.length = True, None, None
        elif coding.lower() not in ("", "identity"):
            raise ValueError("its transfer coding is not chunked")

    def read1(self, n: int = -1) -> bytes:
        """What of the body is there, but at least a byte, unless it has ended."""
        if self.isclosed():
            return b""
        if self.chunked:
            return self._of_chunks(n)
        if not self._measured and self.length:
            self._measure(len(self.fp.peek(1)))
        piece = super().read1(n)
        if self.length == 0:
            self.close()
        elif self.length and not piece:
            raise http.client.IncompleteRead(piece, self.length)
        return piece

    def _of_chunks(self, n: int) -> bytes:
        if self._chunks is None:
            self._chunks = Chunks()
        while True:
            block = self.fp.read1(n)
            if not block and not self._chunks.over:
                raise http.client.IncompleteRead(b"")
            body = self._chunks.body(block)
            if self._chunks.ended or not block:
                if self._chunks.surplus:
                    self._spoil()
                self.close()
                return body
            if body:
                return body

    def _measure(self, come: int) -> None:
        # What comes later is not read beyond the end, and seen by whoever wants to use the connection next.
        self._measured = True
        if self.length is not None and come > self.length:
            self._spoil()

    def _spoil(self) -> None:
        if self._guard is not None:
            self._guard.spoiled = True


class _Breakable(HTTPConnection):
    response_class = _Answer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.debuglevel = 0  # where it is turned on for all connections, http.client would print the token
        self._owner: Guard | None = None
        self._made_s = 0.0
        self._unsent: list[bytes] | None = None  # what was written of a request that is being made
        self._owner_lock = threading.Lock()
        self._live: Any = None  # also after close(), when an answer is still being read from it

    @property
    def is_connected(self) -> bool:
        """urllib3 asks this before it takes a connection from the pool."""
        guard = current.guard
        if (self._owner is not None and self._owner.spoiled) or (guard is not None and self._made_s < guard.trusted_s):
            return False
        return super().is_connected

    def connect(self) -> None:
        guard = current.guard
        if guard is not None:
            self._own(guard)
        self._made_s = time.monotonic()
        try:
            super().connect()
        finally:
            self._keep(self.sock)

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        guard = current.guard
        if guard is not None:
            if self.sock is None:
                self.connect()
            else:
                guard.reused = self._owner is not guard
                self._own(guard)
            guard.sending()
        self._unsent = []
        try:
            super().request(method, url, *args, **kwargs)
        finally:
            pieces, self._unsent = self._unsent, None
        for piece in pieces if sum(map(len, pieces)) > _TOGETHER else (b"".join(pieces),):
            self.send(piece)

    def send(self, data: Any) -> None:
        """Send at once, except head and body of a request: they leave together, in one packet if they fit."""
        if self._unsent is None:
            super().send(data)
        else:
            self._unsent.append(data)

    def _new_conn(self) -> socket.socket:
        guard = current.guard
        if guard is None:
            return super()._new_conn()
        sock = open_socket(self._dns_host, self.port, guard, self.socket_options or ())
        # A copy, since TLS takes the socket away from this object while it shakes hands.
        self._keep(sock.dup())
        guard.hold(self._break)
        return sock

    def _own(self, guard: Guard) -> None:
        with self._owner_lock:
            self._owner = guard
        guard.hold(self._break)

    def _keep(self, sock: Any) -> None:
        with self._owner_lock:
            old, self._live = self._live, sock
        if old is not None and old is not sock:
            old.close()

    def _break(self, guard: Guard) -> None:
        # Back in the pool it may already belong to another request: then it is not ours to break.
        with self._owner_lock:
            if self._owner is guard and self._live is not None:
                sock = getattr(self._live, "socket", self._live)  # TLS inside TLS wraps the real one
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _BreakableTLS(_Breakable, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Breakable


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BreakableTLS


_POOLS = {"http": _Pool, "https": _TLSPool}


class Adapter(requests.adapters.HTTPAdapter):
    """The transport adapter of requests with breakable connections, and without cookies."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        self._known: dict[str, Any] = {}
        self._targets: dict[str, str] = {}
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def close(self) -> None:
        """Close the idle connections now; left to itself, urllib3 waits for the garbage collector."""
        for pool in list(self._known.values()):
            pool.close()
        self._known.clear()
        super().close()

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """The pool for an address; found once, since proxies and certificates stay the same in here."""
        url = request.url or ""
        pool = self._known.get(url)
        if pool is None or pool.pool is None:  # closed, when too many others came in between
            try:
                pool = super().get_connection_with_tls_context(request, *args, **kwargs)
            except TypeError:  # what requests makes of a proxy that is a login and no host
                raise requests.exceptions.InvalidProxyURL from None
            self._known[url] = pool
        return pool

    def request_url(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> str:
        """What the request line says of an address; found once, likewise."""
        url = request.url or ""
        if url not in self._targets:
            self._targets[url] = super().request_url(request, *args, **kwargs)
        return self._targets[url]

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Only what is used here; filling a cookie jar for each answer is a tenth of a call."""
        response = requests.Response()
        response.status_code = resp.status
        response.raw = resp
        response.request = req  # for what intercepts `send`, as test libraries do
        response.url = req.url or ""
        return response
