"""The program and its surroundings: closed, full or narrow streams, and signals from outside; real processes."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIPELINE = """\
flowcraft: 1
stages:
  - id: words
    run: echo "Grüße 🎉"
outputs:
  words: ${{ stages.words.output }}
"""
LONG = """\
flowcraft: 1
stages:
  - id: long
    run: echo $$ > pid; exec sleep 600
"""


@pytest.fixture(autouse=True)
def pipeline(workspace: Path) -> Path:
    path = workspace / "p.yaml"
    path.write_text(PIPELINE, encoding="utf-8")
    return path


def shell(command: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[bytes]:
    """Run a bash command in which "$FLOWCRAFT" is the program."""
    program = f'flowcraft() {{ "{sys.executable}" -m flowcraft "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", program + command], env=environment(env), capture_output=True, timeout=120, check=False
    )


def environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@pytest.mark.parametrize("command", ["run p.yaml", "run p.yaml --json", "validate p.yaml", "--help"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_hurt_nobody(command: str, closed: str, workspace: Path) -> None:
    done = shell(f"flowcraft {command} {closed}")

    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_a_question_from_a_closed_stdin_is_empty_and_refused() -> None:
    done = shell("flowcraft chat - <&-")

    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full device")
@pytest.mark.parametrize("command", ["run p.yaml", "run p.yaml --json", "validate p.yaml", "schema pipeline", "--help"])
def test_output_that_cannot_be_written_is_an_error_of_the_machine(command: str) -> None:
    done = shell(f"flowcraft {command} > /dev/full")

    assert done.returncode == 1
    assert b"error: No space left on device" in done.stderr
    assert b"= help: " in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full device")
def test_a_run_whose_output_cannot_be_written_tells_how_to_go_on() -> None:
    done = shell("flowcraft run p.yaml > /dev/full")

    assert b"continue with: flowcraft resume" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_character_can_be_written_in_every_encoding(encoding: str) -> None:
    done = shell("flowcraft run p.yaml", {"PYTHONIOENCODING": encoding})

    assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0)
    assert b"words: Gr" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json_in_every_encoding(encoding: str) -> None:
    done = shell("flowcraft run p.yaml --json", {"PYTHONIOENCODING": encoding})

    text = done.stdout.decode("utf-8" if encoding == "ascii" else encoding)
    assert json.loads(text)["outputs"] == {"words": "Grüße 🎉"}


def test_a_folder_that_is_gone_is_named() -> None:
    done = shell("mkdir gone && cd gone && rmdir ../gone && flowcraft models")

    assert done.returncode == 1
    assert b"error: the current folder does not exist any more" in done.stderr
    assert b"Traceback" not in done.stderr


def heed_hangups() -> None:
    """Undo what the tests themselves may run under: nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def told(fifo: int) -> str:
    """What a stage writes into the named pipe, which tells that it runs."""
    ready, _, _ = select.select([fifo], [], [], 60)
    assert ready, "the stage was not started"
    return os.read(fifo, 100).decode()


@pytest.fixture
def pid(workspace: Path) -> Iterator[int]:
    (workspace / "long.yaml").write_text(LONG)
    os.mkfifo("pid")
    fifo = os.open("pid", os.O_RDWR)  # for reading alone it would wait for a writer
    yield fifo
    os.close(fifo)


@pytest.fixture
def running(pid: int) -> Iterator["subprocess.Popen[bytes]"]:
    program = [sys.executable, "-m", "flowcraft", "run", "long.yaml"]
    with subprocess.Popen(
        program, env=environment({}), stdout=subprocess.DEVNULL, start_new_session=True, preexec_fn=heed_hangups
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_signal_from_outside_leaves_no_program_running(
    name: str, running: "subprocess.Popen[bytes]", pid: int
) -> None:
    stage = int(told(pid))
    running.send_signal(signal.Signals[name])

    assert running.wait(60) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(stage, 0)


# Where an import calls back, an exception is printed and lost: Ctrl-C comes exactly there.
PRESSED = """
import os, signal, sys, weakref

class Finder:
    def find_spec(self, name, *_):
        if name == {module!r} and self in sys.meta_path:
            sys.meta_path.remove(self)
            thing = set()
            watch = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del thing

sys.argv[1:] = ["run", "p.yaml"]
sys.meta_path.insert(0, Finder())
from flowcraft.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["click", "flowcraft.cli.run", "jinja2", "flowcraft.runner.run"])
def test_ctrl_c_while_modules_are_imported_ends_the_program_with_a_word(module: str, workspace: Path) -> None:
    (workspace / "p.yaml").write_text("flowcraft: 1\nstages:\n  - {id: a, run: sleep 60; touch done}\n")

    done = subprocess.run(
        [sys.executable, "-c", PRESSED.format(module=module)], env=environment({}), capture_output=True, check=False
    )

    assert (done.returncode, done.stderr.decode().splitlines()[-1:]) == (130, ["interrupted"])
    assert b"Traceback" not in done.stderr
    assert not (workspace / "done").exists()


def test_a_terminal_that_is_closed_leaves_no_program_running(pid: int) -> None:
    child, terminal = pty.fork()
    if child == 0:
        heed_hangups()
        os.execve(sys.executable, [sys.executable, "-m", "flowcraft", "run", "long.yaml"], environment({}))
    stage = int(told(pid))
    os.close(terminal)  # the window is closed

    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status), "it was killed and could not clean up"
    with pytest.raises(ProcessLookupError):
        os.kill(stage, 0)


def test_a_run_under_nohup_outlives_the_terminal(pid: int, workspace: Path) -> None:
    os.mkfifo("go")
    (workspace / "wait.yaml").write_text("flowcraft: 1\nstages:\n  - id: wait\n    run: echo 1 > pid; cat go\n")
    program = ["nohup", sys.executable, "-m", "flowcraft", "run", "wait.yaml"]
    with subprocess.Popen(
        program, env=environment({}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        told(pid)
        process.send_signal(signal.SIGHUP)
        Path("go").write_text("go on")
        assert process.wait(60) == 0


@pytest.mark.parametrize("options", ["", "--json"])
def test_a_run_goes_on_when_the_reader_of_its_output_leaves(options: str, workspace: Path) -> None:
    slow = "flowcraft: 1\nstages:\n  - {id: a, run: sleep 0.5}\n  - {id: b, needs: [a], run: touch done}\n"
    (workspace / "p.yaml").write_text(slow)

    done = shell(f"flowcraft run p.yaml {options} | true; echo ${{PIPESTATUS[0]}}")

    assert done.stdout.decode().splitlines()[-1] == "0"
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr
    assert (workspace / "done").exists()


def test_a_list_ends_quietly_when_its_reader_leaves() -> None:
    done = shell("flowcraft schema pipeline | true; echo ${PIPESTATUS[0]}")

    assert done.stdout.decode() in ("141\n", "0\n")  # 0: it was written before the reader had left
    assert done.stderr == b""
