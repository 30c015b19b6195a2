"""A sign-in and chat service like Qwen's, on loopback and in its own process: `python tests/qwen_service.py`.

Refresh tokens can be used once and a second use is counted; every bad answer that was ever seen can be
asked for. It prints one JSON line with its port and lives until its standard input ends.

    with QwenProcess() as service:
        fields = service.credentials(expired=True)      # the content of an oauth_creds.json
        service.script(token=["500", "ok"], chat=["401"])
        ...                                             # service.base_url, service.resource_url
        assert service.counts()["refreshed"] == 1

Replies are taken from the script in order; when it is empty everything is "ok". See TOKEN and CHAT below.
"""

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

CANARY = "canary"  # every token of this service holds this word, so that a leak can be looked for
LIFE_S = 21_600

Json = dict[str, Any]


class State:
    """What the service knows: live tokens, the script, what it has counted and seen."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.port = 0
        self.reset()

    def reset(self) -> None:
        self.access: set[str] = set()
        self.refresh: set[str] = set()
        self.used: set[str] = set()
        self.scripts: dict[str, deque[str]] = {"token": deque(), "chat": deque(), "device": deque()}
        self.counts: Counter[str] = Counter()
        self.requests: list[Json] = []
        self.seen_chats: list[Json] = []
        self.gate.set()
        self.gate = threading.Event()

    def pair(self) -> Json:
        number = secrets.token_hex(8)
        tokens = {"access_token": f"{CANARY}-at-{number}", "refresh_token": f"{CANARY}-rt-{number}"}
        self.access.add(tokens["access_token"])
        self.refresh.add(tokens["refresh_token"])
        return {**tokens, "token_type": "Bearer", "resource_url": f"http://127.0.0.1:{self.port}/v1"}

    def next(self, kind: str) -> str:
        with self.lock:
            script = self.scripts[kind]
            return script.popleft() if script else "ok"


STATE = State()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        routes = {
            "/api/v1/oauth2/token": self.token,
            "/api/v1/oauth2/device/code": self.device,
            "/v1/chat/completions": self.chat,
            "/control": self.control,
        }
        route = routes.get(self.path)
        with contextlib.suppress(OSError):
            if route is None:
                self.send(404, b"")
            else:
                route(data)

    def send(self, status: int, body: bytes | Json, headers: dict[str, str] | None = None) -> None:
        payload = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        known = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **(headers or {})}
        for name, value in known.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def control(self, data: bytes) -> None:
        asked = json.loads(data)
        with STATE.lock:
            answer = CONTROL[asked["do"]](asked) or {}
        self.send(200, answer)

    # --- sign-in -----------------------------------------------------------------------------------

    def device(self, data: bytes) -> None:
        with STATE.lock:
            STATE.requests.append({"path": self.path, "form": form(data), "headers": lower(self.headers)})
        if STATE.next("device") == "refused":
            self.send(400, {"error": "invalid_request", "error_description": "no"})
            return
        page = f"http://127.0.0.1:{STATE.port}/authorize"
        self.send(200, {
            "device_code": f"{CANARY}-device", "user_code": "ABCD-1234", "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code=ABCD-1234&client=qwen-code", "expires_in": 900,
            "interval": 0.1,
        })  # fmt: skip

    def token(self, data: bytes) -> None:
        asked = form(data)
        with STATE.lock:
            STATE.counts["token requests"] += 1
            STATE.requests.append({"path": self.path, "form": asked, "headers": lower(self.headers)})
        TOKEN[STATE.next("token")](self, asked)

    # --- chat --------------------------------------------------------------------------------------

    def chat(self, data: bytes) -> None:
        body = json.loads(data)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        with STATE.lock:
            STATE.counts["chats"] += 1
            STATE.seen_chats.append({"headers": lower(self.headers), "body": body})
            known = token in STATE.access or token.startswith("sk-")
        reply = CHAT[STATE.next("chat")]
        if not known:
            reply = CHAT["401"]
        reply(self, body)

    def stream(self, *chunks: Json | str, kind: str = "text/event-stream") -> None:
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        for chunk in chunks:
            text = chunk if isinstance(chunk, str) else json.dumps(chunk)
            event = f"data: {text}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""


def form(data: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(data.decode()).items()}


def lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


# --- what the token endpoint may answer ----------------------------------------------------------------

TokenReply = Callable[[Handler, dict[str, str]], None]


def granted(handler: Handler, asked: dict[str, str], **changes: Any) -> None:
    """Spend the refresh token; `changes` replace fields of the answer, None leaves one out."""
    with STATE.lock:
        old = asked.get("refresh_token", "")
        fresh = asked["grant_type"] != "refresh_token" or old in STATE.refresh
        STATE.counts["refreshed" if fresh else "refused"] += 1
        STATE.counts["reused"] += old in STATE.used
        answer = STATE.pair() | {"expires_in": LIFE_S, "status": "success"} if fresh else {}
        if changes.get("refresh_token", "") is not None:
            STATE.refresh.discard(old)
            STATE.used.add(old)
    if not fresh:
        refused(400)(handler, asked)
        return
    answer = {name: value for name, value in (answer | changes).items() if value is not None}
    handler.send(200, answer)


def granting(**changes: Any) -> TokenReply:
    return lambda handler, asked: granted(handler, asked, **changes)


def refused(status: int) -> TokenReply:
    text = "Invalid refresh token or client_id"
    return lambda handler, _: handler.send(status, {"error": "invalid_request", "error_description": text})


def sending(status: int, body: bytes | Json, **headers: str) -> TokenReply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.send(status, body, named)


def cut_after_use(handler: Handler, asked: dict[str, str]) -> None:
    with STATE.lock:
        STATE.refresh.discard(asked.get("refresh_token", ""))
        STATE.used.add(asked.get("refresh_token", ""))
        STATE.counts["refreshed"] += 1
    handler.cut()


def held(handler: Handler, asked: dict[str, str]) -> None:
    gate = STATE.gate
    with STATE.lock:
        STATE.counts["held"] += 1
    gate.wait(60)
    granted(handler, asked)


def held_then_dropped(handler: Handler, _: dict[str, str]) -> None:
    gate = STATE.gate
    with STATE.lock:
        STATE.counts["held"] += 1
    gate.wait(60)
    handler.cut()


def echoing(handler: Handler, asked: dict[str, str]) -> None:
    text = f"token {asked.get('refresh_token')} is unknown"
    handler.send(400, {"error": "invalid_grant", "error_description": text, "you_sent": asked})


def slow(handler: Handler, asked: dict[str, str]) -> None:
    time.sleep(0.05)
    granted(handler, asked)


TOKEN: dict[str, TokenReply] = {
    "ok": granted,
    "slow": slow,
    "400": refused(400),
    "401": refused(401),
    "400-empty": sending(400, b""),
    "400-html": sending(400, b"<html>blocked</html>"),
    "echo": echoing,
    "error-200": sending(200, {"error": "invalid_grant", "error_description": "spent"}),
    "429": sending(429, {"error": "rate_limited"}, Retry_After="1"),
    "429-long": sending(429, {"error": "rate_limited"}, Retry_After="300"),
    "500": sending(500, b"oops"),
    "403": sending(403, b"<html>waf</html>"),
    "html": sending(200, b"<!doctype html><title>WAF</title>", Content_Type="text/html"),
    "empty": sending(200, b""),
    "not-object": sending(200, b'["canary-at-list"]'),
    "no-token": sending(200, {"token_type": "Bearer"}),
    "bad-token": sending(200, {"access_token": "canary-at\r\nX: 1", "expires_in": 3600}),
    "no-refresh": granting(refresh_token=None),
    "no-expiry": granting(expires_in=None),
    "str-expiry": granting(expires_in="soon"),
    "zero-expiry": granting(expires_in=0),
    "neg-expiry": granting(expires_in=-5),
    "short-expiry": granting(expires_in=1),
    "huge-expiry": granting(expires_in=10**12),
    "evil-url": granting(resource_url="https://evil.example\\.portal.qwen.ai"),
    "http-url": granting(resource_url="http://portal.qwen.ai/v1"),
    "no-url": granting(resource_url=None),
    "extra": granting(new_field={"kept": [1, 2]}),
    "cut-before": lambda handler, _: handler.cut(),
    "cut-after-use": cut_after_use,
    "held": held,
    "held-then-dropped": held_then_dropped,
    "pending": sending(400, {"error": "authorization_pending"}),
    "pending-200": sending(200, {"status": "pending"}),
    "slow_down": sending(429, {"error": "slow_down"}),
    "denied": sending(400, {"error": "access_denied", "error_description": "the user said no"}),
    "expired": sending(401, {"error": "expired_token"}),
    "no-refresh-token-at-login": granting(refresh_token=None),
}

# --- what the chat endpoint may answer -----------------------------------------------------------------

ChatReply = Callable[[Handler, Json], None]
USAGE = {
    "prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27,
    "prompt_tokens_details": {"cached_tokens": 12}, "completion_tokens_details": {"reasoning_tokens": 3},
}  # fmt: skip


def chunk(content: str | None = None, reasoning: str | None = None, finish: str | None = None) -> Json:
    fields = {"content": content, "reasoning_content": reasoning}
    delta = {name: text for name, text in fields.items() if text is not None}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chat-1", "object": "chat.completion.chunk", "model": "qwen3-coder-plus", "choices": [choice]}


def answered(*pieces: str, thoughts: tuple[str, ...] = (), whole: str = "", finish: str = "stop") -> ChatReply:
    """Stream `pieces` (or send `whole`, else their sum, as one answer)."""
    text = whole or "".join(pieces)

    def reply(handler: Handler, body: Json) -> None:
        if body.get("stream"):
            chunks: list[Json | str] = [chunk(reasoning=thought) for thought in thoughts]
            chunks += [chunk(piece) for piece in pieces]
            chunks += [chunk(finish=finish)]
            if (body.get("stream_options") or {}).get("include_usage"):
                chunks += [{"id": "chat-1", "model": "qwen3-coder-plus", "choices": [], "usage": USAGE}]
            handler.stream(*chunks, "[DONE]")
            return
        message = {"role": "assistant", "content": text, "reasoning_content": "".join(thoughts)}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        handler.send(200, {"id": "chat-1", "model": "qwen3-coder-plus", "choices": [choice], "usage": USAGE})

    return reply


def failing(status: int, message: str, code: str = "", kind: str = "", **headers: str) -> ChatReply:
    error = {"code": code or None, "message": message, "param": None, "type": kind or code or None}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.send(status, {"error": error, "request_id": "req-7"}, named)


def breaking(code: str, message: str, before: str = "so far ") -> ChatReply:
    error = {"error": {"code": code, "message": message, "type": code}}
    return lambda handler, _: handler.stream(chunk(before), error, "[DONE]")


CHAT: dict[str, ChatReply] = {
    "ok": answered("Hello", ", ", "world", thoughts=("think ", "hard")),
    "cumulative": answered(
        "He", "Hello", "Hello, world", thoughts=("let", "let me", "let me see"), whole="Hello, world"
    ),
    "repeating": answered("ha", "ha", "hay"),
    "error-finish": lambda handler, _: handler.stream(
        chunk("part "), chunk("Requests rate limit exceeded, please try again later.", finish="error_finish"), "[DONE]"
    ),
    "error-finish-first": lambda handler, _: handler.stream(
        chunk("Requests rate limit exceeded, please try again later.", finish="error_finish"), "[DONE]"
    ),
    "error-in-stream": breaking("internal_error", "something broke"),
    "quota-in-stream": breaking("insufficient_quota", "Free allocated quota exceeded.", ""),
    "401-in-stream": breaking("invalid_api_key", "invalid access token or token expired", ""),
    "html": lambda handler, _: handler.send(200, b"<html>portal</html>", {"Content-Type": "text/html"}),
    "cut": lambda handler, _: handler.stream(chunk("half an answ")),
    "401": failing(401, "invalid access token or token expired", "invalid_api_key", "invalid_request_error"),
    "401-key": failing(401, "Incorrect API key provided.", "invalid_api_key", "invalid_request_error"),
    "403": failing(403, "access denied", "access_denied"),
    "403-key": failing(403, "invalid api-key", "invalid_api_key"),
    "403-quota": failing(403, "Free allocated quota exceeded.", "insufficient_quota", "insufficient_quota"),
    "429-quota": failing(429, "Free allocated quota exceeded.", "insufficient_quota", "insufficient_quota"),
    "429-week": failing(429, "week allocated quota exceeded", "insufficient_quota"),
    "429-concurrency": failing(429, "concurrency allocated quota exceeded", "insufficient_quota"),
    "429-throttled": failing(
        429,
        "You exceeded your current quota, please check your plan and billing details. For details, see: "
        "https://help.aliyun.com/model-studio/error-code#token-limit",
        "insufficient_quota", "insufficient_quota",
    ),
    "429-rate": failing(429, "Requests rate limit exceeded", "Throttling.RateQuota", "", Retry_After="2"),
    "429-allocation": failing(429, "Allocated quota exceeded", "Throttling.AllocationQuota"),
    "arrears": failing(400, "Access denied, your account is in arrears", "Arrearage"),
    "standing": failing(400, "Access denied, please make sure your account is in good standing.", "Arrearage"),
    "403-free-only": failing(
        403, "The free tier of the model has been exhausted. If you wish to continue access the model on a paid basis, "
        "please disable the \"use free tier only\" mode in the management console.", "AllocationQuota.FreeTierOnly",
    ),
    "bad-model": failing(400, "model `qwen9` is not supported.", "invalid_parameter_error"),
    "too-long": failing(400, "Range of input length should be [1, 997952]", "invalid_parameter_error"),
    "500": failing(500, "internal error", "internal_error"),
    "404": lambda handler, _: handler.send(404, b""),
}  # fmt: skip

# --- control -------------------------------------------------------------------------------------------


def _script(asked: Json) -> None:
    for kind, replies in asked["replies"].items():
        STATE.scripts[kind].extend(replies)


def _open(_: Json) -> None:
    STATE.gate.set()
    STATE.gate = threading.Event()


def _revoke(asked: Json) -> None:
    STATE.access.discard(asked["token"])


CONTROL: dict[str, Callable[[Json], Json | None]] = {
    "reset": lambda _: STATE.reset(),
    "pair": lambda _: STATE.pair(),
    "script": _script,
    "open": _open,
    "revoke": _revoke,
    "counts": lambda _: dict(STATE.counts),
    "requests": lambda _: {"requests": STATE.requests},
    "chats": lambda _: {"chats": STATE.seen_chats},
}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed are part of the tests: no traceback."""


