"""Programs are run to their end, whatever they do; with real programs only."""

import os
import sys
import threading
from pathlib import Path

import pytest

from flowcraft.core.errors import Cancelled, ProcessError
from flowcraft.core.programs.process import run
from flowcraft.core.programs.program import ending, last_lines
from flowcraft.core.scope import Scope

UNRULY = str(Path(__file__).parents[1] / "agents" / "unruly.py")


def unruly(how: str) -> list[str]:
    return [sys.executable, UNRULY, how]


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie of somebody else counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def await_gone(pid: int) -> bool:
    """Wait for the end of a process that is not our child, for up to 5 s."""
    pause = threading.Event()
    return any(gone(pid) or pause.wait(0.01) for _ in range(500))


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


def children() -> str:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def test_returns_output_and_exit_code() -> None:
    completed = run(["sh", "-c", "echo out; echo err >&2; exit 3"])

    assert (completed.stdout, completed.stderr, completed.returncode) == (b"out\n", b"err\n", 3)
    assert not completed.truncated
    assert completed.argv[0] == "sh"


def test_runs_in_the_given_folder_with_only_the_given_environment(tmp_path: Path) -> None:
    completed = run(["/bin/sh", "-c", 'pwd; echo "$A-$HOME"'], cwd=tmp_path, env={"A": "b"})

    assert completed.stdout.decode().splitlines() == [str(tmp_path), "b-"]


def test_carries_megabytes_through_stdin_and_stdout() -> None:
    data = os.urandom(5_000_000)

    assert run(["cat"], stdin=data).stdout == data


def test_without_input_stdin_is_empty() -> None:
    assert run(["cat"]).stdout == b""


def test_a_program_need_not_read_its_stdin() -> None:
    assert run(["true"], stdin=b"x" * 1_000_000).returncode == 0


def test_reads_both_outputs_at_the_same_time() -> None:
    completed = run(unruly("flood"))

    assert (len(completed.stdout), len(completed.stderr)) == (3_000_000, 3_000_000)


def test_keeps_beginning_and_end_of_an_output_that_is_too_long() -> None:
    completed = run(["seq", "100000"], max_output_bytes=100)

    assert completed.truncated
    assert completed.stdout.startswith(b"1\n2\n3\n")
    assert completed.stdout.endswith(b"99999\n100000\n")
    assert b"[... 588795 bytes left out ...]" in completed.stdout


def test_an_output_of_exactly_the_limit_is_whole() -> None:
    completed = run(["printf", "1234567"], max_output_bytes=7)

    assert completed.stdout == b"1234567"
    assert not completed.truncated


def test_hands_on_output_as_it_arrives() -> None:
    seen: list[bytes] = []
    scope = Scope()

    def stop_at_first(chunk: bytes) -> None:
        seen.append(chunk)
        scope.cancel()

    with pytest.raises(Cancelled):
        run(unruly("hang"), scope=scope, on_output=stop_at_first)
    assert seen == [b"ready\n"]


def test_an_error_of_the_listener_ends_the_program() -> None:
    def refuse(chunk: bytes) -> None:
        raise LookupError(chunk)

    with pytest.raises(LookupError, match="ready"):
        run(unruly("polite"), on_output=refuse)


def test_the_time_limit_is_named_in_the_error() -> None:
    with pytest.raises(ProcessError, match=r"'sleep' ran longer than its limit of 0\.1 s") as caught:
        run(["sleep", "60"], timeout_s=0.1)
    assert caught.value.returncode == -15
    assert caught.value.hint


def test_the_limit_of_the_scope_counts_too() -> None:
    with pytest.raises(ProcessError, match="ran longer than its limit of"):
        run(["sleep", "60"], timeout_s=100, scope=Scope(0.1))


def test_a_stopped_program_may_say_goodbye() -> None:
    scope = Scope()
    seen: list[bytes] = []

    def note(chunk: bytes) -> None:
        seen.append(chunk)
        scope.cancel()

    with pytest.raises(Cancelled):
        run(unruly("polite"), scope=scope, on_output=note)
    assert seen == [b"ready\n", b"bye\n"]


def test_a_program_that_ignores_term_is_killed() -> None:
    scope = Scope()

    with pytest.raises(Cancelled):
        run(unruly("ignore_term"), scope=scope, on_output=lambda _: scope.cancel())


def test_nothing_is_started_in_a_cancelled_scope(tmp_path: Path) -> None:
    scope = Scope()
    scope.cancel()

    with pytest.raises(Cancelled):
        run(["touch", str(tmp_path / "started")], scope=scope)
    assert not list(tmp_path.glob("started"))


