"""The worked examples of the language, as they are in docs/examples, from their files to their outputs."""

import json
import os
from decimal import Decimal
from pathlib import Path

import pytest
from fakes import ScriptedProvider, llm_of
from servers import ChatServer, Handler, answer

from flowcraft.cli.main import run_command
from flowcraft.core.values import Prices
from flowcraft.llm.base import ChatRequest
from flowcraft.pipeline.load import load
from flowcraft.runner.gates import Decision
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
REQUIREMENTS = json.dumps({"summary": "add a flag", "criteria": ["there is a flag"], "risk": "high"})


def program(folder: Path, name: str, script: str) -> None:
    place = folder / name
    place.write_text(f"#!/bin/bash\n{script}\n")
    place.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with programs that note how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("git", "gh"):
        program(folder, name, f'printf "%s" {name} >> calls; printf " <%s>" "$@" >> calls; echo >> calls')
    program(folder, "pytest", 'echo "1 failed: no flag"; grep -q flag src/app.py')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_is_correct(file: Path) -> None:
    assert load(file).stages


def test_hello() -> None:
    with llm_of(ScriptedProvider("- a list", "three files")) as llm:
        record = run_pipeline(EXAMPLES / "hello.yaml", {"request": "a todo app"}, llm=llm)

    assert record.outputs == {"design": "three files"}


def file_of(text: str) -> str:
    return f"src/app.py\n```\n{text}\n```"


def developer(request: ChatRequest) -> str:
    return played(request.messages[0].content, request.messages[-1].content)


def played(first: str, last: str) -> str:
    """Plays all roles: the first code lacks the flag, the first review and the first fix are not good enough."""
    if first.startswith("Work out"):
        return REQUIREMENTS
    if first.startswith("Design a change"):
        return "One flag."
    if first.startswith("Make this change"):
        return file_of("flag = 1") if "1 failed: no flag" in last else file_of("nothing")
    if first.startswith("Fix every finding"):
        return file_of(f"flag = 2 # {'Round 2' if 'Round 2' in first else 'Round 1'}")
    approved = first.startswith("Review the style") or "Round 2" in first
    return json.dumps({"approved": approved, "findings": [] if approved else ["the flag is 1"]})


def test_software_change(workspace: Path, programs: Path) -> None:
    (workspace / "src").mkdir()
    (workspace / "README.md").write_text("An app.\n")
    model = ScriptedProvider(otherwise=developer)

    with llm_of(model, prices=Prices(input=Decimal("0.25"), output=Decimal(1)), max_tokens=8192) as llm:
        record = run_pipeline(
            EXAMPLES / "software_change.yaml",
            {"request": "add a flag $(touch hacked)", "token": "t0ken-of-gh"},
            llm=llm,
            ask=lambda *_: Decision(approved=True),
        )

    statuses = {outcome.path: outcome.status for outcome in record.outcomes}
    errors = [outcome.error for outcome in record.outcomes if outcome.error]
    coding = next(outcome for outcome in record.outcomes if outcome.path == "coding")
    assert errors == []
    calls = (workspace / "calls").read_text()
    assert [attempt.event for attempt in coding.attempts] == ["first", "again"]
    assert statuses["fix_loop[2]/recheck"] == "succeeded"
    assert "fix_loop[3]" not in statuses
    assert (workspace / "src" / "app.py").read_text() == "flag = 2 # Round 2\n"
    assert (workspace / "docs" / "design.md").read_text() == "One flag.\n"
    assert record.outputs == {"summary": "add a flag", "files": ["src/app.py"]}
    assert "git <commit> <-m> <add a flag>" in calls
    assert "gh <pr> <create> <--base> <main> <--fill>" in calls
    assert not (workspace / "hacked").exists()


