"""What a run itself changes in files is no edit: nothing runs again for it; what a person changes is one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedProvider
from kept_runs import echo, ends, llm_of, run_

from flowcraft.cli.main import run_command
from flowcraft.core.scope import Scope
from flowcraft.runner.events import Event, StageStarted
from flowcraft.runner.gates import Decision
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable

YES = Decision(approved=True)
DESIGN = """
flowcraft: 1
stages:
  - {id: plan, reads: [docs/*.md], prompt: Plan}
  - {id: design, prompt: "Design ${{ stages.plan.output }}", output: {save: docs/design.md}}
  - {id: gate, approve: "ok? ${{ stages.design.output }}"}
  - {id: out, run: cat docs/design.md}
"""
FIX = """
flowcraft: 1
stages:
  - {id: coding, reads: [src/*.py], writes: [src/*.py], prompt: Fix it., output: files}
  - {id: review, reads: [src/*.py], prompt: Review it.}
  - {id: gate, approve: "ok? ${{ stages.review.output }}"}
  - {id: out, run: cat src/a.py}
"""


def stages(*lines: str) -> str:
    return "flowcraft: 1\nstages:\n" + "".join(f"  - {line}\n" for line in lines)


@pytest.fixture
def docs(workspace: Path) -> Path:
    """A folder with a file in it."""
    (workspace / "docs").mkdir()
    (workspace / "docs" / "a.md").write_text("a")
    return workspace / "docs"


def resumed(text: str, model: ScriptedProvider, run: RunRecord, events: list[Event] | None = None) -> RunRecord:
    """Go on with the run, with a yes to its gate."""
    Path("p.yaml").write_text(text)
    listener = None if events is None else events.append
    with llm_of(model) as llm:
        return run_pipeline(
            "p.yaml", llm=llm, jobs=1, durable=Durable(resume=run.id), decisions={"gate": YES}, on_event=listener
        )


def output(record: RunRecord, path: str) -> Any:
    return next(one.output for one in record.outcomes if one.path == path)


@pytest.mark.usefixtures("docs")
def test_what_was_approved_goes_out() -> None:
    model = ScriptedProvider("p1", "d1", "p2", "d2")
    paused = run_(DESIGN, model)

    record = resumed(DESIGN, model, paused)

    assert ends(record) == {"plan": "resumed", "design": "resumed", "gate": "succeeded", "out": "succeeded"}
    assert output(record, "out") == "d1"
    assert len(model.requests) == 2


def test_an_edit_between_the_sessions_runs_again_and_is_said(docs: Path) -> None:
    model = ScriptedProvider("p1", "d1", "p2", "d2")
    paused = run_(DESIGN, model)
    (docs / "a.md").write_text("edited")
    events: list[Event] = []

    record = resumed(DESIGN, model, paused, events)

    again = {event.path: event.again for event in events if isinstance(event, StageStarted)}
    assert again["plan"] == "changed since it ran: reads, prompt"
    assert (record.status, output(record, "gate")) == ("paused", "ok? d2")


def test_an_edit_of_what_the_run_has_written_is_one(docs: Path) -> None:
    model = ScriptedProvider("p1", "d1", "p2")
    paused = run_(DESIGN, model)
    (docs / "design.md").write_text("mine")

    record = resumed(DESIGN, model, paused)

    assert ends(record)["plan"] == "succeeded"


def test_an_edit_made_while_a_person_is_asked_is_one(docs: Path) -> None:
    def later(*_: object) -> None:
        (docs / "a.md").write_text("edited")

    model = ScriptedProvider("p1", "d1", "p2", "d2")
    Path("p.yaml").write_text(DESIGN)
    with llm_of(model) as llm:
        paused = run_pipeline("p.yaml", llm=llm, jobs=1, durable=Durable(), ask=later)
    assert paused.status == "paused"

    record = resumed(DESIGN, model, paused)

    assert (ends(record)["plan"], record.status) == ("succeeded", "paused")


def test_a_result_made_after_an_edit_does_not_pass_for_the_one_before(docs: Path) -> None:
    model = ScriptedProvider("p1", "d1", "p2", "d2", "p3", "d3")
    paused = run_(DESIGN, model)
    (docs / "a.md").write_text("edited")
    resumed(DESIGN, model, paused)
    (docs / "a.md").write_text("a")
    (docs / "design.md").write_text("d1\n")

    again = resumed(DESIGN, model, paused)

    assert output(again, "plan") != "p2"


def test_files_that_come_with_a_result_of_another_run_are_the_runs_own(docs: Path) -> None:
    text = stages(
        "{id: one, if: \"glob('docs/*') | length == 1\", prompt: Go.}",
        "{id: two, prompt: Write., output: {save: docs/b.md}}",
        "{id: gate, approve: ok?}",
    )
    run_(text, ScriptedProvider("1", "2"))
    (docs / "b.md").unlink()
    paused = run_(text, ScriptedProvider())

    record = resumed(text, ScriptedProvider(), paused)

    assert [one.resumed for one in record.outcomes] == [True, True, False]
    assert record.status == "succeeded"


def fixing() -> ScriptedProvider:
    Path("src").mkdir()
    Path("src/a.py").write_text("bad\n")
    return ScriptedProvider("src/a.py\n```\ngood\n```\n", "fine", "src/a.py\n```\nOTHER\n```\n", "fine")


def test_a_stage_that_changes_what_it_has_read_keeps_its_result() -> None:
    model = fixing()
    paused = run_(FIX, model)

    record = resumed(FIX, model, paused)

    assert ends(record) == {"coding": "resumed", "review": "resumed", "gate": "succeeded", "out": "succeeded"}
    assert output(record, "out") == "good"
    assert len(model.requests) == 2


def test_a_fix_that_a_person_has_edited_is_reviewed_anew() -> None:
    model = fixing()
    paused = run_(FIX, model)
    Path("src/a.py").write_text("mine\n")

    record = resumed(FIX, model, paused)

    assert ends(record)["coding"] == "succeeded"


@pytest.mark.parametrize(
    "command",
    ["echo more >> docs/a.md", "echo new > docs/b.md", "rm docs/a.md", "mv docs/a.md docs/z.md"],
    ids=["changed", "made", "removed", "moved"],
)
@pytest.mark.parametrize(
    "reader",
    [
        "{id: one, reads: ['docs/*.md'], prompt: Read it.}",
        "{id: one, prompt: \"${{ glob('docs/*') }} ${{ read('docs/a.md') }}\"}",
        "{id: one, run: 'echo x >> log; echo \"${{ read(\\'docs/a.md\\') }}\"'}",
        '{id: one, foreach: "glob(\'docs/*\')", prompt: "Read ${{ read(item) }}"}',
        "{id: one, if: \"read('docs/a.md') == 'a' and glob('docs/*') | length == 1\", prompt: Go.}",
        "{id: one, repeat: {until: \"read('docs/a.md') == 'a' and loop.index == 2\", max: 3}, prompt: Go.}",
        "{id: one, uses: used.yaml, with: {text: \"${{ read('docs/a.md') }} ${{ glob('docs/*') }}\"}}",
        "{id: gate, approve: \"${{ read('docs/a.md') }} ${{ glob('docs/*') }}\"}",
    ],
    ids=["reads", "read", "command", "foreach", "if", "until", "uses", "gate"],
)
def test_what_a_command_does_to_files_is_no_edit(reader: str, command: str, docs: Path) -> None:
    Path("used.yaml").write_text(
        "flowcraft: 1\ninputs: {text: string}\nstages: [{id: a, prompt: 'Say ${{ inputs.text }}'}]\n"
    )
    text = stages(reader.replace("\\'", "''"), f"{{id: two, run: '{command}'}}", "{id: three, run: test -e fixed}")
    model = echo()
    Path("p.yaml").write_text(text)
    with llm_of(model) as llm:
        failed = run_pipeline("p.yaml", llm=llm, jobs=1, durable=Durable(), ask=lambda *_: YES)
    assert failed.outcomes[-1].status == "failed"
    Path("fixed").write_text("")

    record = run_(text, model, resume=failed.id)

    asked = len(model.requests)
    assert record.status == "succeeded"
    assert ends(record)["two"] == "resumed"
    assert [one.output for one in record.outcomes[:-1]] == [one.output for one in failed.outcomes[:-1]]
    assert asked == len(failed.outcomes[0].attempts) + sum(len(one.attempts) for one in failed.outcomes[1:])


def test_a_condition_that_a_person_has_edited_is_read_anew(docs: Path) -> None:
    text = stages(
        "{id: one, if: \"glob('docs/*') | length == 1\", prompt: Go.}",
        "{id: two, run: echo > docs/b.md}",
        "{id: three, run: 'false'}",
    )
    failed = run_(text, echo())
    assert ends(run_(text, echo(), resume=failed.id))["one"] == "resumed"
    (docs / "c.md").write_text("mine")
    assert ends(run_(text.replace("== 1", "== 9"), echo(), resume=failed.id))["one"] == "skipped"


@pytest.mark.usefixtures("docs")
def test_a_run_that_was_stopped_goes_on_with_what_it_has() -> None:
    scope = Scope()

    def stop(_: object) -> str:
        scope.cancel()
        return "never used"

    text = DESIGN.replace("  - {id: gate", "  - {id: last, prompt: 'Last'}\n  - {id: gate")
    model = ScriptedProvider("p1", "d1", stop, otherwise="l1")
    Path("p.yaml").write_text(text)
    with llm_of(model) as llm:
        stopped = run_pipeline("p.yaml", llm=llm, jobs=1, durable=Durable(), scope=scope)
    assert stopped.status == "interrupted"

    record = run_(text, model, resume=stopped.id)

    assert [ends(record)[path] for path in ("plan", "design")] == ["resumed", "resumed"]


def test_a_run_that_was_killed_goes_on_with_what_it_has(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stages save and write is noted at once."""
    answers = [
        '{"match": "Plan", "response": {"content": "p1"}}',
        '{"match": "Design", "response": {"content": "d1"}}',
    ]
    Path("answers.jsonl").write_text("\n".join(answers))
    model = "{provider: replay, model: m, path: answers.jsonl}"
    Path("settings.yaml").write_text(f"llm: {{models: {{m: {model}}}, cheap_model: m, expensive_model: m}}\n")
    kill = "{id: die, run: 'test -e died || { touch died; kill -9 $PPID; sleep 20; }'}"
    Path("p.yaml").write_text(DESIGN.replace("{id: gate", f"{kill}\n  - {{id: gate"))
    killed = subprocess.run([sys.executable, "-m", "flowcraft", "run", "p.yaml"], capture_output=True, check=False)
    assert killed.returncode == -9

    assert run_command(["resume", "--on-unknown", "rerun"]) == 3

    shown = capsys.readouterr().out
    assert "plan: ok, done before" in shown
    assert "design: ok, done before" in shown
