"""The service and the pipeline of the sweep for secrets (test_secrets_sweep.py).

`answered` is the service: the secrets of a request come back in every field of its answer but the text of the model.
`PIPELINE` has a stage for each way in which a run uses secrets; the programs below it are those of its stages.
"""

import base64
import html
import json
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from canaries import CANARIES
from servers import Handler, frame, raw, status, stream

ROOT = Path(__file__).parents[1]
AWAY = ["http://localhost:1"]  # where a redirect leads
_SECRET_HEADERS = ("authorization", "x-api-key", "x-team", "proxy-authorization")


def echoed(handler: Handler) -> str:
    """The secrets of a request on one line: as they came, and in the usual ways to write them."""
    found = [handler.received.headers.get(name, "") for name in _SECRET_HEADERS]
    words = [word for value in found for word in value.split() if len(word) > 8]
    words += [unquote_to_bytes(part.partition("=")[2]).decode() for part in handler.received.data.decode().split("&")]
    words = [word for word in words if any(canary in word or word in canary for canary in CANARIES.values()) if word]
    if handler.received.headers.get("proxy-authorization"):
        words.append(base64.b64decode(handler.received.headers["proxy-authorization"].split()[1]).decode())
    lines = [(word, json.dumps(word)[1:-1], quote(word, safe=""), html.escape(word)) for word in words]
    coded = [base64.b64encode(f"{before}{word}".encode()).decode() for word in words for before in ("", "a", "Bearer ")]
    return " ".join(["you sent", *(text for line in lines for text in line), *coded])


def answered(handler: Handler) -> None:
    """Answer as the path asks for."""
    kind = handler.path.removeprefix("http://service.test").split("/")[1] if handler.command != "CONNECT" else "reason"
    _KINDS[kind](handler, echoed(handler))