@needs_proc
def test_a_grandchild_that_holds_the_pipes_does_not_hold_us() -> None:
    completed = run(unruly("leak"))

    assert completed.returncode == 0
    assert await_gone(int(completed.stdout.split()[1]))


@needs_proc
def test_a_grandchild_without_pipes_is_ended_too() -> None:
    completed = run(unruly("leak_silent"))

    assert await_gone(int(completed.stdout.split()[1]))


@needs_proc
def test_a_cancel_ends_grandchildren() -> None:
    scope = Scope()
    seen: list[bytes] = []

    with pytest.raises(Cancelled):
        run(unruly("nest"), scope=scope, on_output=lambda chunk: (seen.append(chunk), scope.cancel())[1])
    assert await_gone(int(seen[0].split()[1]))


@needs_proc
def test_a_grandchild_of_another_session_is_left_with_its_pipe() -> None:
    completed = run(unruly("escape"))

    pid = int(completed.stdout.split()[1])
    assert not gone(pid)
    os.kill(pid, 9)


def test_waits_for_what_a_helper_writes_late() -> None:
    assert run(unruly("late")).stdout.split() == [b"early", b"late"]


def test_waits_for_a_program_that_has_closed_its_outputs() -> None:
    assert run(unruly("close_outputs")).returncode == 5


@needs_proc
def test_leaves_no_descriptors_zombies_or_threads() -> None:
    run(["true"])
    before = open_descriptors(), children(), threading.active_count()

    for how in ("leak", "flood", "complain", "close_outputs"):
        run(unruly(how), stdin=b"x")
    with pytest.raises(ProcessError):
        run(unruly("hang"), timeout_s=0.05)
    with pytest.raises(ProcessError):
        run(["no-such-program"])

    assert (open_descriptors(), children(), threading.active_count()) == before


def test_many_threads_may_run_programs() -> None:
    results: dict[int, bytes] = {}

    def work(number: int) -> None:
        results[number] = run(["echo", str(number)]).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(8)}


def test_a_signal_is_a_negative_exit_code_with_a_name() -> None:
    completed = run(["sh", "-c", "kill -SEGV $$"])

    assert completed.returncode == -11
    assert str(completed.error()) == "'sh' ended with signal SIGSEGV"


def test_the_error_of_a_failed_program_quotes_its_last_lines() -> None:
    error = run(unruly("complain")).error(hint="listen")

    assert error.output.splitlines()[0] == "complaint 90"
    assert error.output.splitlines()[-1] == "complaint 99"
    assert (error.returncode, error.hint) == (3, "listen")
    assert "unruly" not in str(error)


def script(folder: Path, text: str, mode: int) -> str:
    file = folder / "script"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def test_a_missing_program_is_an_error_with_a_hint() -> None:
    with pytest.raises(ProcessError, match="'no-such-program' was not found") as caught:
        run(["no-such-program"])
    assert "PATH" in (caught.value.hint or "")
    assert caught.value.returncode is None


def test_a_file_without_the_right_to_run_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="may not be executed") as caught:
        run([script(tmp_path, "#!/bin/sh\n", 0o644)])
    assert "chmod" in (caught.value.hint or "")


def test_a_script_without_an_interpreter_line_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="is not a program") as caught:
        run([script(tmp_path, "\x00\x01 binary", 0o755)])
    assert "#!" in (caught.value.hint or "")


def test_a_missing_interpreter_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"the interpreter of '.*script' was not found"):
        run([script(tmp_path, "#!/no/such/interpreter\n", 0o755)])


def test_a_missing_folder_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"the folder '.*missing' to run 'true' in does not exist"):
        run(["true"], cwd=tmp_path / "missing")


def test_too_long_arguments_are_an_error_with_a_hint() -> None:
    with pytest.raises(ProcessError, match="too long arguments") as caught:
        run(["true", "x" * 5_000_000])
    assert "stdin" in (caught.value.hint or "")


@pytest.mark.parametrize("word", ["a\0b", "a\ud800b"])
def test_arguments_that_no_program_can_receive_are_an_error(word: str) -> None:
    with pytest.raises(ProcessError, match="that no program can receive"):
        run(["true", word])


@pytest.mark.parametrize("argv", [[], [""]])
def test_no_program_at_all_is_an_error(argv: list[str]) -> None:
    with pytest.raises(ProcessError, match="no command"):
        run(argv)


@pytest.mark.parametrize(("code", "words"), [(0, "exit code 0"), (-9, "signal SIGKILL"), (-40, "signal 40")])
def test_endings_are_told_in_words(code: int, words: str) -> None:
    assert ending(code) == words


def test_last_lines_survive_bad_bytes() -> None:
    assert last_lines(b"a\n\xff\nb\n", 2) == "\ufffd\nb"
