"""A chat-completions service on loopback that costs next to nothing: its own process, raw sockets, ready bytes.

    with serving() as url:
        base_url = f"{url}/events-1000/v1"

The path of a request says how to answer: `events-N` how many pieces a stream has, `delay-MS` how long to
wait before an answer, `rate-N` how many pieces a second. `connections` is answered with the number of connections
that were opened so far, its own among them. Everything else about the request is ignored.
Each event is one HTTP chunk, as the large services send them.
"""

import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

_USAGE = {"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60}
_OPTION = re.compile(rb"/(events|delay|rate)-(\d+)")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TEXT = "The quick brown fox jumps over the lazy dog, again and again. " * 6
# As many and as long as the headers of the large services are.
_HEADERS = "".join(f"x-benchmark-header-{number}: {'v' * 24}\r\n" for number in range(15))


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of a service that runs as long as the block does."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, __file__], stdout=pipe, stdin=pipe, text=True) as child:
        assert child.stdout
        try:
            yield child.stdout.readline().strip()
        finally:
            child.kill()


def _whole() -> bytes:
    message = {"role": "assistant", "content": _TEXT, "refusal": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "bench-model"}
    body["choices"] = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    data = json.dumps({**body, "usage": _USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
    return (head + "x-request-id: req-1\r\n" + _HEADERS + "\r\n").encode() + data


def _chunk(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench-model"}
    event |= {"service_tier": "default", "system_fingerprint": "fp_0123456789", "choices": [choice], **more}
    return _framed(b"data: " + json.dumps(event).encode() + b"\n\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_WHOLE = _whole()
_STREAM = (
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    + "x-request-id: req-1\r\n"
    + _HEADERS
    + "\r\n"
).encode()
_FIRST = _chunk({"role": "assistant", "content": ""})
# Pieces differ, since some clients take a repeated one for a fault.
_PIECES = [_chunk({"content": f"tok{number:03d} "}) for number in range(200)]
_BATCH = b"".join(_PIECES)
_LAST = _chunk({}, "stop")
_LAST += _framed(b"data: " + json.dumps({"id": "1", "choices": [], "usage": _USAGE}).encode() + b"\n\n")
_LAST += _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_WHEN = "%017.6f"


def _serve(connection: socket.socket, number: int) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, contextlib.suppress(OSError):
        waiting = b""
        while True:
            request, waiting = _request(connection, waiting)
            if not request:
                return
            line = request.partition(b"\r\n")[0]
            if b"/connections" in line:
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n%d" % number)
                return
            options = {name: int(value) for name, value in _OPTION.findall(line)}
            if delay := options.get(b"delay"):
                time.sleep(delay / 1000)
            if b'"stream":true' in request or b'"stream": true' in request:
                _stream(connection, options.get(b"events", 100), options.get(b"rate", 0))
            else:
                connection.sendall(_WHOLE)


def _request(connection: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """One request and what came behind it; nothing when the client has left."""
    while (end := data.find(b"\r\n\r\n")) < 0:
        more = connection.recv(65536)
        if not more:
            return b"", b""
        data += more
    length = _LENGTH.search(data, 0, end)
    size = end + 4 + (int(length[1]) if length else 0)
    while len(data) < size:
        data += connection.recv(65536)
    return data[:size], data[size:]


def _stream(connection: socket.socket, events: int, rate: int) -> None:
    connection.sendall(_STREAM + _FIRST)
    if rate:
        start = time.monotonic()
        for number in range(events):
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            # When it left, for the client to see how late it is: one clock for all processes of a machine.
            connection.sendall(_chunk({"content": _WHEN % time.monotonic()}))
    else:
        for _ in range(events // len(_PIECES)):
            connection.sendall(_BATCH)
        connection.sendall(b"".join(_PIECES[: events % len(_PIECES)]))
    connection.sendall(_LAST)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), listener.close()), daemon=True).start()
    with contextlib.suppress(OSError):
        for number in itertools.count(1):
            threading.Thread(target=_serve, args=(listener.accept()[0], number), daemon=True).start()


if __name__ == "__main__":
    main()