def test_a_software_change_that_is_approved_later_goes_out_as_it_was_reviewed(workspace: Path, programs: Path) -> None:
    (workspace / "src").mkdir()
    (workspace / "README.md").write_text("An app.\n")
    model = ScriptedProvider(otherwise=developer)
    given = {"request": "add a flag", "token": "t0ken-of-gh"}
    file = EXAMPLES / "software_change.yaml"

    with llm_of(model, prices=Prices(input=Decimal("0.25"), output=Decimal(1)), max_tokens=8192) as llm:
        paused = run_pipeline(file, given, llm=llm, durable=Durable())
        asked, reviewed = len(model.requests), (workspace / "src" / "app.py").read_text()
        decisions = {"approval": Decision(approved=True)}
        record = run_pipeline(file, given, llm=llm, durable=Durable(resume=paused.id), decisions=decisions)

    assert (paused.status, record.status) == ("paused", "succeeded")
    assert len(model.requests) == asked
    assert (workspace / "src" / "app.py").read_text() == reviewed
    assert "gh <pr> <create>" in (workspace / "calls").read_text()


def described(first: str, again: bool) -> str:
    """Describes modules, but not module b, and too long at first; the overview repeats what it is made of."""
    if first.startswith("Write an overview"):
        return first
    if "module b" in first:
        return "I would rather not."
    return json.dumps({"title": f"T{first.count('module a')}", "text": "word " * (5 if again else 70)})


def test_doc_headers(workspace: Path) -> None:
    (workspace / "src").mkdir()
    for name in ("a", "b", "c"):
        (workspace / "src" / f"{name}.py").write_text(f"# module {name}\n")

    def overview(request: ChatRequest) -> str:
        return described(request.messages[0].content, len(request.messages) > 1)

    with llm_of(ScriptedProvider(otherwise=overview)) as llm:
        record = run_pipeline(EXAMPLES / "doc_headers.yaml", llm=llm)

    statuses = {outcome.path: outcome.status for outcome in record.outcomes}
    assert record.status == "succeeded"
    assert statuses["describe[1]"] == "failed"
    assert record.outputs == {"described": 2}
    assert (workspace / "docs" / "overview.md").read_text().count("* T") == 2


SETTINGS = """llm:
  models:
    m: {provider: openai, model: m, base_url: "URL", max_tokens: 8192, prices: {input: 0.25, output: 1}}
  cheap_model: m
  expensive_model: m
  retries: 0
"""


def service(handler: Handler) -> None:
    """Answers for all three examples."""
    messages = handler.received.body["messages"]
    first, last = messages[0]["content"], messages[-1]["content"]
    if first.startswith(("Describe this module", "Write an overview")):
        text = described(first, len(messages) > 1)
    elif "requirements" in first and not first.startswith("Work out"):
        text = "- a list" if first.startswith("List") else "three files"
    else:
        text = played(first, last)
    answer(text)(handler)


@pytest.mark.parametrize(
    ("name", "argv", "code"),
    [
        ("hello", ["-i", "request=a todo app"], 0),
        ("doc_headers", [], 0),
        ("software_change", ["-i", "request=add a flag", "-i", "token=t0ken"], 3),
    ],
)
def test_an_example_that_was_recorded_is_played_again_without_a_service(
    name: str, argv: list[str], code: int, workspace: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("one", "two"):
        (workspace / place / "src").mkdir(parents=True)
        (workspace / place / "README.md").write_text("An app.\n")
        for module in ("a", "b", "c"):
            (workspace / place / "src" / f"{module}.py").write_text(f"# module {module}\n")
    command = ["run", str(EXAMPLES / f"{name}.yaml"), *argv, "--json", "--jobs", "2"]
    with ChatServer(service) as server:
        (workspace / "settings.yaml").write_text(SETTINGS.replace("URL", server.base_url))
        assert run_command([*command, "--workspace", "one", "--record", "answers.jsonl"]) == code
        calls = len(server.requests)
    recorded = json.loads(capsys.readouterr().out)

    assert run_command([*command, "--workspace", "two", "--replay", "answers.jsonl"]) == code

    played_again = json.loads(capsys.readouterr().out)
    assert recorded["totals"]["calls"] == played_again["totals"]["calls"] == calls
    for key in ("status", "outputs"):
        assert played_again[key] == recorded[key]
    for before, after in zip(recorded["stages"], played_again["stages"], strict=True):
        assert (after["path"], after["status"], after["output"]) == (before["path"], before["status"], before["output"])
        assert len(after["attempts"]) == len(before["attempts"])
    texts = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.suffix in (".py", ".md")}
        for root in (workspace / "one", workspace / "two")
    ]
    assert texts[0] == texts[1]
