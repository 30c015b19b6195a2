"""What the tests of the Qwen login share: files, token sources, programs that use a login and are killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from qwen_service import QwenProcess

from flowcraft.llm.oauth.session import Patience, TokenSource
from flowcraft.llm.oauth.wire import oauth_service

ROOT = Path(__file__).parents[1]
QUICK = Patience(peer_s=0.3, request_s=2.0)


def write(path: Path, fields: Any) -> Path:
    """The credential file with `fields`, as the CLI leaves it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name("being-written")
    aside.write_text(json.dumps(fields, indent=2))
    aside.chmod(0o600)
    os.replace(aside, path)
    return path


def source(path: Path, service: QwenProcess, patience: Patience = QUICK) -> TokenSource:
    return TokenSource(path, oauth_service(service.base_url), patience=patience)


def python(code: str, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """A child process that runs `code`, which finds flowcraft and these test modules."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options,
    )  # fmt: skip


def settings(folder: Path, service: QwenProcess, path: Path, *, more: str = "") -> Path:
    """A settings file whose cheap model is Qwen's at `service`, with the login in `path`."""
    text = f"""\
llm:
  cheap_model: qwen3-coder-plus
  expensive_model: strong
  qwen_oauth_path: {path}
  retries: 0
  models:
    qwen3-coder-plus:
      oauth_base_url: {service.base_url}
      allowed_hosts: ["127.0.0.1"]
    strong:
      provider: qwen-code
      model: qwen3-max
      base_url: {service.resource_url}
      api_key_env: TEST_QWEN_KEY
{more}"""
    place = folder / "settings.yaml"
    place.write_text(text)
    return place


WORKER = """
import json, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from flowcraft.core.errors import FlowcraftError
from flowcraft.core.scope import Scope
from qwen_parts import worker_source
tokens, threads = worker_source(sys.argv[1], sys.argv[2]), int(sys.argv[3])
start = threading.Barrier(threads)
def ask(refused):
    start.wait()
    try:
        found = tokens.after_refusal(refused, Scope(60)) if refused else tokens.current(Scope(60))
        return found.access_token, None
    except FlowcraftError as error:
        return None, type(error).__name__ + ": " + str(error)
with ThreadPoolExecutor(threads) as pool:
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        refused = line.split()[1:]
        answers = list(pool.map(ask, [refused[0] if refused else None] * threads))
        found = sorted({token for token, _ in answers if token})
        print(json.dumps({"tokens": found, "failed": [error for _, error in answers if error]}), flush=True)
"""

VICTIM = """
import os, signal, sys
point, path, service = sys.argv[1:]
def die_at(event, arguments):
    name = str(arguments[0]) if arguments else ""
    here = {
        "before the CLI's lock": event == "open" and name.endswith("oauth_creds.lock"),
        "before the new file": event == "open" and ".flowcraft-" in name,
        "before the request": event == "socket.connect",
        "before the replacement": event == "os.rename" and ".flowcraft-" in name,
        "after the replacement": event == "os.remove" and name.endswith("oauth_creds.lock"),
    }
    if here.get(point):
        os.kill(os.getpid(), signal.SIGKILL)
from flowcraft.core.scope import Scope
from qwen_parts import worker_source
tokens = worker_source(path, service)
sys.addaudithook(die_at)
tokens.current(Scope(60))
"""

POINTS = (
    "before the CLI's lock",
    "before the new file",
    "before the request",
    "during the request",
    "before the replacement",
    "after the replacement",
)


def worker_source(path: str, base_url: str) -> TokenSource:
    """A token source with the waits of the product, for a process of its own."""
    return TokenSource(Path(path), oauth_service(base_url))


class Peer:
    """A process that answers "go" with the tokens it has got; a context manager."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self.child = child
        self.answer()

    @classmethod
    def python(cls, path: Path, service: QwenProcess, threads: int = 1) -> "Peer":
        return cls(python(WORKER, path, service.base_url, threads))

    @classmethod
    def node(cls, path: Path, service: QwenProcess, npm: str) -> "Peer":
        """The token manager of the real CLI, with the folder of `path` as its own."""
        script = Path(__file__).with_name("qwen_peer.mjs")
        environment = {"PATH": os.environ["PATH"], "HOME": str(path.parent.parent), "QWEN_HOME": str(path.parent)}
        return cls(
            subprocess.Popen(
                ["node", str(script), npm, service.base_url],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            )
        )  # fmt: skip

    def say(self, line: str = "go") -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, self.child.stderr and self.child.stderr.read()
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self.child.communicate()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def race(peers: list[Peer], line: str = "go") -> tuple[set[str], list[str]]:
    """All peers at the same moment; the tokens they got and what failed."""
    for peer in peers:
        peer.say(line)
    answers = [peer.answer() for peer in peers]
    return {token for answer in answers for token in answer["tokens"]}, [e for a in answers for e in a["failed"]]


def killed(point: str, path: Path, service: QwenProcess) -> None:
    """Let a process die while it refreshes the login in `path`."""
    if point == "during the request":
        service.script(token=["held-then-dropped"])
    victim = python(VICTIM, point, path, service.base_url)
    if point == "during the request":
        held = service.counts()["held"]
        while service.counts()["held"] == held and victim.poll() is None:
            time.sleep(0.005)
        victim.kill()
    victim.communicate()
    assert victim.returncode == -9, f"the process did not get to the point {point!r}"
    service.do("open")
