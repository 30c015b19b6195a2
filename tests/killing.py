"""Runs that are killed from outside: a server that counts and stops where it is told, and what must hold afterwards.

Nothing inside FlowCraft is touched: a process is killed when the server has seen or sent certain bytes, when a file
appears, or when the database, read from outside, shows a certain state.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0
BIG = "€" * 900_000  # more than the buffers of a socket hold, so that sending it takes until somebody reads

PIPELINE = """\
flowcraft: 1
stages:
  - id: first
    prompt: one ${{ read('pad.txt') }}
    output: {save: out/first.txt}
  - id: left
    needs: [first]
    prompt: left of ${{ stages.first.output | truncate(200) }}
  - id: right
    needs: [first]
    prompt: right of ${{ stages.first.output | truncate(200) }}
    output: json
  - id: work
    needs: [left, right]
    run: |
      if [ -e hold ]; then touch begun; exec sleep 60; fi
      printf '%s\\n' "${{ stages.left.output }}" > out/work.txt
      touch finished
      if [ -e linger ]; then exec sleep 60; fi
      cat out/work.txt
  - id: edit
    prompt: edit ${{ stages.work.output }}
    output: files
    writes: ['out/**']
  - id: last
    prompt: last of ${{ stages.edit.output.files | tojson }} and ${{ stages.right.output.n }}
    output: {save: out/deep/last.txt}
outputs:
  result: ${{ stages.last.output }}
