"""A chat-completions server on loopback for tests: real sockets, scripted replies, nothing patched.

    with ChatServer(answer("hello"), status(429, headers={"Retry-After": "1"})) as server:
        ...  # talk to server.base_url; look at server.requests and server.connections

Replies are given in order and the last one repeats. A reply is a callable that gets the handler of
one request; the functions below make the usual ones. A `threading.Event` among the pieces of a reply
is a gate: the reply waits until the test sets it (or the server stops).
"""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Piece = bytes | threading.Event
Ending = Literal["close", "keep", "reset", "hold"]


@dataclass(frozen=True)
class Received:
    """One request as it came in; `body` is its JSON object ({} if it has none)."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    data: bytes = b""
    connection: int = 0


class Handler(BaseHTTPRequestHandler):
    """One connection; what a callable reply gets. `received` is the request to answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"
    received: Received

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(data)
        except ValueError:
            body = {}
        body = body if isinstance(body, dict) else {}
        number = self.server.numbers.get(self.connection, 0)
        # Header names as they came; looked up in any case through the message object of http.client.
        self.received = Received(self.command, self.path, self.headers, body, data, number)
        self.server.owner.next_reply(self.received)(self)

    do_GET = do_POST
    do_CONNECT = do_POST
    do_HEAD = do_POST

    def write(self, data: bytes) -> None:
        """Put bytes on the socket as they are."""
        self.wfile.write(data)

    def head(self, code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send the status line and the headers."""
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a body with `Transfer-Encoding: chunked`; b"" ends the body."""
        self.write(b"%x\r\n%s\r\n" % (len(data), data))

    def wait(self, gate: threading.Event) -> None:
        """Wait for the gate, or for the end of the server."""
        while not gate.wait(0.01) and not self.server.owner.stopping.is_set():
            pass

    def hold(self) -> None:
        """Keep the connection open until the client leaves (then `server.left` is set)."""
        with contextlib.suppress(OSError):
            while self.connection.recv(4096):
                pass
        self.close_connection = True
        self.server.owner.left.set()

    def end(self, ending: Ending) -> None:
        """Leave the connection as `ending` says: `reset` sends a TCP RST."""
        self.close_connection = ending != "keep"
        if ending == "hold":
            self.hold()
        if ending == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""


Reply = Callable[[Handler], None]


class ChatServer:
    """The server: `base_url`, `requests` (what came), `connections` (how many were accepted)."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = replies or (answer("ok"),)
        self._lock = threading.Lock()
        self.requests: list[Received] = []
        self.stopping = threading.Event()
        self.left = threading.Event()  # a client has gone away from a held reply
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def connections(self) -> int:
        return self._server.accepted

    def next_reply(self, received: Received) -> Reply:
        with self._lock:
            self.requests.append(received)
            return self._replies[min(len(self.requests), len(self._replies)) - 1]

    def __enter__(self) -> "ChatServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.stop()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, owner: ChatServer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owner = owner
        self.accepted = 0
        self.numbers: dict[socket.socket, int] = {}
        self._workers: list[threading.Thread] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted += 1
        self.numbers[request] = self.accepted
        worker = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._workers.append(worker)
        worker.start()

    def shutdown_request(self, request: Any) -> None:
        self.numbers.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are part of the tests: no traceback."""

    def stop(self) -> None:
        self.server_close()
        for connection in list(self.numbers):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for worker in self._workers:
            worker.join(0.5)


def answer(
    text: str,
    *,
    model: str = "test-model",
    finish_reason: str | None = "stop",
    usage: tuple[int, int] | None = (3, 5),
    reasoning: str = "",
    pieces: Sequence[str] | None = None,
    request_id: str | None = "req-1",
    headers: Mapping[str, str] | None = None,
    error: Mapping[str, Any] | None = None,
) -> Reply:
    """A whole answer, streamed if the request says `stream`; `pieces` are its deltas (default: by words).

    `finish_reason` None streams an answer that never finishes; `error` is sent in the stream instead of the end.
    """
    all_headers = {**({"x-request-id": request_id} if request_id else {}), **(headers or {})}
    parts = list(pieces) if pieces is not None else [part + " " for part in text.split(" ")]
    if pieces is None:
        parts[-1] = parts[-1][:-1]

    def reply(handler: Handler) -> None:
        body = handler.received.body
        name = model
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            if reasoning:
                message["reasoning_content"] = reasoning
            payload: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "model": name}
            payload["choices"] = [{"index": 0, "message": message, "finish_reason": finish_reason}]
            if usage:
                payload["usage"] = _usage(usage)
            _send(handler, 200, json.dumps(payload).encode(), {"Content-Type": "application/json", **all_headers})
            return
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        frames = [delta({"role": "assistant", "content": ""}, model=name)]
        frames += [delta({"reasoning_content": reasoning}, model=name)] if reasoning else []
        frames += [delta({"content": part}, model=name) for part in parts]
        if error is not None:
            frames += [frame({"error": error})]
        elif finish_reason is not None:
            frames += [delta({}, model=name, finish_reason=finish_reason)]
            if usage and wants_usage:
                frames += [frame({"id": "chatcmpl-1", "model": name, "choices": [], "usage": _usage(usage)})]
            frames += [b"data: [DONE]\n\n"]
        stream(*frames, headers=all_headers)(handler)

    return reply