def _good(handler: Handler, text: str) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    head = {"id": text, "model": text, "object": text, "system_fingerprint": text}
    headers = {"x-request-id": text, "x-echo": text, "Set-Cookie": f"key={text}"}
    if handler.received.body.get("stream"):
        first = frame({**head, "choices": [{"index": 0, "delta": {"role": text, "content": "done"}}]})
        last = frame({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": text}], "usage": usage})
        event = f"event: {text}\nid: {text}\n: {text}\n".encode()
        stream(event + first, event + last, b"data: [DONE]\n\n", headers=headers)(handler)
        return
    choice = {"index": 0, "message": {"role": text, "content": "done"}, "finish_reason": text}
    status(200, {**head, "choices": [choice], "usage": usage}, headers)(handler)


def _messages(handler: Handler, text: str) -> None:
    usage = {"input_tokens": 3, "output_tokens": 5}
    if handler.received.body.get("stream"):
        events = [
            {"type": "message_start", "message": {"id": text, "model": text, "usage": usage}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "done"}},
            {"type": "message_delta", "delta": {"stop_reason": text}, "usage": usage},
            {"type": "message_stop"},
        ]
        stream(*map(frame, events), headers={"request-id": text})(handler)
        return
    answer = {"type": "message", "id": text, "model": text, "stop_reason": text, "usage": usage}
    status(200, {**answer, "content": [{"type": "text", "text": "done"}]}, {"request-id": text})(handler)


def _error(text: str) -> dict[str, object]:
    return {"error": {"message": text, "type": text, "code": text, "param": text}}


def _in_stream(handler: Handler, text: str) -> None:
    begin = frame({"choices": [{"index": 0, "delta": {"content": "half"}}]})
    stream(begin, frame(_error(text)), headers={"x-request-id": text})(handler)


def _line(handler: Handler, text: str) -> None:
    raw(f"HTTP/1.1 {text}\r\n\r\n".encode())(handler)


def _reason(handler: Handler, text: str) -> None:
    raw(f"HTTP/1.1 407 {text}\r\nContent-Length: 0\r\nX-Request-Id: {text}\r\n\r\n".encode())(handler)


def _folded(handler: Handler, text: str) -> None:
    raw(f"HTTP/1.1 200 OK\r\nX-A: b\r\n{text}\r\nContent-Length: 1\r\n\r\nx".encode())(handler)


def _tokens(handler: Handler, text: str) -> None:
    if handler.path.endswith("device/code"):
        _device(handler, text)
        return
    where = f"http://127.0.0.1:{handler.server.server_address[1]}/ok/v1"
    tokens = {"access_token": CANARIES["new access token"], "refresh_token": CANARIES["new refresh token"]}
    status(200, {**tokens, "token_type": "Bearer", "expires_in": 3600, "resource_url": where, "more": text})(handler)


def _device(handler: Handler, text: str) -> None:
    page = {"verification_uri": "https://service.test/authorize", "user_code": "ABCD", "interval": 0.1, "more": text}
    status(200, {"device_code": CANARIES["device code"], **page})(handler)


def _no_token(handler: Handler, text: str) -> None:
    if handler.path.endswith("device/code"):
        _device(handler, text)
        return
    status(400, {"error": text, "error_description": text, "you": text}, {"x-request-id": text})(handler)


_KINDS = {
    "ok": _good,
    "messages": _messages,
    "api": _tokens,
    "bad": lambda handler, text: status(400, _error(text), {"x-request-id": text})(handler),
    "who": lambda handler, text: status(401, _error(text), {"x-request-id": text})(handler),
    "text": lambda handler, text: status(500, f"<html>{text}", {"x-request-id": text})(handler),
    "plain": lambda handler, text: status(200, text, {"content-type": f"{text}; charset=utf-8"})(handler),
    "half": lambda handler, text: status(200, '{"choices": "' + text, {"content-type": "application/json"})(handler),
    "away": lambda handler, text: status(302, b"", {"Location": f"{AWAY[0]}/{quote(text)}?key={text}"})(handler),
    "host": lambda handler, text: status(307, b"", {"Location": f"http://{quote(text)}.test/{text}"})(handler),
    "odd": lambda handler, text: status(200, {"choices": [{"message": text, "finish_reason": text}]})(handler),
    "event": lambda handler, text: stream(f"data: {text}\n\n".encode())(handler),
    "list": lambda handler, text: stream(b"data: [" + json.dumps(text).encode() + b"]\n\n")(handler),
    "cut": lambda handler, text: stream(b'data: {"choices": "' + text.encode(), last_chunk=False, end="reset")(handler),
    "in-stream": _in_stream,
    "line": _line,
    "reason": _reason,
    "folded": _folded,
    "refuse": _no_token,
}
TROUBLE = [kind for kind in _KINDS if kind not in ("ok", "messages", "api", "refuse")]

# Writes down what is known of itself and of who has started it, and what lies around while it runs.
LOOK = """
import os, shutil, sys
from pathlib import Path

seen = Path(sys.argv[1]) / str(os.getpid())
seen.mkdir(parents=True)
(seen / "environ").write_bytes(Path("/proc/self/environ").read_bytes())
pid, lines = os.getpid(), b""
while b"flowcraft" not in (line := Path(f"/proc/{pid}/cmdline").read_bytes()):
    lines += line + b"\\n"
    pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
(seen / "argv").write_bytes(lines)
for place in (Path(".flowcraft"), Path(os.environ["TMPDIR"])):
    for path in place.rglob("*"):
        if path.is_file():
            shutil.copy(path, seen / f"files.{path.name}")
            (seen / f"mode.{path.name}").write_text(oct(path.stat().st_mode & 0o777))
"""

AGENT = """
import os, runpy, sys
runpy.run_path("look.py")
token = os.environ["APP_AGENT_TOKEN"]
print("secret", token, file=sys.stderr)
print("invalid api key", token, "proxy", os.environ["HTTP_PROXY"], file=sys.stderr)
sys.exit(1)
"""

PIPELINE = """
flowcraft: 1
inputs:
  token: {type: string, secret: true, env: APP_TOKEN}
  pem: {type: string, secret: true, env: APP_PEM}
  key: {type: string, secret: true}
stages:
  - {id: easy, prompt: hello}
  - {id: expensive_one, prompt: hello}
  - {id: login, prompt: hello, model: qwen}
  - {id: refused, prompt: hello, model: trouble, on_error: continue}
  - {id: elsewhere, prompt: hello, model: away, on_error: continue}
  - {id: proxied, prompt: hello, model: proxied, on_error: continue}
  - {id: tunneled, prompt: hello, model: tunneled, on_error: continue}
  - {id: agent, prompt: hello, model: agent, on_error: continue}
  - id: looking
    run: [PYTHON, look.py, SEEN/without]
  - id: looking_with_secrets
    run: [PYTHON, look.py, SEEN/with]
    env: {TOKEN: "${{ inputs.token }}", KEY: "${{ inputs.key }}", PEM: "${{ inputs.pem }}"}
  - id: telling
    run: [PYTHON, tell.py]
    env: {TOKEN: "${{ inputs.token }}", KEY: "${{ inputs.key }}", PEM: "${{ inputs.pem }}"}
  - id: failing
    on_error: continue
    run: |
      python3 tell.py >&2
      echo "$TOKEN"; printenv; set -x; : "$KEY"; exit 3
    env: {TOKEN: "${{ inputs.token }}", KEY: "${{ inputs.key }}", PEM: "${{ inputs.pem }}"}
  - id: slow
    on_error: continue
    timeout: 1s
    run: |
      printenv; printenv >&2; sleep 60
    env: {TOKEN: "${{ inputs.token }}", KEY: "${{ inputs.key }}", PEM: "${{ inputs.pem }}"}
  - id: function
    python: work:work
    on_error: continue
  - id: inner
    needs: [easy]
    uses: used.yaml
    with: {token: "${{ inputs.token }}"}
outputs:
  told: ${{ stages.telling.output }}
"""

USED = """
flowcraft: 1
inputs:
  token: {type: string, secret: true}
stages:
  - id: echo
    run: echo "$T"
    env: {T: "${{ inputs.token }}"}
"""

# Prints its secrets in all the usual ways.
TELL = """
import base64, html, json, os, shlex, sys, time, urllib.parse
for name in ("TOKEN", "KEY", "PEM"):
    value = os.environ[name]
    print(value)
    print(repr(value), json.dumps(value), urllib.parse.quote(value), urllib.parse.quote_plus(value), html.escape(value))
    print(shlex.quote(value), *[base64.b64encode(f"{before}{value}".encode()).decode() for before in ("", "a", "me:")])
    print(value.encode().hex())
    for letter in value[:40]:
        sys.stdout.write(letter)
        sys.stdout.flush()
    print(value[40:])
"""

WORK = """
import os
def work():
    return dict(os.environ)
"""
