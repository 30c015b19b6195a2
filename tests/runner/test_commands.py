"""The run stage, with real bash and real programs."""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flowcraft.core.errors import Cancelled, StageError
from flowcraft.core.scope import Scope
from flowcraft.runner.commands import MAX_SCRIPT_BYTES, execute_command
from flowcraft.runner.events import Event, TextPiece
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.work import Execution, Shape, Task


def carried_out(
    work: Execution, *, heard: list[Event] | None = None, scope: Scope | None = None, **task: Any
) -> Outcome:
    given = Task(path="s", stage="s", work=work, streamed=heard is not None, **task)
    return execute_command(given, work, (heard if heard is not None else []).append, scope or Scope())


def script(text: str, **more: Any) -> Execution:
    return Execution(cwd=Path.cwd(), script=text, **more)


def python(code: str, **more: Any) -> Execution:
    return Execution(cwd=Path.cwd(), argv=(sys.executable, "-c", code), **more)


def test_the_output_is_stdout_without_its_last_newline() -> None:
    outcome = carried_out(script("echo one; echo two; echo; echo err >&2"))

    assert (outcome.status, outcome.output, outcome.exit_code) == ("succeeded", "one\ntwo\n", 0)
    assert outcome.stderr == "err\n"


def test_a_script_stops_at_the_first_failure() -> None:
    outcome = carried_out(script("echo before; false; echo after"))

    assert (outcome.status, outcome.output, outcome.exit_code) == ("failed", "before", 1)


@pytest.mark.parametrize("text", ["false | cat", 'echo "$NOT_SET"'])
def test_a_broken_pipe_and_an_unset_variable_are_failures(text: str) -> None:
    assert carried_out(script(text)).status == "failed"


def test_a_failure_keeps_all_three_and_tells_the_end_of_stderr() -> None:
    outcome = carried_out(script("echo out; echo broken >&2; exit 7"))

    assert (outcome.exit_code, outcome.output, outcome.stderr) == (7, "out", "broken\n")
    assert outcome.error
    assert "exit code 7" in outcome.error
    assert "broken" in outcome.error


def test_a_list_is_one_program_without_a_shell() -> None:
    hostile = Execution(
        cwd=Path.cwd(), argv=(sys.executable, "-c", "import sys; print(sys.argv[1:])", "$(id)", "; ls", "a b")
    )

    assert carried_out(hostile).output == "['$(id)', '; ls', 'a b']"


def test_a_program_that_is_missing_is_an_error_with_its_name() -> None:
    outcome = carried_out(Execution(cwd=Path.cwd(), argv=("no-such-program-here",)))

    assert outcome.status == "failed"
    assert outcome.error
    assert "no-such-program-here" in outcome.error
    assert outcome.hint


def test_without_bash_the_error_says_what_to_do() -> None:
    with pytest.raises(StageError, match="bash was not found") as caught:
        carried_out(script("echo", env={"PATH": "/nowhere"}))

    assert caught.value.hint


def test_the_environment_is_an_allowed_part_and_what_the_stage_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    monkeypatch.setenv("AWS_SESSION", "canary")
    monkeypatch.setenv("LC_TIME", "C")

    outcome = carried_out(
        python("import os, json; print(json.dumps(dict(os.environ)))", env={"MINE": "yes"}), shape=Shape(json=True)
    )

    assert "canary" not in str(outcome.output)
    assert {"HOME", "PATH", "MINE", "LC_TIME"} <= set(outcome.output)


def test_the_stage_runs_in_its_folder() -> None:
    (Path.cwd() / "sub").mkdir()

    outcome = carried_out(Execution(cwd=Path.cwd() / "sub", script="pwd"))

    assert outcome.output == str(Path.cwd() / "sub")


def test_nothing_is_read_from_our_stdin() -> None:
    assert carried_out(script("cat")).output == ""


def test_a_script_longer_than_an_argument_can_be_runs_from_a_private_file() -> None:
    text = ": " + "x" * MAX_SCRIPT_BYTES * 4 + '\nstat -c %a "$0"; false; echo after'

    outcome = carried_out(script(text))

    assert (outcome.output, outcome.status) == ("600", "failed")


def test_bytes_that_are_no_text_do_not_end_the_stage() -> None:
    assert carried_out(python("import os; os.write(1, b'a\\xffb')")).output == "a\ufffdb"


def test_json_is_read_and_held_to_its_schema() -> None:
    shape = Shape(json=True, schema={"type": "object", "required": ["n"]})

    assert carried_out(script("""echo '{"n": 1}'"""), shape=shape).output == {"n": 1}
    wrong = carried_out(script("echo '{}'"), shape=shape)
    assert (wrong.status, wrong.output, wrong.rejected, wrong.exit_code) == ("failed", None, "{}\n", 0)
    assert wrong.error
    assert "'n'" in wrong.error


def test_a_command_that_takes_too_long_is_ended_and_says_so() -> None:
    outcome = carried_out(script("echo started >&2; sleep 60"), timeout_s=0.3)

    assert outcome.status == "failed"
    assert outcome.error
    assert "0.3 s" in outcome.error


def test_an_output_that_is_too_long_is_a_failure_and_not_a_part_of_it() -> None:
    outcome = carried_out(script("head -c 20000000 /dev/zero | tr '\\0' x"))

    assert (outcome.status, outcome.output) == ("failed", None)
    assert "too much" in str(outcome.error)


def test_the_output_arrives_piece_by_piece_where_somebody_listens() -> None:
    heard: list[Event] = []

    carried_out(script("echo one; echo two"), heard=heard)

    pieces = [event for event in heard if isinstance(event, TextPiece)]
    assert "".join(piece.text for piece in pieces) == "one\ntwo\n"
    assert {(piece.path, piece.channel) for piece in pieces} == {("s", "stdout")}


def test_a_character_cut_between_two_pieces_is_put_together() -> None:
    heard: list[Event] = []
    pipe = "gate"
    os.mkfifo(pipe)
    code = f"import os; os.write(1, b'\\xc3'); open({pipe!r}).read(); os.write(1, b'\\xa9')"
    opener = threading.Thread(target=lambda: Path(pipe).write_text("go"))
    opener.start()

    carried_out(python(code), heard=heard)
    opener.join()

    assert "".join(event.text for event in heard if isinstance(event, TextPiece)) == "é"


def test_a_secret_comes_out_nowhere() -> None:
    heard: list[Event] = []
    text = 'echo "out $TOKEN"; echo "err $TOKEN" >&2; exit 1'

    outcome = carried_out(script(text, env={"TOKEN": "s3cr3t-token"}, secrets=("s3cr3t-token",)), heard=heard)

    assert "s3cr3t-token" not in repr(outcome) + repr(heard)
    assert outcome.output == "out ***"


def test_a_cancelled_stage_leaves_no_process_behind() -> None:
    scope = Scope()
    pipe = "alive"
    os.mkfifo(pipe)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            # The grandchild holds the pipe open for writing as long as it lives.
            carried_out(script(f"(exec sleep 600 3>{pipe}) & wait"), scope=scope)
        except Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    with open(pipe, "rb") as reading:
        scope.cancel()
        assert reading.read() == b""
    thread.join()

    assert len(caught) == 1
