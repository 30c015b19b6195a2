"""Long-lived programs are spoken to line by line and never outlive us; with real programs only."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowcraft.core.errors import Cancelled, ProcessError
from flowcraft.core.programs.child import Child
from flowcraft.core.programs.process import run
from flowcraft.core.scope import Scope

UNRULY = str(Path(__file__).parents[1] / "agents" / "unruly.py")

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def unruly(how: str) -> list[str]:
    return [sys.executable, UNRULY, how]


def await_gone(pid: int) -> bool:
    """Wait for the end of a process that is not our child, for up to 5 s; a zombie has ended."""
    pause = threading.Event()
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        pause.wait(0.01)
    return False


@pytest.fixture
def echo() -> Iterator[Child]:
    with Child(unruly("echo")) as child:
        yield child


def test_answers_line_by_line(echo: Child) -> None:
    echo.write(b"one\ntwo\n")

    assert echo.read_line(5) == b"one\n"
    assert echo.read_line(5) == b"two\n"
    assert echo.alive


def test_no_line_within_the_time_limit_is_none(echo: Child) -> None:
    assert echo.read_line(0.01) is None
    assert echo.read_line(scope=Scope(0.01)) is None


def test_a_cancelled_scope_ends_the_wait(echo: Child) -> None:
    scope = Scope()
    threading.Timer(0.05, scope.cancel).start()

    with pytest.raises(Cancelled):
        echo.read_line(scope=scope)


def test_the_end_of_the_output_is_empty_again_and_again() -> None:
    with Child(["printf", "a\\nb"]) as child:
        assert [child.read_line(5) for _ in range(4)] == [b"a\n", b"b", b"", b""]


def test_lines_of_a_megabyte_arrive_whole() -> None:
    with Child(unruly("long_line")) as child:
        lengths = [len(child.read_line(5) or b"") for _ in range(4)]

    assert lengths == [1_000_001, 70_001, 4, 0]


def test_a_line_beyond_the_limit_is_an_error_and_the_next_one_is_whole() -> None:
    with Child(unruly("long_line"), max_line_bytes=100_000) as child:
        with pytest.raises(ProcessError, match="a line of more than 100000 bytes"):
            child.read_line(5)
        assert child.read_line(5) == b"y" * 70_000 + b"\n"


def test_megabytes_travel_both_ways_while_nobody_reads(echo: Child) -> None:
    data = b"z" * 3_000_000 + b"\n"

    echo.write(data, timeout_s=20)

    assert echo.read_line(20) == data


def test_a_flood_on_stderr_blocks_nothing_and_only_its_end_is_kept() -> None:
    with Child(unruly("flood"), stderr_bytes=1000) as child:
        while child.read_line(5):
            pass
        assert child.stderr == b"e" * 1000


def test_lines_that_nobody_reads_make_the_child_wait() -> None:
    with Child(["yes"]) as child:
        assert child.read_line(5) == b"y\n"
        assert child.alive
    assert child.returncode == -signal.SIGTERM


def test_a_child_that_does_not_read_is_an_error_at_the_limit() -> None:
    with Child(unruly("deaf")) as child, pytest.raises(ProcessError, match="does not read its input"):
        child.write(b"x" * 1_000_000, timeout_s=0.1)


def test_writing_to_a_dead_child_is_an_error_with_its_last_words() -> None:
    with Child(unruly("complain")) as child:
        assert child.read_line(5) == b""
        with pytest.raises(ProcessError, match="has ended") as caught:
            child.write(b"x" * 1_000_000, timeout_s=5)
        assert caught.value.output.endswith("complaint 99")
    assert child.returncode == 3


def test_a_stopped_child_can_be_asked_but_not_used(echo: Child) -> None:
    echo.stop()
    echo.stop()

    assert not echo.alive
    assert echo.read_line(5) == b""
    assert echo.returncode == -signal.SIGTERM
    with pytest.raises(ProcessError, match="has ended"):
        echo.write(b"x")


def test_a_child_that_ignores_term_is_killed() -> None:
    child = Child(unruly("ignore_term"))
    assert child.read_line(5) == b"ready\n"

    child.stop(grace_s=0.05)

    assert child.returncode == -signal.SIGKILL


@needs_proc
def test_stopping_ends_grandchildren() -> None:
    child = Child(unruly("nest"))
    pid = int((child.read_line(5) or b"").split()[1])

    child.stop()

    assert await_gone(pid)


@needs_proc
def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_reader() -> None:
    with Child(unruly("escape")) as child:
        pid = int((child.read_line(5) or b"").split()[1])
        assert child.read_line(10) == b""
    os.kill(pid, signal.SIGKILL)


def test_several_threads_may_stop_and_read_at_once(echo: Child) -> None:
    lines: list[bytes | None] = []
    threads = [threading.Thread(target=lambda: lines.append(echo.read_line(10))) for _ in range(3)]
    threads += [threading.Thread(target=echo.stop) for _ in range(3)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert lines == [b"", b"", b""]


def test_stopping_interrupts_a_writer() -> None:
    child = Child(unruly("deaf"))
    failures: list[str] = []

    def write() -> None:
        try:
            child.write(b"x" * 10_000_000)
        except ProcessError as error:
            failures.append(error.message)

    writer = threading.Thread(target=write)
    writer.start()
    child.read_line(5)
    child.stop()
    writer.join()

    assert failures == ["'" + os.path.basename(sys.executable) + "' has ended"]


def test_leaves_no_descriptors_and_threads() -> None:
    with Child(unruly("echo")):
        pass
    before = set(os.listdir("/dev/fd")), threading.active_count()

    for how in ("echo", "flood", "escape", "complain"):
        with Child(unruly(how)) as child:
            line = child.read_line(0.2)
            if how == "escape" and line:
                os.kill(int(line.split()[1]), signal.SIGKILL)
    with pytest.raises(ProcessError):
        Child(["no-such-program"])

    assert (set(os.listdir("/dev/fd")), threading.active_count()) == before


OWNER = """
import os, sys
from flowcraft.core.programs.child import Child
child = Child([sys.executable, "-c", "import sys; sys.stdin.read()"])
sys.stdout.write(f"{child.pid}\\n")
sys.stdout.flush()
"""


FORK_THAT_LIVES_ON = """
import signal
ready, say_ready = os.pipe()
if os.fork():
    os.read(ready, 1)
    os.kill(os.getpid(), 9)
