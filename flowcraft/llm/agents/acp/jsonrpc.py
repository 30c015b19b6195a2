"""JSON-RPC 2.0 with a child process: one JSON object a line, each side with ids of its own.

Whoever has asked reads: there is no reader thread. Lines that are no messages (banners, logs, warnings)
are kept as `noise` for the error text and otherwise ignored, because real agents print them.
"""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowcraft.core.programs.child import Child
from flowcraft.core.scope import Scope

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

WRITE_LIMIT_S = 10.0  # a program that has not read a message by then has stopped reading
NOISE_LINES = 20


@dataclass(frozen=True, slots=True)
class Request:
    """The other side asks and waits for an answer."""

    id: int | str | None
    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Notification:
    """The other side tells."""

    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request was refused; `code` follows JSON-RPC, and HTTP with some agents."""

    code: int
    message: str
    data: Any = None

    @property
    def text(self) -> str:
        """All that was said about it: the message and every text within `data`."""
        return "\n".join(dict.fromkeys([self.message, *_texts(self.data)])).strip()


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request of ours."""

    id: int | str | None
    result: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None


Message = Request | Notification | Response


class BrokenMessage(ValueError):
    """A line that was meant as a message and cannot be read, or an answer to nothing that was asked."""


class Peer:
    """Our side of the conversation with one child; for one thread at a time."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.noise: deque[str] = deque(maxlen=NOISE_LINES)
        self._asked = 0

    def ask(self, method: str, params: Mapping[str, Any], scope: Scope | None = None) -> int:
        """Send a request; returns its id, by which its answer is known."""
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params}, scope)
        return self._asked

    def tell(self, method: str, params: Mapping[str, Any], scope: Scope | None = None) -> None:
        """Send a notification."""
        self._send({"method": method, "params": params}, scope)

    def answer(self, request: Request, result: Mapping[str, Any], scope: Scope | None = None) -> None:
        self._send({"id": request.id, "result": result}, scope)

    def refuse(self, request: Request, code: int, message: str, scope: Scope | None = None) -> None:
        self._send({"id": request.id, "error": {"code": code, "message": message}}, scope)

    def receive(self, timeout_s: float, scope: Scope | None = None) -> Message | str | None:
        """The next message, a line that is none, or None if the time limit came first.

        Raises EOFError at the end of the child's output, BrokenMessage, ProcessError and Cancelled.
        """
        line = self.child.read_line(timeout_s, scope)
        if line is None:
            return None
        if not line:
            raise EOFError
        message = parse(line)
        if message is None:
            self.noise.append(line[:2000].decode("utf-8", "replace").rstrip())
            return self.noise[-1]
        if isinstance(message, Response):
            self._check_asked(message)
        return message

    def _check_asked(self, response: Response) -> None:
        number = response.id
        if number is None and response.failure:
            raise BrokenMessage(f"could not read a message of ours: {response.failure.text}")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= self._asked:
            raise BrokenMessage(f"answered a request that was never made (id {number!r})")

    def _send(self, message: Mapping[str, Any], scope: Scope | None) -> None:
        line = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode() + b"\n"
        self.child.write(line, WRITE_LIMIT_S, scope)


def parse(line: bytes) -> Message | None:
    """One line as a message, None if it is not meant as one; raises BrokenMessage.

    The method is looked at before the id: a request of the agent may have an id that we use, too.
    """
    text = line.strip()
    if not text.startswith(b"{"):
        return None
    try:
        value = json.loads(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        if b'"jsonrpc"' in text[:200]:
            raise BrokenMessage(f"sent a message that is not JSON: {error}") from error
        return None
    if "method" in value and isinstance(value["method"], str):
        params = value.get("params")
        params = params if isinstance(params, dict) else {}
        return Request(value["id"], value["method"], params) if "id" in value else Notification(value["method"], params)
    if "id" not in value or not ("result" in value or "error" in value):
        return None
    if value.get("error") is not None:
        return Response(value["id"], failure=_failure(value["error"]))
    result = value.get("result")
    return Response(value["id"], result if isinstance(result, dict) else {})


def _failure(error: Any) -> Failure:
    if not isinstance(error, dict):
        return Failure(INTERNAL_ERROR, str(error))
    code = error.get("code")
    code = code if isinstance(code, int) else INTERNAL_ERROR
    return Failure(code, str(error.get("message") or ""), error.get("data"))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []
