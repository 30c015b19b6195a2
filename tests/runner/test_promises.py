"""What the language promises of whole runs: last stages, time and budgets of many, caches, parts of a run, gates."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedProvider, llm_of
from kept_runs import echo, ends, run_

from flowcraft.core.scope import Scope
from flowcraft.runner.events import StageStarted
from flowcraft.runner.gates import Decision
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable

TIDY = """
finally:
  - {id: tidy, run: 'echo "${{ run.status }}" >> ended'}
"""


def ended() -> list[str]:
    return Path("ended").read_text().split()


def plain_run(text: str, **options: Any) -> RunRecord:
    Path("p.yaml").write_text(text)
    with llm_of(echo()) as llm:
        return run_pipeline("p.yaml", llm=llm, **options)


def output(record: RunRecord, path: str) -> Any:
    return next(outcome.output for outcome in record.outcomes if outcome.path == path)


def head(stages: str, tail: str = "") -> str:
    return f"flowcraft: 1\nstages:\n{stages}{tail}"


# -- last stages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "options", "status"),
    [
        ("  - {id: a, run: exit 1}\n", {}, "failed"),
        ("  - {id: a, approve: 'go?'}\n", {"decisions": {"a": Decision(approved=False)}}, "rejected"),
        ("  - {id: a, prompt: x}\n", {"durable": Durable(budget={"calls": "0"})}, "failed"),
    ],
)
def test_last_stages_run_once_however_a_run_ends(stage: str, options: dict[str, object], status: str) -> None:
    record = plain_run(head(stage, TIDY), **options)

    assert (record.status, ended()) == (status, [status])


def test_last_stages_run_once_after_an_interruption() -> None:
    scope = Scope()

    record = plain_run(
        head("  - {id: a, run: sleep 30}\n", TIDY),
        scope=scope,
        on_event=lambda event: scope.cancel() if isinstance(event, StageStarted) and event.path == "a" else None,
    )

    assert (record.status, ended()) == ("interrupted", ["interrupted"])


# -- time and money of many ----------------------------------------------------------------------------


def test_the_time_limit_of_a_group_is_for_all_of_it() -> None:
    stages = "".join(f"      - {{id: s{n}, run: sleep 0.4}}\n" for n in range(30))

    record = run_(head(f"  - id: g\n    timeout: 1s\n    stages:\n{stages}"), echo())

    done = [path for path, status in ends(record).items() if path.startswith("g/") and status == "succeeded"]
    assert record.status == "failed"
    assert len(done) < 4


def test_a_budget_of_a_used_pipeline_is_for_what_is_inside() -> None:
    Path("inner.yaml").write_text(head("  - {id: a, prompt: x}\n  - {id: b, prompt: y}\n", "budget: {tokens: 150}\n"))
    settings = "defaults: {params: {max_tokens: 10}}\n"

    record = run_(
        head("  - {id: part, uses: inner.yaml, on_error: continue}\n  - {id: c, prompt: z}\n", settings), echo()
    )

    assert ends(record)["part"] == "failed"
    assert ends(record)["c"] == "succeeded"


# -- what is known already -----------------------------------------------------------------------------

CACHED = """
  - {id: made, run: 'cat in.txt; echo x >> times', cache: true, reads: [in.txt], writes: [out.txt]}
"""


def test_the_result_of_a_command_is_used_again_until_what_it_reads_changes() -> None:
    Path("in.txt").write_text("one")
    Path("out.txt").write_text("")
    text = head(CACHED)

    first, second = run_(text, echo()), run_(text, echo())
    Path("in.txt").write_text("two")
    third = run_(text, echo())

    assert [ends(one)["made"] for one in (first, second, third)] == ["succeeded", "cached", "succeeded"]
    assert (second.outcomes[0].output, third.outcomes[0].output) == ("one", "two")
    assert Path("times").read_text().split() == ["x", "x"]


def test_the_result_of_a_function_is_used_again_until_what_it_depends_on_changes() -> None:
    Path("in.txt").write_text("one")
    Path("out.txt").write_text("")
    lines = [
        "def read(tag):",
        "    open('times', 'a').write(tag)",
        "    return {'tag': tag, 'text': open('in.txt').read()}",
    ]
    Path("tools.py").write_text("\n".join(lines) + "\n")
    stage = "  - {id: made, python: 'tools:read', with: {tag: a}, cache: true, reads: [in.txt], writes: [out.txt]}\n"

    first, second = run_(head(stage), echo()), run_(head(stage), echo())
    Path("in.txt").write_text("two")
    third, fourth = run_(head(stage), echo()), run_(head(stage.replace("tag: a", "tag: b")), echo())

    records = (first, second, third, fourth)
    assert [ends(one)["made"] for one in records] == ["succeeded", "cached", "succeeded", "succeeded"]
    assert [one.outcomes[0].output for one in records] == [
        {"tag": "a", "text": "one"},
        {"tag": "a", "text": "one"},
        {"tag": "a", "text": "two"},
        {"tag": "b", "text": "two"},
    ]
    assert Path("times").read_text() == "aab"


def test_the_files_of_a_cached_answer_are_written_again() -> None:
    text = head("  - {id: w, prompt: write it, output: files, writes: ['*.txt']}\n")
    answer = "a.txt\n```\nnew text\n```\n"

    run_(text, ScriptedProvider(answer))
    Path("a.txt").unlink()
    record = run_(text, ScriptedProvider())

    assert ends(record) == {"w": "cached"}
    assert Path("a.txt").read_text() == "new text\n"


PARTS = """
  - {id: first, prompt: one}
  - id: group
    stages:
      - {id: inner, prompt: 'in ${{ stages.first.output }}'}
  - {id: each, foreach: [a, b], prompt: 'of ${{ item }} ${{ stages.group.output.inner }}'}
  - {id: again, repeat: {until: loop.last, max: 2}, prompt: 'round ${{ loop.index }} ${{ stages.each.output[0] }}'}
  - {id: last, prompt: 'end ${{ stages.again.output }}'}
