"""Many processes on one login: our own, killed ones, and the token manager of the real qwen-code CLI.

The real CLI is looked for in the folder $FLOWCRAFT_TEST_NPM (with node_modules/@qwen-code/qwen-code).
`benchmarks/refresh_race.py` runs the same with larger counts.
"""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from qwen_parts import POINTS, Peer, killed, python, race, source, write
from qwen_service import CANARY, QwenProcess

from flowcraft.core.scope import Scope
from flowcraft.llm.oauth.credentials import read

NPM = os.environ.get("FLOWCRAFT_TEST_NPM", "")
npm = pytest.mark.skipif(not NPM, reason="set FLOWCRAFT_TEST_NPM to a folder with @qwen-code/qwen-code")


@pytest.fixture
def path(service: QwenProcess, workspace: Path) -> Path:
    return write(workspace / ".qwen" / "oauth_creds.json", service.credentials(expired=True))


def renew(path: Path, service: QwenProcess, *, expired: bool = True) -> str:
    """Another login comes into the file, visibly newer; its access token."""
    old_ns = path.stat().st_mtime_ns
    fields = service.credentials(expired=expired)
    write(path, fields)
    os.utime(path, ns=(old_ns + 5_000_000, old_ns + 5_000_000))
    token: str = fields["access_token"]
    return token


def test_processes_and_threads_share_one_refresh(service: QwenProcess, path: Path) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer.python(path, service, threads=4)) for _ in range(3)]
        for number in range(1, 4):
            refused = renew(path, service, expired=number != 2)
            tokens, failed = race(peers, f"go {refused}" if number == 2 else "go")
            assert (len(tokens), failed) == (1, [])
            assert service.counts()["token requests"] == number


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_holder_breaks_nothing_and_holds_nobody_up(service: QwenProcess, path: Path, point: str) -> None:
    killed(point, path, service)

    assert read(path).access_token.startswith(CANARY)
    found = source(path, service).current(Scope(5.0))  # far less than the 35 s of the CLI's stale lock
    assert found.access_token == read(path).access_token
    assert service.counts()["refreshed"] == 1
    assert service.counts()["reused"] == 0
    assert not list(path.parent.glob(".*.tmp"))
    # After the replacement there is nothing to do under the locks; a later refresh clears the orphan away.
    assert (path.parent / "oauth_creds.lock").exists() == (point == "after the replacement")


def test_no_token_in_output_arguments_and_environment_of_children(service: QwenProcess, path: Path) -> None:
    code = """
import logging, os, subprocess, sys
logging.basicConfig(level=logging.DEBUG)
from flowcraft.core.scope import Scope
from qwen_parts import worker_source
found = worker_source(sys.argv[1], sys.argv[2]).current(Scope(20))
print(found, [found], vars)
print(sys.argv, dict(os.environ), open("/proc/self/cmdline").read() if os.path.exists("/proc/self") else "")
subprocess.run(["env"], check=True)
raise RuntimeError(found)
"""
    child = python(code, path, service.base_url)

    out, err = child.communicate(timeout=60)

    assert "RuntimeError: Credentials(" in err
    assert "DEBUG" in err or "INFO" in err
    assert CANARY not in out + err


@npm
@pytest.mark.npm
def test_real_clis_and_we_share_one_refresh(service: QwenProcess, path: Path) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer.python(path, service, threads=4)) for _ in range(2)]
        peers += [stack.enter_context(Peer.node(path, service, NPM)) for _ in range(2)]
        for number in range(1, 6):
            renew(path, service)
            tokens, failed = race(peers)
            assert (len(tokens), failed) == (1, [])
            assert service.counts()["token requests"] == number


@npm
@pytest.mark.npm
def test_reads_what_a_real_cli_has_written_and_it_reads_ours(service: QwenProcess, path: Path) -> None:
    with Peer.node(path, service, NPM) as cli:
        theirs, _ = race([cli])
        assert theirs == {source(path, service).current(Scope(5.0)).access_token}
        assert service.counts()["token requests"] == 1

        renew(path, service)
        ours = source(path, service).current(Scope(5.0)).access_token
        assert race([cli]) == ({ours}, [])
        assert service.counts()["token requests"] == 2


@npm
@pytest.mark.npm
def test_a_forced_refresh_of_a_real_cli_is_noticed(service: QwenProcess, path: Path) -> None:
    tokens = source(path, service)
    old = tokens.current(Scope(5.0)).access_token
    with Peer.node(path, service, NPM) as cli:
        new, failed = race([cli], "force")

    assert (new, failed) == ({tokens.after_refusal(old, Scope(5.0)).access_token}, [])
    assert service.counts()["token requests"] == 2


@npm
@pytest.mark.npm
def test_an_exiting_cli_that_removes_our_lock_costs_no_login(service: QwenProcess, path: Path) -> None:
    service.script(token=["held"])
    with Peer.python(path, service) as ours, Peer.node(path, service, NPM) as cli:
        ours.say()
        while service.counts()["held"] == 0:
            pass
        cli.close()  # its exit handler unlinks the lock, whoever holds it
        assert not (path.parent / "oauth_creds.lock").exists()
        service.do("open")

        answer = ours.answer()

    assert answer["failed"] == []
    assert answer["tokens"] == [read(path).access_token]
    assert service.counts()["refreshed"] == 1


@npm
@pytest.mark.npm
@pytest.mark.slow
def test_the_real_cli_answers_with_the_login_that_we_wrote(service: QwenProcess, path: Path) -> None:
    source(path, service).current(Scope(5.0))
    ours = read(path).access_token
    quiet = {"privacy": {"usageStatisticsEnabled": False}, "general": {"enableAutoUpdate": False}}
    auth = {"security": {"auth": {"selectedType": "qwen-oauth", "useExternal": True}}}
    (path.parent / "settings.json").write_text(json.dumps({**quiet, **auth, "telemetry": {"enabled": False}}))

    done = subprocess.run(
        ["node", f"{NPM}/node_modules/@qwen-code/qwen-code/cli.js", "-p", "say hello"],
        capture_output=True, text=True, timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": str(path.parent.parent), "QWEN_HOME": str(path.parent),
             "QWEN_CODE_NO_RELAUNCH": "1", "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip

    assert "Hello, world" in done.stdout, done.stderr
    assert {chat["headers"]["authorization"] for chat in service.chats()} == {f"Bearer {ours}"}
    assert read(path).access_token == ours
