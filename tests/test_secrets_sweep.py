"""No secret comes out anywhere: canaries in all the places where secrets are, looked for in all that can be seen.

A user's whole day in real processes (tests/secrets_scene.py, secrets_sdk.py) against a service that repeats what it is
told, with databases, records, logs, spans, tracebacks, children and files looked at as bytes.
"""

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from urllib.parse import quote

import pytest
import secrets_scene as scene
from canaries import CANARIES, CORES, leaks
from servers import ChatServer, answer

pytest.importorskip("opentelemetry.sdk")

OWN_FILES = ("oauth_creds.json", ".netrc", "userinfo.yaml", "misplaced.yaml")  # where the user has put secrets
PROXY = "password of the proxy"
# Who needs a secret to work.
NEEDED = {
    "environ with": ("secret input by variable", "secret input by option", "secret input of many lines"),
    "environ agent": ("variable of an agent", PROXY),
}
UNUSED = ("access token", "password in a URL", "password in .netrc", "variable of nobody")
_COMMANDS = ("plan", "validate", "graph", "settings", "models", "auth", "run", "resume", "runs", "show", "why", "cost")
SINKS = (
    *(f"stdout of {command}" for command in (*_COMMANDS, "export", "test", "chat")),
    *("stderr", "output of the SDK", "log", "traceback", "cause and context", "repr str format", "pickle", "outcomes"),
    "variables of frames",
    *("spans and metrics", "environ without", "argv without", "argv with", "argv agent"),
    *("files during a run", "files afterwards"),
)


@dataclass
class Day:
    """What was seen: bytes by sink, and the world in which it happened."""

    root: Path
    env: Mapping[str, str]
    server: ChatServer
    elsewhere: ChatServer
    sinks: dict[str, list[bytes]] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)

    def seen(self, sink: str, data: bytes) -> None:
        self.sinks.setdefault(sink, []).append(data)

    def flowcraft(self, *words: str) -> bytes:
        """Run the command line; what it writes goes to the sinks."""
        done = self._run("-m", "flowcraft", *words)
        self.seen(f"stdout of {words[0]}", done.stdout)
        self.seen("stderr", done.stderr)
        return done.stdout

    def program(self, *words: object) -> None:
        """Run a program in Python, which writes what it sees to files."""
        done = self._run(*map(str, words))
        assert done.returncode == 0, done.stderr.decode()
        self.seen("output of the SDK", done.stderr + done.stdout)

    def _run(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        argv = [sys.executable, *words]
        return subprocess.run(argv, env=self.env, cwd=self.root / "work", capture_output=True, check=False)


def _world(root: Path, url: str) -> dict[str, str]:
    """The folders and files of the user, and the environment."""
    for folder in ("home/.qwen", "work", "seen", "tmp", "sdk"):
        (root / folder).mkdir(parents=True, mode=0o700)
    login = {name: CANARIES[name.replace("_", " ")] for name in ("access_token", "refresh_token")}
    files = {
        "home/.qwen/oauth_creds.json": json.dumps({**login, "token_type": "Bearer", "expiry_date": 1}),
        "home/.netrc": f"machine 127.0.0.1 login me password {CANARIES['password in .netrc']}\n",
        "work/pipeline.yaml": scene.PIPELINE.replace("PYTHON", sys.executable).replace("SEEN", str(root / "seen")),
        "work/used.yaml": scene.USED,
        "work/look.py": scene.LOOK,
        "work/tell.py": scene.TELL,
        "work/work.py": scene.WORK,
        "work/agent.py": scene.AGENT,
        "work/settings.yaml": _settings(url, root),
        "work/userinfo.yaml": dedent(f"""\
            llm:
              cheap_model: small
              models:
                small:
                  provider: openai
                  base_url: http://me:{quote(CANARIES["password in a URL"], safe="")}@127.0.0.1:1/v1
            """),
        "work/misplaced.yaml": dedent(f"""\
            llm:
              cheap_model: small
              models:
                small: {{provider: openai, api_key: {CORES["key of openai"]}, api_key_env: {CORES["key of qwen"]}}}
            """),
    }
    for name, text in files.items():
        path = root / name
        path.write_text(text)
        path.chmod(0o600)
    proxy = f"http://me:{quote(CANARIES['password of the proxy'], safe='')}@{url.removeprefix('http://')}"
    return {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        "PYTHONPATH": os.pathsep.join([str(scene.ROOT), str(scene.ROOT / "tests")]),
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "tmp"),
        "HTTP_PROXY": proxy,
        "HTTPS_PROXY": proxy,
        "NO_PROXY": "127.0.0.1",
        "APP_OPENAI": CANARIES["key of openai"],
        "APP_ANTHROPIC": CANARIES["key of anthropic"],
        "APP_QWEN": CANARIES["key of qwen"],
        "APP_TOKEN": CANARIES["secret input by variable"],
        "APP_PEM": CANARIES["secret input of many lines"],
        "APP_NOBODY": CANARIES["variable of nobody"],
        "APP_AGENT_TOKEN": CANARIES["variable of an agent"],
    }


