"""A connected socket to a host, with a limit and a cancel that hold in the look-up of its name and for each address."""

import contextlib
import ipaddress
import os
import queue
import socket
import threading
from typing import Any

from urllib3.util import wait_for_write

from flowcraft.core.errors import TransportError
from flowcraft.llm.wire.deadline import Guard

_SLICE_S = 0.1  # how late a cancel may be noticed where nothing can be woken


class _Socket(socket.socket):
    """Asks the operating system only for a timeout that is not set yet: urllib3 sets it twice for each request."""

    def settimeout(self, value: float | None) -> None:
        if value != self.gettimeout():
            super().settimeout(value)


def open_socket(host: str, port: int | None, guard: Guard, options: Any) -> socket.socket:
    """A connected socket, within the limit of the guard. Raises TransportError, DeadlineError, Cancelled."""
    addresses = _addresses(host, port, guard)
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        # Each address gets its share of the time, so that a dead IPv6 route does not eat all of it.
        share_s = guard.left_s() / (len(addresses) - number)
        sock = _Socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            _connect(sock, address, share_s, guard)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise _unreachable(f"cannot connect to {host} port {port}: {_reason(failure)}") from failure


def _connect(sock: socket.socket, address: Any, share_s: float, guard: Guard) -> None:
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.connect(address)
    waited_s = 0.0
    while not wait_for_write(sock, timeout=min(_SLICE_S, share_s)):
        waited_s += _SLICE_S
        guard.left_s()
        if waited_s >= share_s:
            raise TimeoutError("timed out")
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    sock.settimeout(None)


def _addresses(host: str, port: int | None, guard: Guard) -> list[Any]:
    host = host.strip("[]")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A name server may be silent for long, and nothing can interrupt the look-up: wait for it elsewhere.
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_look_up, args=(host, port, results), name="flowcraft-lookup", daemon=True).start()
    while True:
        try:
            found = results.get(timeout=min(_SLICE_S, guard.left_s()))
        except queue.Empty:
            continue
        if isinstance(found, Exception):
            raise _unreachable(f"there is no address for {host}: {_reason(found)}") from found
        return list(found)


def _look_up(host: str, port: int | None, results: "queue.SimpleQueue[Any]") -> None:
    try:
        results.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        results.put(error)


def _unreachable(message: str) -> TransportError:
    return TransportError(
        message, sent=False, retryable=True, hint="check base_url, the network and whether the service is running"
    )


def _reason(error: Exception | None) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