def status(
    code: int, body: str | bytes | Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """An answer that is not a chat answer; a mapping becomes JSON, None an error object in OpenAI's form."""
    if body is None:
        body = {"error": {"message": f"status {code} for the test", "type": "test_error", "code": None}}
    kind = "application/json" if isinstance(body, Mapping) else "text/plain"
    data = json.dumps(body).encode() if isinstance(body, Mapping) else body.encode() if isinstance(body, str) else body
    return lambda handler: _send(handler, code, data, {"Content-Type": kind, **(headers or {})})


def raw(*pieces: Piece, end: Ending = "close", pause_s: float = 0.0) -> Reply:
    """Bytes on the socket as they are, status line and all; `pause_s` is waited after each piece.

    `end`: close the connection, keep it for another request, reset it, or hold it open and silent.
    """

    def reply(handler: Handler) -> None:
        try:
            _play(handler, pieces, handler.write, pause_s)
        except OSError:  # the client has left; that is for the test to notice
            handler.server.owner.left.set()
            handler.close_connection = True
            return
        handler.end(end)

    return reply


def stream(
    *pieces: Piece,
    headers: Mapping[str, str] | None = None,
    chunked: bool = True,
    last_chunk: bool = True,
    end: Ending = "keep",
    pause_s: float = 0.0,
) -> Reply:
    """A 200 answer of `text/event-stream` whose body is `pieces`, one HTTP chunk each.

    `chunked` False sends a body that only the end of the connection ends; `last_chunk` False leaves
    the chunked body open, so that closing then cuts it.
    """

    def reply(handler: Handler) -> None:
        framing = {"Transfer-Encoding": "chunked"} if chunked else {"Connection": "close"}
        try:
            handler.head(200, {"Content-Type": "text/event-stream", **framing, **(headers or {})})
            _play(handler, pieces, handler.chunk if chunked else handler.write, pause_s)
            if chunked and last_chunk:
                handler.chunk(b"")
        except OSError:
            handler.server.owner.left.set()
            handler.close_connection = True
            return
        handler.end(end if chunked or end != "keep" else "close")

    return reply


def delta(content: Mapping[str, Any], *, model: str = "test-model", finish_reason: str | None = None) -> bytes:
    """The bytes of one chat.completion.chunk event with this `delta`."""
    choice = {"index": 0, "delta": content, "finish_reason": finish_reason}
    return frame({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model, "choices": [choice]})


def frame(payload: Mapping[str, Any]) -> bytes:
    """The bytes of one event with JSON data."""
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _play(handler: Handler, pieces: Iterable[Piece], write: Callable[[bytes], None], pause_s: float) -> None:
    for piece in pieces:
        if isinstance(piece, threading.Event):
            handler.wait(piece)
        else:
            write(piece)
        if pause_s and handler.server.owner.stopping.wait(pause_s):
            return


def _send(handler: Handler, code: int, data: bytes, headers: Mapping[str, str]) -> None:
    try:
        handler.head(code, {"Content-Length": str(len(data)), **headers})
        handler.write(data)
    except OSError:
        handler.close_connection = True


def _usage(tokens: tuple[int, int]) -> dict[str, int]:
    return {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
