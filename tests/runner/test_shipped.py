"""The shipped pipelines, from their files to their outputs, answered from a recording."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import settings_of

from flowcraft.core.values import ModelSettings
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline

PIPELINES = Path(__file__).parents[2] / "pipelines"


def replayed(pipeline: str, inputs: dict[str, Any], answers: list[dict[str, Any]]) -> RunRecord:
    recording = Path("answers.jsonl").resolve()
    recording.write_text("".join(f"{json.dumps(line)}\n" for line in answers))
    model = ModelSettings(name="recorded", provider="replay", model="recorded", options={"path": str(recording)})
    with LLMIntegration(settings_of(model)) as llm:
        return run_pipeline(PIPELINES / pipeline, inputs, llm=llm)


def change(risk: str, *, approved: bool) -> RunRecord:
    verdict = {"approved": approved, "findings": [] if approved else ["f"]}
    analysis = {"summary": "add a flag", "criteria": ["there is a flag"], "risk": risk}
    return replayed(
        "code_change.yaml",
        {"request": "add --json", "code": "print('hi')"},
        [
            {"match": "how risky it is", "response": "not yet"},
            {"match": "how risky it is", "response": json.dumps(analysis)},
            {"match": "Design a change", "response": "One flag."},
            {"match": ["Make this change: add a flag", "Design:"], "response": "print('{}')"},
            {"match": "for security", "response": json.dumps(verdict)},
        ],
    )


@pytest.mark.parametrize(("risk", "design"), [("low", "skipped"), ("high", "succeeded")])
def test_code_change_writes_the_change_and_reviews_it(risk: str, design: str) -> None:
    record = change(risk, approved=True)

    assert {outcome.path: outcome.status for outcome in record.outcomes} == {
        "requirements_analysis": "succeeded",
        "architecture_design": design,
        "coding": "succeeded",
        "security_review": "succeeded",
        "refused": "skipped",
    }
    assert record.outputs == {"summary": "add a flag", "change": "print('{}')"}
    assert Path("change.txt").read_text() == "print('{}')\n"
    assert [attempt.finish_reason for attempt in record.outcomes[0].attempts] == ["stop", "stop"]


def test_code_change_fails_when_the_review_finds_something() -> None:
    record = change("low", approved=False)

    assert record.status == "failed"
    assert "The review found: f" in str(record.outcomes[-1].error)


def test_code_review_sums_up_three_reviews() -> None:
    finding = {"place": "a.py:1", "problem": "eval", "severity": "high"}

    record = replayed(
        "code_review.yaml",
        {"diff": "+eval(x)"},
        [
            {"match": "Write a review", "response": "Do not use eval."},
            {"match": "security problems", "response": json.dumps({"findings": [finding]})},
            {"match": "the wrong thing", "response": json.dumps({"findings": []})},
            {"match": "unclear names", "response": json.dumps({"findings": []})},
        ],
    )

    assert record.status == "succeeded"
    assert record.outputs == {"review": "Do not use eval.", "security_findings": 1}
    assert Path("review.md").read_text() == "Do not use eval.\n"