class QwenProcess:
    """The service as a child process; a context manager. Every method is one request to it."""

    def __enter__(self) -> "QwenProcess":
        self._child = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._child.stdout is not None
        self.port: int = json.loads(self._child.stdout.readline())["port"]
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.wait(10)
        self._child.stdout.close()

    @property
    def base_url(self) -> str:
        """Where the sign-in endpoints are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def resource_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def do(self, what: str, **details: Any) -> Json:
        request = urllib.request.Request(
            f"{self.base_url}/control", json.dumps({"do": what, **details}).encode(), {"Content-Type": "text/json"}
        )
        with self._opener.open(request, timeout=20) as answer:
            found: Json = json.load(answer)
        return found

    def reset(self) -> None:
        self.do("reset")

    def credentials(self, *, expired: bool = False, **changes: Any) -> Json:
        """The content of a credential file with live tokens; `expired` only says so, the service takes both."""
        ends_s = time.time() + (-3600 if expired else LIFE_S)
        fields = {**self.do("pair"), "expiry_date": int(ends_s * 1000), **changes}
        return {name: value for name, value in fields.items() if value is not None}

    def script(self, **replies: list[str]) -> None:
        self.do("script", replies=replies)

    def counts(self) -> Json:
        return Counter(self.do("counts"))

    def requests(self) -> list[Json]:
        found: list[Json] = self.do("requests")["requests"]
        return found

    def chats(self) -> list[Json]:
        found: list[Json] = self.do("chats")["chats"]
        return found


def main() -> None:
    server = Server(("127.0.0.1", 0), Handler)
    STATE.port = int(server.server_address[1])
    sys.stdout.write(json.dumps({"port": STATE.port}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