"""
STAGES = 6


class Server:
    """Answers by the text of the prompt, always the same; counts; stops at `point` and sets `reached`.

    Points: `headers` (the body is not read), `body`, `chunk:N`, `sent` (all is sent, nothing is held).
    `only` limits the point to prompts with that text.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.point: str | None = None
        self.only = ""
        self.refusals = 0
        self.answer_bytes = 0
        self.pause_s = 0.0  # after each piece of an answer
        self.span_s = 1.0  # about how long an undisturbed run takes
        self.reached = threading.Event()
        self._lock = threading.Lock()
        self._server = _Http(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def arm(self, point: str | None, only: str = "") -> None:
        """Stop the next request there."""
        self.reached.clear()
        self.point, self.only = point, only

    def came(self, prompt: str) -> None:
        with self._lock:
            self.asked.append(prompt)

    def refuse(self) -> bool:
        with self._lock:
            self.refusals -= 1
            return self.refusals >= 0

    def stop_here(self, point: str, prompt: str, connection: Any) -> bool:
        """Hold the connection until the client is gone, if this is the armed point."""
        if self.point != point or self.only not in prompt:
            return False
        self.point = None
        self.reached.set()
        with contextlib.suppress(OSError):
            connection.settimeout(PATIENCE_S)
            while connection.recv(65536) and point != "headers":
                pass
        return True

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, owner: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients die here; that is the point."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def do_POST(self) -> None:
        owner = self.server.owner
        self.close_connection = True
        if owner.point == "headers":
            owner.came("(headers)")
            owner.point = None
            owner.reached.set()
            time.sleep(0.3)  # the client is blocked in its send meanwhile; it is killed long before that
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = next(_text(one["content"]) for one in body["messages"] if one["role"] == "user")
        owner.came(prompt)
        if owner.stop_here("body", prompt, self.connection):
            return
        if owner.refuse():
            self._reply(429, b"{}", {"Retry-After": "1"})
            owner.reached.set()
            return
        self._answer(prompt, answer_to(prompt, owner.answer_bytes))

    def _answer(self, prompt: str, text: str) -> None:
        owner = self.server.owner
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        size = max(1, len(text) // 4)
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        for number, piece in enumerate(pieces, start=1):
            self._event({"delta": {"content": piece}, "finish_reason": None})
            if owner.stop_here(f"chunk:{number}", prompt, self.connection):
                return
            time.sleep(owner.pause_s)
        self._event({"delta": {}, "finish_reason": "stop"}, usage=True)
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")
        if owner.point == "sent" and owner.only in prompt:
            owner.point = None
            owner.reached.set()

    def _event(self, choice: dict[str, Any], *, usage: bool = False) -> None:
        data: dict[str, Any] = {"id": "1", "model": "counted", "choices": [{"index": 0, **choice}]}
        if usage:
            data["usage"] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        self._chunk(b"data: " + json.dumps(data).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _reply(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def answer_to(prompt: str, padding: int = 0) -> str:
    """What the server answers: JSON for `right`, files for `edit`, else a text; it depends on the prompt alone."""
    mark = hashlib.sha256(prompt.encode()).hexdigest()[:12]
    if prompt.startswith("edit"):
        return "".join(f"out/{name}.txt\n```\n{mark} {name * 600}\n```\n" for name in "ab")
    if prompt.startswith("right"):
        return json.dumps({"n": int(mark, 16)})
    return f"answer {mark} to '{prompt[:20]}'" + "." * (padding if prompt.startswith("one") else 0)


class World:
    """One workspace with its pipeline, and the processes that work on it."""

    def __init__(self, folder: Path, server: Server, *, big: bool = False) -> None:
        self.folder = folder
        self.server = server
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "out").mkdir(exist_ok=True)
        self.settings = (
            "llm:\n  cheap_model: counted\n  expensive_model: counted\n  models:\n    counted: {provider: openai, "
            f"model: counted, base_url: '{server.base_url}', prices: {{input: 1, output: 2}}}}\n"
        )
        (folder / "settings.yaml").write_text(self.settings)
        (folder / "p.yaml").write_text(PIPELINE)
        (folder / "pad.txt").write_text(BIG if big else "-")
        self.before = len(server.asked)
        self.faults: list[str] = []
        self.refused_s = 0.0  # how long a second resume took to be refused

    def sign_in(self, login: Path, service: str) -> None:
        """Have the model asked with a Qwen login that `service` refreshes."""
        more = f"provider: qwen-code, oauth_base_url: '{service}', oauth_path: '{login}'"
        (self.folder / "settings.yaml").write_text(self.settings.replace("provider: openai", more))

    def fault(self, what: str) -> bool:
        """Note for `broken` what does not hold; False."""
        self.faults.append(what)
        return False

    def start(self, *words: str, quiet: bool = False) -> "subprocess.Popen[bytes]":
        """A `flowcraft` process at work here; `quiet` throws away what it prints, which else must be read."""
        env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-m", "flowcraft", *words],
            cwd=self.folder,
            env=env,
            stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """A `flowcraft` process that is left alone; its exit code and what it printed."""
        process = self.start(*words)
        out = process.communicate(timeout=PATIENCE_S * 2)[0]
        return process.returncode, out.decode()

    def continued(self) -> tuple[int, str]:
        """Go on where the dead process was: `resume`, or `run` if it had not come so far as to write a run."""
        if not self.rows("SELECT 1 FROM runs"):
            return self.run("run", "p.yaml", "--jobs", "2")
        return self.run("resume", "--on-unknown", "rerun")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the database says, read from outside; nothing if it is not there yet."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
                return connection.execute(sql).fetchall()
        except sqlite3.Error:
            return []

    @contextlib.contextmanager
    def changed(self) -> Iterator[sqlite3.Connection]:
        """Write into the database from outside."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            yield connection

    @property
    def database(self) -> Path:
        return self.folder / ".flowcraft" / "flowcraft.db"

    @property
    def log(self) -> Path:
        return self.database.with_name("flowcraft.db-wal")

    @property
    def asked(self) -> list[str]:
        """The requests that the server got from this world."""
        return self.server.asked[self.before :]

    def broken(self, asked: list[str] | None = None) -> list[str]:
        """What does not hold after the run has come to its end; empty if all is well."""
        asked, found = self.asked if asked is None else asked, [*self.faults]
        if self.rows("PRAGMA integrity_check") != [("ok",)]:
            found.append("integrity")
        rows = self.rows("SELECT count(*) FROM calls")[0][0]
        if len(asked) > rows:
            found.append(f"{len(asked)} requests, {rows} rows")
        if self.rows("SELECT key FROM calls WHERE state = 'answered' GROUP BY run, key HAVING count(*) > 1"):
            found.append("an answer that was recorded was asked for again")
        done = self.rows("SELECT path FROM stages WHERE status = 'succeeded' ORDER BY path")
        if len(done) != STAGES * len(self.rows("SELECT 1 FROM runs WHERE status = 'succeeded'")):
            found.append(f"stages done: {done}")
        left = [str(path) for path in self.folder.rglob("*.tmp")] + [str(p) for p in self.folder.rglob("*.lock")]
        left += [str(path) for path in self.folder.glob(".flowcraft/runs/*")]
        return found + left + [f"process {pid}" for pid in self.orphans()]

    def outputs(self) -> dict[str, bytes]:
        """The files that the run has made."""
        return {path.name: path.read_bytes() for path in sorted((self.folder / "out").rglob("*.txt"))}

    def orphans(self) -> list[int]:
        """Processes of a run of this world that nobody waits for."""
        found = []
        for (run_id,) in self.rows("SELECT id FROM runs"):
            for place in Path("/proc").glob("[0-9]*/environ"):
                with contextlib.suppress(OSError):
                    if f"FLOWCRAFT_RUN={run_id}".encode() in place.read_bytes():
                        found.append(int(place.parent.name))
        return found


def kill(process: "subprocess.Popen[bytes]") -> bool:
    """SIGKILL; says whether it was still alive."""
    alive = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()
    return alive


def until(seen: Callable[[], Any], process: "subprocess.Popen[bytes]") -> bool:
    """Look again and again until it is seen; False if the process ended before."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if seen():
            return True
        if process.poll() is not None:
            return bool(seen())
    raise AssertionError("nothing was seen")


@contextlib.contextmanager
def watched(world: World) -> Iterator[Callable[[str], Any]]:
    """Ask the database of a world quickly: one connection, opened when the file is there."""
    held: list[sqlite3.Connection] = []

    def ask(sql: str) -> Any:
        try:
            if not held:
                if not world.database.exists():
                    return None
                held.append(sqlite3.connect(f"file:{world.database}?mode=ro", uri=True))
            row = held[0].execute(sql).fetchone()
            return row and row[0]
        except sqlite3.Error:
            return None

    try:
        yield ask
    finally:
        for connection in held:
            connection.close()
