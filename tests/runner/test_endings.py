"""What stands under `finally` of a used pipeline: it runs once at its end, whatever happened."""

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from fakes import Gate, Reply, ScriptedProvider, llm_of
from kept_runs import PRICES

from flowcraft.cli.main import run_command
from flowcraft.core.errors import PipelineError, ProviderError
from flowcraft.llm.base import ChatRequest, Usage
from flowcraft.runner.events import Event, StageFinished
from flowcraft.runner.gates import Decision
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable

TIDY = """
finally:
  - {id: tidy, run: 'echo "${{ run.status }}" | tee -a log'}
"""


def used(stages: str, rest: str = TIDY, name: str = "inner.yaml") -> None:
    Path(name).write_text(f"flowcraft: 1\nstages:\n{dedent(stages)}\n{dedent(rest)}")


def run_(stages: str, model: ScriptedProvider | None = None, **options: Any) -> RunRecord:
    Path("p.yaml").write_text(f"flowcraft: 1\nstages:\n{dedent(stages)}\n")
    with llm_of(model or ScriptedProvider(), None, PRICES) as llm:
        return run_pipeline("p.yaml", llm=llm, **options)


def statuses(record: RunRecord) -> dict[str, str]:
    return {outcome.path: outcome.status for outcome in record.outcomes}


def log() -> list[str]:
    return Path("log").read_text().splitlines()


def test_the_end_of_a_used_pipeline_comes_after_its_stages_and_before_what_waits_for_it() -> None:
    used("  - {id: work, run: echo work >> log}", TIDY + "outputs: {seen: \"${{ read('log') }}\"}\n")

    record = run_("  - {id: call, uses: inner.yaml}\n  - {id: after, run: 'echo \"after ${{ run.status }}\" >> log'}")

    assert log() == ["work", "succeeded", "after running"]
    assert [*statuses(record)] == ["call", "call/work", "call/finally/tidy", "after"]
    assert record.outcomes[0].output == {"seen": "work\nsucceeded\n"}


def test_the_end_comes_after_a_failure_and_the_failure_stays() -> None:
    used("  - {id: work, run: exit 1}\n  - {id: more, run: echo}")

    record = run_("  - {id: call, uses: inner.yaml}")

    assert (record.status, log()) == ("failed", ["failed"])
    assert statuses(record) == {
        "call": "failed",
        "call/work": "failed",
        "call/more": "skipped",
        "call/finally/tidy": "succeeded",
    }
    assert "'work' failed" in str(record.outcomes[0].error)


def test_an_end_that_fails_fails_the_used_pipeline() -> None:
    used("  - {id: work, run: echo}", "finally: [{id: tidy, run: exit 1}]")

    record = run_("  - {id: call, uses: inner.yaml, on_error: continue}\n  - {id: after, run: echo}")

    assert record.status == "succeeded"
    assert "'finally/tidy' failed" in str(record.outcomes[0].error)
    assert statuses(record)["after"] == "succeeded"


def test_a_stage_at_the_end_runs_whatever_those_before_it_did() -> None:
    record = run_(
        """
          - {id: work, run: echo}
        finally:
          - {id: broken, run: exit 2}
          - {id: needing, needs: [broken], run: touch wrong}
          - {id: tidy, run: echo tidied >> log}
        """
    )

    assert (record.status, log()) == ("failed", ["tidied"])
    assert statuses(record) == {
        "work": "succeeded",
        "finally/broken": "failed",
        "finally/needing": "skipped",
        "finally/tidy": "succeeded",
    }


def test_a_used_pipeline_tidies_up_after_a_part_of_its_end_has_failed() -> None:
    used("  - {id: work, run: echo}", "finally: [{id: broken, run: exit 2}, {id: tidy, run: echo tidied >> log}]")

    record = run_("  - {id: call, uses: inner.yaml}")

    assert (record.status, log()) == ("failed", ["tidied"])
    assert "'finally/broken' failed" in str(record.outcomes[0].error)