def _settings(url: str, root: Path) -> str:
    agent = json.dumps([sys.executable, "agent.py", str(root / "seen/agent")])
    return dedent(f"""\
        llm:
          cheap_model: small
          expensive_model: claude
          expensive_stages: ["expensive_*"]
          retries: 0
          telemetry: otel
          models:
            small: {{provider: openai, base_url: "{url}/ok/v1", api_key_env: APP_OPENAI}}
            claude: {{provider: anthropic, base_url: "{url}/messages", api_key_env: APP_ANTHROPIC}}
            qwen: {{provider: qwen-code, base_url: "{url}/ok/v1", auth: oauth, oauth_base_url: "{url}"}}
            trouble: {{provider: openai, base_url: "{url}/bad/v1", api_key_env: APP_OPENAI}}
            away: {{provider: openai, base_url: "{url}/away/v1", api_key_env: APP_OPENAI}}
            proxied: {{provider: openai, base_url: "http://service.test/bad/v1", api_key_env: APP_OPENAI}}
            tunneled: {{provider: openai, base_url: "https://service.test/bad/v1", api_key_env: APP_OPENAI}}
            signing_in: {{provider: qwen-code, auth: oauth, oauth_base_url: "{url}/refuse", oauth_path: other.json}}
            agent: {{provider: command, cwd: ., command: {agent}, env: [APP_AGENT_TOKEN]}}
        """)


def _spend(day: Day) -> None:
    """One after another: the SDK, what only reads, runs, what is kept of them, questions, a login."""
    key = f"key={CANARIES['secret input by option']}"
    day.program(scene.ROOT / "tests/secrets_sdk.py", day.server.base_url.removesuffix("/v1"), day.root / "sdk")
    day.flowcraft("plan", "pipeline.yaml", "-i", key, "--json")
    day.flowcraft("plan", "pipeline.yaml", "-i", key, "--render")
    for form in ("text", "json", "sarif", "github"):
        files = ("pipeline.yaml", "settings.yaml", "userinfo.yaml", "misplaced.yaml")
        day.flowcraft("validate", *files, "--format", form)
    day.flowcraft("graph", "pipeline.yaml")
    for command in (("settings", "show"), ("models",), ("auth", "status")):
        day.flowcraft(*command)
        day.flowcraft(*command, "--json")
    day.flowcraft("settings", "show", "--settings", "userinfo.yaml")
    day.flowcraft("run", "pipeline.yaml", "-i", key, "--json", "--record", "record.jsonl")
    day.flowcraft("run", "pipeline.yaml", "-i", key, "--fresh")
    day.flowcraft("run", "pipeline.yaml", "-i", key, "--replay", "record.jsonl")
    day.flowcraft("run", "pipeline.yaml", "-i", key, "-i", f"unknown={CANARIES['secret input by option']}")
    day.flowcraft("resume", "-i", key)
    (run, *_) = [one["id"] for one in json.loads(day.flowcraft("runs", "--json"))]
    for command in (("runs",), ("show", run), ("show", run, "--json"), ("cost", run), ("export", run)):
        day.flowcraft(*command)
    for stage in ("refused", "agent", "failing"):
        day.flowcraft("show", run, stage)
        day.flowcraft("why", run, stage, "--json")
    day.flowcraft("test", "--record", run, "kept.test.yaml")
    for model in ("trouble", "proxied", "tunneled", "agent"):
        day.flowcraft("chat", "hello", "--model", model, "--stream")
    day.flowcraft("auth", "login", "qwen", "--model", "signing_in")


