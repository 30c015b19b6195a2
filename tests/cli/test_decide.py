"""`approve` and `reject`, by the command line: a run that waits, goes on or ends."""

import json
import shutil
from pathlib import Path

import pytest

from flowcraft.cli.main import run_command

GATED = """flowcraft: 1
stages:
  - {id: plan, run: echo plan >> log; echo plan}
  - {id: gate, approve: "Go on with ${{ stages.plan.output }}?"}
  - {id: publish, run: 'echo "published ${{ stages.gate.output.comment }}"'}
outputs: {said: "${{ stages.publish.output }}"}
"""


@pytest.fixture
def paused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A run that waits at its gate; returns what was printed."""
    (workspace / "g.yaml").write_text(GATED)
    assert run_command(["run", "g.yaml"]) == 3
    return capsys.readouterr().out


def test_a_paused_run_says_how_to_decide(paused: str) -> None:
    assert "gate: waiting, waits for a decision\n  Go on with plan?\n" in paused
    assert "publish: waiting, waits for 'gate'" in paused
    assert "decide with: flowcraft approve " in paused


def test_an_approved_run_goes_on_where_it_was(paused: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["approve", "--comment", "fine"]) == 0
    assert "said: published fine" in capsys.readouterr().out
    assert Path("log").read_text() == "plan\n"
    assert run_command(["approve"]) == 2
    assert "waits for no decision" in capsys.readouterr().err


def test_a_rejected_run_ends_with_4(paused: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["reject", "--comment", "not now"]) == 4
    assert "not now" in capsys.readouterr().out
    assert run_command(["why", "gate"]) == 0
    assert "failed, because rejected by " in capsys.readouterr().out
    assert run_command(["runs"]) == 0
    assert " rejected " in capsys.readouterr().out


def test_a_paused_run_shows_what_it_waits_for(paused: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = paused.split("flowcraft approve ")[1].split(",")[0]

    assert run_command(["show"]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines() if line.startswith("gate")] == [
        ["gate", "waiting", "waits", "for", "a", "decision", "0"]
    ]
    assert shown.endswith(f"decide with: flowcraft approve {run_id}, or: flowcraft reject {run_id}\n")
    assert run_command(["show", "gate"]) == 0
    assert f"gate of run {run_id}: waiting\ndecide with: " in capsys.readouterr().out
    assert run_command(["why", "gate"]) == 0
    why = f"gate of run {run_id}: waiting, because nobody has decided: flowcraft approve {run_id} --stage gate\n"
    assert capsys.readouterr().out == why
    assert run_command(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][-1]["status"] == "waiting"


def test_each_of_several_gates_has_a_command_of_its_own(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates = "[{id: one, approve: 'a?'}, {id: two, needs: [], approve: 'b?'}]"
    (workspace / "g.yaml").write_text(f"flowcraft: 1\nstages: {gates}\n")
    assert run_command(["run", "g.yaml"]) == 3
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("decide with:")]

    assert run_command(["show"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == told
    assert [line.split(" --stage ")[-1] for line in told] == ["one", "two"]
    assert run_command(["approve", "--stage", "one"]) == 3
    assert run_command(["approve"]) == 0


def test_only_a_gate_that_waits_can_be_answered(paused: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["approve", "--stage", "gat"]) == 2
    assert "did you mean 'gate'?" in capsys.readouterr().err


def test_a_paused_run_whose_folder_was_deleted_is_found_out_about_anew(
    paused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(".flowcraft/runs")

    assert run_command(["approve"]) == 2
    assert "flowcraft resume" in capsys.readouterr().err
    assert run_command(["resume"]) == 3
    assert run_command(["approve"]) == 0


@pytest.fixture
def asking(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run that waits with a question that shows a file, which is changed then; returns the file."""
    shown = "Delete ${{ read('n.txt') }}?"
    stages = f'[{{id: gate, approve: "{shown}"}}, {{id: out, run: "cat n.txt; echo done > done"}}]'
    (workspace / "g.yaml").write_text(f"flowcraft: 1\nstages: {stages}\n")
    file = workspace / "n.txt"
    file.write_text("tmp")
    assert run_command(["run", "g.yaml"]) == 3
    capsys.readouterr()
    file.write_text("EVERYTHING")
    return file


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_decision_is_about_the_question_that_was_shown(
    decision: str, asking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([decision]) == 3
    said = capsys.readouterr().out
    assert "gate: waiting, waits for a decision: the question has changed since it was shown\n" in said
    assert "  Delete EVERYTHING?\n" in said
    assert "decide with: flowcraft approve " in said
    assert not Path("done").exists()


def test_a_changed_question_counts_once_it_was_shown(asking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["resume"]) == 3
    assert "Delete EVERYTHING?" in capsys.readouterr().out
    assert run_command(["approve"]) == 0
    assert Path("done").exists()


def test_a_question_that_is_what_it_was_again_is_answered(asking: Path) -> None:
    asking.write_text("tmp")
    assert run_command(["approve"]) == 0


def test_a_pause_of_an_early_version_is_decided_as_it_is(paused: str) -> None:
    (file,) = Path(".flowcraft/runs").glob("*/gates.json")
    file.write_text('{"gate": "2026-11-01T00:00:00+00:00"}')
    assert run_command(["approve"]) == 0


def test_what_is_noted_of_a_run_goes_with_it(paused: str) -> None:
    assert [file.name for file in Path(".flowcraft/runs").glob("*/*")] == ["gates.json"]
    assert run_command(["prune", "--keep", "0"]) == 0
    assert list(Path(".flowcraft/runs").iterdir()) == []


def test_a_recording_ends_at_a_gate_and_says_so(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "answers.jsonl").write_text('{"match": "one", "response": {"content": "1"}}\n')
    model = "{provider: replay, model: m, path: answers.jsonl}"
    (workspace / "settings.yaml").write_text(f"llm: {{models: {{m: {model}}}, cheap_model: m, expensive_model: m}}\n")
    stages = "[{id: a, prompt: one}, {id: gate, approve: go?}, {id: b, prompt: two}]"
    (workspace / "g.yaml").write_text(f"flowcraft: 1\nstages: {stages}\n")

    assert run_command(["run", "g.yaml", "--record", "r.jsonl"]) == 3

    told = "r.jsonl: 1 answer, up to where the run waits; what comes after it is not recorded\n"
    assert capsys.readouterr().err == told
    assert run_command(["run", "g.yaml", "--replay", "r.jsonl"]) == 3
