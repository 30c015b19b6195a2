"""Questions on a real terminal: a budget that is reached, a command that may have done its work."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from killing import PATIENCE_S, Server, World, until

_ASKED = re.compile(rb"\(Enter(: stop here)?\): ")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Server() as server:
        made = World(tmp_path / "world", server)
        settings = made.folder / "settings.yaml"
        settings.write_text(settings.read_text() + "  budget: {calls: 2, on_exceed: ask}\n")
        yield made


def on_terminal(world: World, *answers: bytes, words: str = "run p.yaml --jobs 1") -> tuple[int, str]:
    """The exit code and what a terminal shows; each answer is typed when the question for it is there."""
    master, slave = pty.openpty()
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-c", _CONTROLLED, *words.split()],
        cwd=world.folder,
        env={**env, "TERM": "dumb"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown, left = b"", list(answers)
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(master, 65536):
            shown += data
            if left and len(_ASKED.findall(shown)) > len(answers) - len(left):
                os.write(master, left.pop(0))
    os.close(master)
    return process.wait(PATIENCE_S), shown.decode()


_CONTROLLED = """
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("flowcraft", run_name="__main__", alter_sys=True)
"""


def test_a_higher_limit_that_is_typed_lets_the_run_go_on(world: World) -> None:
    code, shown = on_terminal(world, b"1\n", b"20\n")

    assert code == 0, shown
    assert "the budget of 2 calls is not enough: 2 calls used" in shown
    assert "a limit has to be an amount above the old one" in shown
    assert len(world.asked) == 5


@pytest.mark.parametrize(("typed", "code"), [(b"\n", 1), (b"\x03", 130)])
def test_without_a_new_limit_the_run_stops_and_can_be_resumed(world: World, typed: bytes, code: int) -> None:
    ended, shown = on_terminal(world, typed)

    assert (ended, len(world.asked)) == (code, 2), shown
    assert "continue with: flowcraft resume" in shown
    assert world.run("resume", "--budget", "calls=20")[0] == 0
    assert (len(world.asked), world.broken()) == (5, [])


def test_nobody_is_asked_where_there_is_no_terminal(world: World) -> None:
    code, printed = world.run("run", "p.yaml", "--jobs", "1")

    assert (code, len(world.asked)) == (1, 2)
    assert "new limit" not in printed


def test_a_run_that_could_not_begin_is_not_said_to_be_kept(world: World) -> None:
    (world.folder / ".flowcraft").write_text("in the way")

    code, printed = world.run("run", "p.yaml")

    assert code == 1
    assert "what was paid for is kept" not in printed


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"\n", 1)])
def test_a_person_is_asked_whether_a_command_that_was_stopped_may_run_again(
    world: World, typed: bytes, code: int
) -> None:
    (world.folder / "hold").touch()
    process = world.start("run", "p.yaml", "--budget", "calls=20")
    assert until(lambda: (world.folder / "begun").exists(), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    (world.folder / "hold").unlink()

    ended, shown = on_terminal(world, typed, words="resume")

    assert ended == code, shown
    assert "'work' was stopped while it ran: it may have done part of its work" in shown
    assert "run it again?" in shown
    assert world.continued()[0] == 0
    assert world.broken() == []