os.setsid()
os.closerange(1, 3)
os.write(say_ready, b"x")
signal.alarm(8)
signal.pause()
"""


def owner(ending: str) -> list[str]:
    return [sys.executable, "-c", OWNER + ending]


@needs_proc
@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit(0)", "raise SystemError"])
def test_a_child_that_reads_its_stdin_ends_with_its_parent(ending: str) -> None:
    completed = run(owner(ending), env=dict(os.environ))

    assert await_gone(int(completed.stdout))


@needs_proc
@pytest.mark.parametrize("ending", ["sys.exit(0)", "raise SystemError"])
def test_any_child_ends_with_an_interpreter_that_ends_in_order(ending: str) -> None:
    deaf = OWNER.replace("sys.stdin.read()", "sys.stdout.close(); __import__('signal').pause()")
    completed = run([sys.executable, "-c", deaf + ending], env=dict(os.environ))

    assert await_gone(int(completed.stdout))


@needs_proc
def test_a_fork_of_the_parent_does_not_keep_the_child_alive() -> None:
    completed = run(owner(FORK_THAT_LIVES_ON), env=dict(os.environ))

    assert await_gone(int(completed.stdout))


@needs_proc
def test_a_fork_of_the_parent_does_not_stop_the_child() -> None:
    fork = (
        "\npid = os.fork()\nif pid == 0:\n    child.stop(); sys.exit(0 if not child.alive else 1)"
        "\nassert os.waitpid(pid, 0)[1] == 0\nassert child.alive"
    )
    completed = run(owner(fork), env=dict(os.environ))

    assert (completed.returncode, completed.stderr) == (0, b"")


def test_a_program_that_closes_its_output_and_lives_on_is_noticed() -> None:
    with Child(unruly("close_output")) as child:
        assert child.read_line(10) == b"ready\n"

        assert child.read_line(10) == b""
        assert child.alive