def test_a_stage_at_the_end_cannot_rely_on_the_result_of_the_one_above() -> None:
    sum_up = 'finally:\n  - {id: sum, prompt: sum up}\n  - id: show\n    run: echo "${{ stages.sum.output%s }}"\n%s'
    work = "  - {id: work, run: echo}\n"

    with pytest.raises(PipelineError, match="'sum' can fail, and then has no output"):
        run_(work + sum_up % ("", ""))
    assert run_(work + sum_up % (" | default(1)", ""), ScriptedProvider(otherwise="fine")).status == "succeeded"
    assert run_(work + sum_up % ("", "    needs: [sum]\n"), ScriptedProvider(otherwise="fine")).status == "succeeded"


def test_each_item_and_each_round_has_its_own_end() -> None:
    used("  - {id: work, run: echo}")

    record = run_(
        """
          - {id: each, foreach: [a, b], uses: inner.yaml}
          - {id: again, repeat: {until: loop.last, max: 2}, uses: inner.yaml}
        """
    )

    assert log() == ["succeeded"] * 4
    ends = [path for path in statuses(record) if "finally" in path]
    assert ends == [f"{path}/finally/tidy" for path in ("each[0]", "each[1]", "again[1]", "again[2]")]


def test_the_end_of_a_pipeline_in_a_used_pipeline_comes_first() -> None:
    used("  - {id: work, run: exit 1}", "finally: [{id: deep, run: echo deep >> log}]", "deep.yaml")
    used("  - {id: call, uses: deep.yaml}")

    run_("  - {id: call, uses: inner.yaml}")

    assert log() == ["deep", "failed"]


def test_a_failure_elsewhere_does_not_stop_the_end() -> None:
    gate = Gate()

    def reply(request: ChatRequest) -> Any:
        if request.messages[-1].content == "bad":
            gate.reached()
            return ProviderError("no")
        return [gate, "tidied"]

    def heard(event: Event) -> None:
        if isinstance(event, StageFinished) and event.outcome.path == "bad":
            gate.open()

    used("  - {id: work, run: echo}", "finally: [{id: one, prompt: tidy}, {id: two, run: echo}]")

    record = run_(
        "  - {id: call, uses: inner.yaml}\n  - {id: bad, needs: [], prompt: bad}",
        ScriptedProvider(otherwise=reply),
        on_event=heard,
    )

    assert statuses(record) == {
        "call": "succeeded",
        "call/work": "succeeded",
        "call/finally/one": "succeeded",
        "call/finally/two": "succeeded",
        "bad": "failed",
    }


def test_a_pipeline_that_is_halted_by_a_failure_elsewhere_comes_to_its_end() -> None:
    gate = Gate()

    def reply(request: ChatRequest) -> Any:
        if request.messages[-1].content == "bad":
            gate.reached()
            return ProviderError("no")
        return [gate, "done"]

    def heard(event: Event) -> None:
        if isinstance(event, StageFinished) and event.outcome.path == "bad":
            gate.open()

    used("  - {id: work, prompt: work}\n  - {id: more, run: echo more >> log}")

    record = run_(
        "  - {id: call, uses: inner.yaml}\n  - {id: bad, needs: [], prompt: bad}",
        ScriptedProvider(otherwise=reply),
        on_event=heard,
    )

    assert (statuses(record)["call/work"], statuses(record)["call/more"]) == ("succeeded", "skipped")
    assert log() == ["failed"]


def test_a_rejected_gate_is_seen_at_the_end_and_a_waiting_one_has_no_end_yet() -> None:
    used("  - id: part\n    stages: [{id: gate, approve: go on?}]")
    stages = "  - {id: call, uses: inner.yaml}"

    paused = run_(stages, durable=Durable())
    assert (paused.status, Path("log").exists()) == ("paused", False)
    record = run_(
        stages, durable=Durable(resume=paused.id), decisions={"call/part/gate": Decision(approved=False, by="bob")}
    )

    assert (record.status, log()) == ("rejected", ["rejected"])


