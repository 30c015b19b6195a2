"""Ctrl-C in a real process: it ends soon, with a record, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

PATIENCE_S = 30.0
TESTS = Path(__file__).parents[1]

PROGRAM = """
    import json, sys
    from pathlib import Path
    sys.path[:0] = {paths!r}
    from fakes import Gate, ScriptedProvider, llm_of
    from flowcraft.runner.events import StageFinished, TextPiece
    from flowcraft.runner.run import run_pipeline

    class Told(Gate):
        def wait(self, scope=None):
            print("up", flush=True)
            super().wait(scope)

    def heard(event):
        if isinstance(event, TextPiece):
            print("up", flush=True)

    {before}
    with llm_of(ScriptedProvider([Told()])) as llm:
        record = run_pipeline("p.yaml", llm=llm, on_event={listener})
    print(json.dumps(record.to_json()), flush=True)
    sys.exit(record.exit_code)
"""


# The system has another thread than the main one take the signal, so that nothing ends the main one's sleep.
TAKEN_BY_ANOTHER = """
    import signal, threading, time
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
"""


def interrupted(stages: str, listener: str = "heard", before: str = "") -> tuple[int, dict[str, str]]:
    """Start a run, press Ctrl-C when its stage is at work; the exit code and how the stages ended."""
    Path("p.yaml").write_text(f"flowcraft: 1\nstages:\n{dedent(stages)}")
    paths = [str(TESTS), str(TESTS.parent)]
    program = dedent(PROGRAM).format(paths=paths, listener=listener, before=dedent(before))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        try:
            assert child.stdout.readline() == "up\n"
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=PATIENCE_S)
        finally:
            child.kill()
    record = json.loads(out.splitlines()[-1])
    assert record["status"] == "interrupted"
    return child.returncode, {stage["path"]: stage["status"] for stage in record["stages"]}


@pytest.mark.parametrize("listener", ["heard", "None"])
def test_ctrl_c_ends_a_model_call_that_hangs(listener: str) -> None:
    stages = "  - {id: first, run: 'true'}\n  - {id: a, prompt: x}\n  - {id: b, run: touch started}\n"

    code, statuses = interrupted(stages, listener)

    assert (code, statuses) == (130, {"first": "succeeded", "a": "cancelled", "b": "skipped"})
    assert not Path("started").exists()


@pytest.mark.parametrize("listener", ["heard", "None"])
def test_ctrl_c_that_does_not_end_a_sleep_is_noticed_all_the_same(listener: str) -> None:
    code, statuses = interrupted("  - {id: a, prompt: x}\n", listener, TAKEN_BY_ANOTHER)

    assert (code, statuses) == (130, {"a": "cancelled"})


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_ctrl_c_ends_a_command_and_all_it_has_started(trap: str) -> None:
    # The grandchild holds the pipe open for writing as long as it lives.
    os.mkfifo("alive")
    reading = os.open("alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        code, statuses = interrupted(f'  - {{id: a, run: "{trap}(exec sleep 600 3>alive) & echo up; wait"}}\n')

        assert (code, statuses) == (130, {"a": "cancelled"})
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)


def test_ctrl_c_lets_used_pipelines_come_to_their_end_the_inner_one_first() -> None:
    for name, stages in (("deep", "id: a, prompt: x"), ("inner", "id: call, uses: deep.yaml")):
        last = f"finally: [{{id: tidy, run: 'echo {name} $STATUS >> log', env: {{STATUS: '${{{{ run.status }}}}'}}}}]"
        Path(f"{name}.yaml").write_text(
            f"flowcraft: 1\nstages: [{{{stages}}}, {{id: more, run: touch more}}]\n{last}\n"
        )

    code, statuses = interrupted("  - {id: call, uses: inner.yaml}\nfinally: [{id: tidy, run: echo top >> log}]\n")

    assert Path("log").read_text() == "deep interrupted\ninner interrupted\ntop\n"
    assert code == 130
    assert (statuses["call/call/a"], statuses["call/call/finally/tidy"]) == ("cancelled", "succeeded")
    assert not Path("more").exists()