"""


@pytest.mark.parametrize("stage", ["group", "each", "again", "last"])
def test_a_run_can_start_at_any_kind_of_stage(stage: str) -> None:
    whole = run_(head(PARTS), echo())

    record = run_(head(PARTS), echo(), start_at=stage)

    names = ["first", "group", "each", "again", "last"]
    assert record.status == whole.status == "succeeded"
    assert all(ends(record)[name] in ("cached", "resumed") for name in names[: names.index(stage)])
    assert {name: output(record, name) for name in names} == {name: output(whole, name) for name in names}


@pytest.mark.parametrize("stage", ["group", "each", "again"])
def test_any_kind_of_stage_can_run_alone(stage: str) -> None:
    run_(head(PARTS), echo())
    model = echo()

    record = run_(head(PARTS), model, only=stage)

    assert ends(record)[stage] == "succeeded"
    assert len(model.requests) == {"group": 1, "each": 2, "again": 2}[stage]


# -- a gate on a terminal ------------------------------------------------------------------------------


def at_terminal(typed: bytes | None, timeout: str = "20s") -> tuple[int, str]:
    """Run a pipeline with a gate on a terminal of its own; returns its exit code and what it showed."""
    gate = f"{{id: gate, approve: 'Publish?', timeout: {timeout}}}"
    Path("gate.yaml").write_text(head(f"  - {gate}\n  - {{id: a, run: ls}}\n"))
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "flowcraft", "run", "gate.yaml"]
    child = subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 30)
        assert ready, f"nothing more came after {shown!r}"
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        shown += piece
        if typed is not None and b"(Enter): " in shown:
            os.write(ours, typed)
            typed = None
    os.close(ours)
    return child.wait(), shown.decode()


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"n\ntoo early\n", 4), (b"\n", 3)])
def test_a_gate_asks_at_the_terminal(typed: bytes, code: int) -> None:
    ended_with, shown = at_terminal(typed)

    assert "Publish?" in shown
    assert ended_with == code


def test_a_gate_that_nobody_answers_in_its_time_is_rejected() -> None:
    ended_with, shown = at_terminal(None, timeout="1s")

    assert ended_with == 4
    assert "nobody has answered within 1 s" in shown


# -- what a model says reaches no program as an option ---------------------------------------------------


@pytest.mark.parametrize("said", ["--output=PWN", "-execdir", "--upload-pack=touch PWN"])
@pytest.mark.parametrize("words", ["[cat, '${{ stages.m.output }}']", "[git, log, '${{ stages.m.output }}', x]"])
def test_an_answer_is_no_option_of_a_program(said: str, words: str) -> None:
    text = head(f"  - {{id: m, prompt: x}}\n  - {{id: a, run: {words}}}\n")

    record = run_(text, ScriptedProvider(said))

    assert record.status == "failed"
    assert "FC210" in str(record.outcomes[1].error)
    assert "--" in str(record.outcomes[1].hint)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("--x", "[printf, '%s', --, '${{ stages.m.output }}']"),
        ("--x", "[printf, '%s', 'is ${{ stages.m.output }}']"),
        ("- a list", "[printf, '%s', '${{ stages.m.output }}']"),
        ("-7", "[printf, '%s', '${{ stages.m.output }}']"),
        ("--x", "[sh, -c, 'exit 0', -m, '${{ stages.m.output }}']"),
    ],
)
def test_an_answer_may_be_an_argument_where_it_is_read_as_one(said: str, words: str) -> None:
    text = head(f"  - {{id: m, prompt: x}}\n  - {{id: a, run: {words}}}\n")

    assert run_(text, ScriptedProvider(said)).status == "succeeded"


def test_an_input_may_be_an_option() -> None:
    text = "flowcraft: 1\ninputs: {flag: string}\nstages:\n  - {id: a, run: [ls, '${{ inputs.flag }}']}\n"

    assert run_(text, echo(), inputs={"flag": "--all"}).status == "succeeded"


def test_the_name_of_a_file_is_no_option() -> None:
    Path("-rf.txt").touch()

    record = run_(head("  - {id: a, foreach: glob('*.txt'), run: [cat, '${{ item }}']}\n"), echo())

    assert "FC210" in str(record.outcomes[0].error)


@pytest.mark.parametrize("place", [".git/hooks/pre-commit", ".flowcraft/flowcraft.db", "sub/.git/config"])
def test_nothing_is_saved_where_git_and_flowcraft_keep_their_own(place: str) -> None:
    text = head("  - {id: m, prompt: x}\n  - {id: a, run: ls, output: {save: '${{ stages.m.output }}'}}\n")

    record = run_(text, ScriptedProvider(place))

    assert "may not be written" in str(record.outcomes[1].error)