def test_time_that_is_used_up_does_not_take_the_end_away() -> None:
    used("  - {id: work, run: sleep 600}")

    record = run_("  - {id: call, timeout: 0.2, uses: inner.yaml}")

    assert (record.status, log()) == ("failed", ["failed"])


def test_the_budget_of_a_used_pipeline_counts_its_end() -> None:
    usage = Usage(prompt_tokens=900, completion_tokens=0, total_tokens=900)
    model = ScriptedProvider(otherwise=Reply(content="x", usage=usage))
    used(
        "  - {id: work, prompt: work, params: {max_tokens: 100}}",
        "budget: {tokens: 1000}\nfinally: [{id: last, prompt: sum up, params: {max_tokens: 100}}]",
    )

    record = run_("  - {id: call, uses: inner.yaml}", model)

    assert "the budget of 1000 tokens is not enough: 900 tokens used" in str(record.outcomes[-1].error)
    assert (model.prompts(), record.outcomes[-1].path) == (["work"], "call/finally/last")


def test_an_end_that_was_reached_is_not_run_again_by_a_resume() -> None:
    used("  - {id: work, run: echo}")
    stages = "  - {id: call, uses: inner.yaml}\n  - {id: after, run: test -e there}"
    failed = run_(stages, durable=Durable())
    Path("there").touch()

    record = run_(stages, durable=Durable(resume=failed.id))

    assert (record.status, log()) == ("succeeded", ["succeeded"])
    assert [one.resumed for one in record.outcomes if one.path == "call/finally/tidy"] == [True]


def test_commands_at_the_end_run_once_for_each_end_of_a_run_that_goes_on() -> None:
    used("  - {id: work, run: test -e there}", "finally: [{id: tidy, run: echo inner >> log}]")
    stages = "  - {id: first, run: echo}\n  - {id: call, uses: inner.yaml}\n  - {id: after, run: test -e here}\n"
    last = "finally: [{id: tidy, run: echo outer >> log}]"
    ends = []
    run = run_(stages + last, durable=Durable())
    for name in ("there", "here", "once more"):
        ends.append(log())
        Path(name).touch()
        run = run_(stages + last, durable=Durable(resume=run.id))

    assert ends == [["inner", "outer"], ["inner", "outer"] * 2, [*["inner", "outer"] * 2, "outer"]]
    assert (run.status, log()) == ("succeeded", ends[-1])


def test_an_answer_at_the_end_is_paid_for_once() -> None:
    model = ScriptedProvider(otherwise="fine")
    stages = "  - {id: work, run: test -e there}\nfinally: [{id: last, prompt: say bye}]"
    failed = run_(stages, model, durable=Durable())
    Path("there").touch()

    record = run_(stages, model, durable=Durable(resume=failed.id))

    assert (record.status, len(model.requests)) == ("succeeded", 1)


def test_plan_counts_the_end_of_a_used_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    model = "{provider: openai, model: s, base_url: 'http://127.0.0.1:9', max_tokens: 9, prices: {input: 1, output: 2}}"
    Path("settings.yaml").write_text(f"llm: {{models: {{s: {model}}}, cheap_model: s, expensive_model: s}}\n")
    used("  - {id: work, run: echo}", "finally: [{id: last, prompt: '${{ stages.work.output | default(1) }}'}]")
    Path("p.yaml").write_text("flowcraft: 1\nstages: [{id: call, uses: inner.yaml}]\n")

    assert run_command(["plan", "p.yaml", "--json"]) == 0

    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)["stages"]}
    last = rows["call/finally/last"]
    assert (last["model"], last["calls"]) == ("s", [1, 1])
    assert last["ceiling_usd"] > 1.0  # a command may print a megabyte of characters
