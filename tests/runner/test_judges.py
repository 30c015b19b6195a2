"""`check: [{ask, model}]`: a model judges the result, and nothing else does."""

import json
from pathlib import Path
from textwrap import indent

import pytest
from fakes import ScriptedProvider, llm_of

from flowcraft.runner.outcome import Outcome, RunRecord
from flowcraft.runner.run import run_pipeline

ASK = """
- id: a
  attempts: 2
  prompt: write
  check:
    - ask: "Is it polite? ${{ inputs.style }}"
      model: expensive
"""


def verdict(accepted: bool, reason: str = "") -> str:
    return json.dumps({"accepted": accepted, "reason": reason})


def judged(writer: ScriptedProvider, judge: ScriptedProvider, stages: str = ASK) -> RunRecord:
    text = f"flowcraft: 1\ninputs: {{style: {{default: British}}}}\nstages:\n{indent(stages.strip(), '  ')}\n"
    Path("p.yaml").write_text(text)
    with llm_of(writer, judge, retries=0) as llm:
        return run_pipeline("p.yaml", llm=llm)


def events(outcome: Outcome) -> list[tuple[str, str]]:
    return [(attempt.event, attempt.name) for attempt in outcome.attempts]


def test_a_judge_that_accepts_lets_the_first_answer_stand() -> None:
    writer, judge = ScriptedProvider("draft"), ScriptedProvider(verdict(True))

    record = judged(writer, judge)

    assert record.outcomes[0].output == "draft"
    assert events(record.outcomes[0]) == [("first", "small"), ("check", "large")]
    question = judge.last.messages[-1].content
    assert "Is it polite? British" in question
    assert "The result:\ndraft" in question


def test_a_judge_that_rejects_sends_its_reason_back_to_the_writer() -> None:
    writer = ScriptedProvider("draft", "better")
    judge = ScriptedProvider(verdict(False, "too rude"), verdict(True))

    record = judged(writer, judge)

    assert record.outcomes[0].output == "better"
    assert "too rude" in writer.last.messages[-1].content
    assert events(record.outcomes[0]) == [
        ("first", "small"),
        ("check", "large"),
        ("again", "small"),
        ("check", "large"),
    ]


def test_a_judge_that_rejects_all_answers_fails_the_stage_with_its_last_reason() -> None:
    judge = ScriptedProvider(verdict(False, "too rude"), verdict(False, "too long"))

    record = judged(ScriptedProvider("draft", "draft"), judge)

    assert record.status == "failed"
    assert "2 answers were not accepted, the last because: too long" in str(record.outcomes[0].error)


@pytest.mark.parametrize("nonsense", ["Well, it depends.", '{"accepted": "yes"}', "", "[]"])
def test_a_verdict_that_cannot_be_read_is_asked_for_once_more(nonsense: str) -> None:
    judge = ScriptedProvider(nonsense, verdict(True))

    record = judged(ScriptedProvider("draft"), judge)

    assert record.outcomes[0].output == "draft"
    assert "Your answer was not accepted" in judge.last.messages[-1].content


def test_a_judge_without_a_verdict_is_nobodys_acceptance() -> None:
    writer, judge = ScriptedProvider("draft", "another"), ScriptedProvider("Well.", "Hm.", "So.", "So.")

    record = judged(writer, judge)

    assert record.status == "failed"
    assert "the last because: the model that should judge gave no verdict" in str(record.outcomes[0].error)
    assert "the check can name another" in str(record.outcomes[0].error)
    assert record.outcomes[0].rejected == "another"


def test_after_a_judge_without_a_verdict_comes_the_next_attempt() -> None:
    writer, judge = ScriptedProvider("draft", "another"), ScriptedProvider("Well.", "Hm.", verdict(True))

    record = judged(writer, judge)

    assert (record.status, record.outcomes[0].output) == ("succeeded", "another")


def test_what_a_check_says_of_a_bad_result_is_not_said_where_nobody_has_judged() -> None:
    stages = "- {id: a, run: echo words, check: [{ask: 'Is it polite?', model: expensive, say: be polite}]}"

    record = judged(ScriptedProvider(), ScriptedProvider("Well.", "Hm."), stages)

    assert "its result was not accepted: the model that should judge gave no verdict" in str(record.outcomes[0].error)


def test_a_result_of_a_command_is_judged_too_and_fails_without_another_try() -> None:
    stages = "- {id: a, run: echo rude words, check: [{ask: 'Is it polite?', model: expensive, say: be polite}]}"

    record = judged(ScriptedProvider(), ScriptedProvider(verdict(False, "no")), stages)

    assert record.status == "failed"
    assert "be polite" in str(record.outcomes[0].error)
