"""The worked examples of the language, as they are in docs/examples, from their files to their outputs."""

import json
import os
from decimal import Decimal
from pathlib import Path

import pytest
from fakes import ScriptedProvider, llm_of

from flowcraft.core.values import Prices
from flowcraft.llm.base import ChatRequest
from flowcraft.pipeline.load import load
from flowcraft.runner.gates import Decision
from flowcraft.runner.run import run_pipeline

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
    """Plays all roles: the first code lacks the flag, the first review and the first fix are not good enough."""
    first, last = request.messages[0].content, request.messages[-1].content
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


def test_doc_headers(workspace: Path) -> None:
    (workspace / "src").mkdir()
    for name in ("a", "b", "c"):
        (workspace / "src" / f"{name}.py").write_text(f"# module {name}\n")

    def answer(request: ChatRequest) -> str:
        prompt = request.messages[0].content
        if prompt.startswith("Write an overview"):
            return prompt
        if "module b" in prompt:
            return "I would rather not."
        return json.dumps(
            {"title": f"T{prompt.count('module a')}", "text": "word " * (70 if len(request.messages) < 2 else 5)}
        )

    with llm_of(ScriptedProvider(otherwise=answer)) as llm:
        record = run_pipeline(EXAMPLES / "doc_headers.yaml", llm=llm)

    statuses = {outcome.path: outcome.status for outcome in record.outcomes}
    assert record.status == "succeeded"
    assert statuses["describe[1]"] == "failed"
    assert record.outputs == {"described": 2}
    assert (workspace / "docs" / "overview.md").read_text().count("* T") == 2
