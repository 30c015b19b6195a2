"""`flowcraft test --record RUN`: the test of a run is green by itself, or says what it does not hold."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from servers import ChatServer, Handler, Reply, answer, status

from flowcraft.cli.main import run_command
from flowcraft.core.document import load

SETTINGS = """llm:
  retries: 1
  models:
    small: {{provider: openai, model: s, base_url: '{url}', max_tokens: 500, prices: {{input: 1, output: 2}}}}
    large: {{provider: openai, model: l, base_url: '{url}', max_tokens: 500, prices: {{input: 3, output: 9}}}}
  cheap_model: small
  expensive_model: large
"""


def recorded(
    capsys: pytest.CaptureFixture[str], pipeline: str, replies: dict[tuple[str, str], list[Reply]], *codes: int
) -> tuple[dict[str, Any], str, str]:
    """The test of a run (resumed once for each further code), what recording said, and what playing it says.

    Replies are by model and last word of the question's first line, an ask of a check by `judge`.
    """
    left = defaultdict(list, {key: list(value) for key, value in replies.items()})

    def reply(handler: Handler) -> None:
        body = handler.received.body
        first = body["messages"][0]["content"]
        about = "judge" if "You judge" in first else body["messages"][0]["content"].split("\n")[0].split()[-1]
        queue = left[(body["model"], about)]
        (queue.pop(0) if queue else status(500, headers={"x-should-retry": "false"}))(handler)

    Path("p.yaml").write_text(f"flowcraft: 1\nstages:\n{pipeline}")
    with ChatServer(reply) as server:
        Path("settings.yaml").write_text(SETTINGS.format(url=server.base_url))
        for number, code in enumerate(codes):
            assert run_command(["resume" if number else "run", *([] if number else ["p.yaml"])]) == code
    capsys.readouterr()
    assert run_command(["runs", "--json"]) == 0
    run_id = json.loads(capsys.readouterr().out)[0]["id"]
    assert run_command(["test", "--record", run_id, "again.test.yaml"]) == 0
    said = capsys.readouterr().out
    run_command(["test", "again.test.yaml"])
    return load(Path("again.test.yaml")).data, said, capsys.readouterr().out


def test_items_that_run_at_the_same_time_have_their_own_answers(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = "  - {id: f, foreach: [one, two], prompt: 'say ${{ item }}', check: [\"output != 'bad'\"]}\n"
    replies = {("s", "one"): [answer("bad"), answer("one")], ("s", "two"): [answer("two")]}

    data, _, played = recorded(capsys, stage + "outputs: {all: '${{ stages.f.output }}'}\n", replies, 0)

    assert data["answers"] == {"f[0]": ["bad", "one"], "f[1]": ["two"]}
    assert data["expect"]["outputs"] == {"all": ["one", "two"]}
    assert data["expect"]["stages"]["f"] == {"status": "succeeded", "attempts": 3, "rungs": ["small"]}
    assert "1 passed, 0 failed" in played


LADDER = "  - {id: a, prompt: hello, model: [cheap, expensive]}\n"


def test_a_model_that_was_down_is_down_again_and_the_ladder_climbs(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _, played = recorded(capsys, LADDER, {("s", "hello"): [status(503)] * 2, ("l", "hello"): [answer("hi")]}, 0)

    assert data["expect"]["stages"]["a"] == {"status": "succeeded", "attempts": 2, "rungs": ["small", "large"]}
    assert [answer if isinstance(answer, str) else answer["status"] for answer in data["answers"]["a"]] == [503, "hi"]
    assert "1 passed, 0 failed" in played


@pytest.mark.parametrize(("code", "rungs"), [(503, ["small", "large"]), (401, ["small", "large"]), (400, ["small"])])
def test_a_run_that_failed_since_its_models_refused_fails_again(
    code: int, rungs: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = {(model, "hello"): [status(code)] * 2 for model in ("s", "l")}

    data, _, played = recorded(capsys, LADDER, replies, 1)

    assert data["expect"]["status"] == "failed"
    assert data["expect"]["stages"]["a"] == {"status": "failed", "attempts": len(rungs), "rungs": rungs}
    assert "1 passed, 0 failed" in played


def test_only_the_last_time_that_a_stage_ran_counts(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = "  - {id: a, prompt: hello, check: [output == 'good']}\n"
    replies = {("s", "hello"): [answer("bad"), answer("worse"), answer("good")]}

    data, _, played = recorded(capsys, stage, replies, 1, 0)

    assert data["answers"] == {"a": ["good"]}
    assert data["expect"]["stages"]["a"]["attempts"] == 1
    assert "1 passed, 0 failed" in played


def test_what_a_judge_says_is_no_attempt(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = "  - {id: a, prompt: hello, check: [{ask: is it polite?, model: large}]}\n"
    verdicts = [{"accepted": False, "reason": "rude"}, {"accepted": True, "reason": ""}]
    replies = {
        ("s", "hello"): [answer("hey"), answer("hello")],
        ("l", "judge"): [answer(json.dumps(one)) for one in verdicts],
    }

    data, _, played = recorded(capsys, stage, replies, 0)

    assert data["answers"] == {"a": ["hey", "hello"]}
    assert [json.loads(text) for text in data["verdicts"]["a"]] == verdicts
    assert data["expect"]["stages"]["a"] == {"status": "succeeded", "attempts": 2, "rungs": ["small"]}
    assert "1 passed, 0 failed" in played


def test_verdicts_among_the_answers_are_taken_too(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = "stages: [{id: a, prompt: hello, check: [{ask: is it polite?}]}]"
    (workspace / "p.yaml").write_text(f"flowcraft: 1\n{stage}\n")
    (workspace / "p.test.yaml").write_text(
        "pipeline: p.yaml\nanswers: {a: [hello, {accepted: true, reason: ''}]}\nexpect: {stages: {a: {attempts: 1}}}\n"
    )
    (workspace / "settings.yaml").write_text(SETTINGS.format(url="http://127.0.0.1:9"))

    assert run_command(["test"]) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out


def test_a_recorded_test_can_be_read(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(capsys, LADDER, {("s", "hello"): [answer("a first line\nand: a second\n")]}, 0)

    text = Path("again.test.yaml").read_text()
    assert "answers:\n  a:\n    - |\n      a first line\n      and: a second\n" in text
    assert "  stages:\n    a:\n      status: succeeded\n      attempts: 1\n      rungs: [small]\n" in text


def test_what_a_test_does_not_hold_is_said(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = "  - {id: a, prompt: hello}\n  - {id: b, run: cat settings.yaml}\n"
    replies = {("s", "hello"): [answer("one", finish_reason="length")]}

    _, said, _ = recorded(capsys, stages, replies, 0)

    assert "note: commands run again (b): what they need beyond these files is to be put under `files`" in said
    assert "note: an answer of 'a' has ended with length: in the test it is whole" in said