def _gather(day: Day) -> None:
    """What lies around afterwards, and what programs have seen while they ran."""
    for path in _files(day.root / "seen"):
        kind = path.name.partition(".")[0]
        if kind == "mode":
            day.modes[path.name] = path.read_text()
        else:
            day.seen("files during a run" if kind == "files" else f"{kind} {path.parts[-3]}", path.read_bytes())
    for path in _files(day.root / "sdk"):
        day.seen(path.name, path.read_bytes())
    for path in (*_files(day.root / "work"), *_files(day.root / "home"), *_files(day.root / "tmp")):
        if path.name not in OWN_FILES:
            day.seen("files afterwards", path.read_bytes())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    root = tmp_path_factory.mktemp("day")
    with ChatServer(scene.answered) as server, ChatServer(answer("here")) as elsewhere:
        scene.AWAY[0] = elsewhere.base_url
        url = server.base_url.removesuffix("/v1")
        day = Day(root, _world(root, url), server, elsewhere)
        _spend(day)
        _gather(day)
        yield day


@pytest.mark.parametrize("sink", SINKS)
def test_no_secret_is_in(sink: str, day: Day) -> None:
    assert day.sinks[sink]
    assert {name: data for data in day.sinks[sink] for name in leaks(data)} == {}


def test_no_sink_is_forgotten(day: Day) -> None:
    assert set(day.sinks) == {*SINKS, *NEEDED}


@pytest.mark.parametrize("sink", NEEDED)
def test_a_program_is_given_what_it_needs_and_nothing_else(sink: str, day: Day) -> None:
    assert {name for data in day.sinks[sink] for name in leaks(data)} == set(NEEDED[sink])


def test_files_of_runs_are_for_their_owner_only(day: Day) -> None:
    assert set(day.modes.values()) == {"0o600"}
    assert {"mode.flowcraft.db", "mode.flowcraft.db-wal", "mode.flowcraft.db-shm"} <= day.modes.keys()
    assert stat.S_IMODE((day.root / "work/.flowcraft").stat().st_mode) == 0o700


def test_nothing_follows_a_redirect(day: Day) -> None:
    assert any("/away/" in request.path for request in day.server.requests)
    assert day.elsewhere.requests == []


def test_each_secret_was_where_it_is_used(day: Day) -> None:
    arrived = b"".join(f"{request.headers}{request.data!r}".encode() for request in day.server.requests)

    assert set(leaks(arrived)) == set(CORES) - {*NEEDED["environ with"], *NEEDED["environ agent"], *UNUSED} | {PROXY}


def test_calls_have_ended_in_all_ways(day: Day) -> None:
    outcomes = b"".join(day.sinks["outcomes"]).decode().splitlines()

    assert {"answered", "AuthError True", "IncompleteStream True", "ProviderError True", "TransportError True"} <= set(
        outcomes
    )
    assert {line for line in outcomes if line.endswith("False")} == {"RuntimeError False"}  # of the callback


@pytest.mark.parametrize("name", CORES)
def test_a_canary_is_found_however_it_is_written(name: str) -> None:
    secret = CANARIES[name]
    coded = [base64.b64encode(f"{before}{secret}".encode()).decode() for before in ("", "a", "me:", "Bearer ")]

    for text in (secret, repr(secret), json.dumps([secret]), quote(secret), secret.encode().hex(), *coded):
        assert leaks(f"before {text} after") == [name]
