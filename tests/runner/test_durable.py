"""Runs that are kept: resumed, cached, started in the middle; a real database, a scripted model."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedProvider, llm_of
from kept_runs import CHAIN, PRICES, echo, ends, run_, version_3

from flowcraft.core.errors import LedgerError, RateLimitError, TransportError, UsageError
from flowcraft.runner.events import Event, StageStarted
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable
from flowcraft.runner.store.records import open_records


def test_a_failed_run_goes_on_where_it_failed() -> None:
    model = ScriptedProvider("1", TransportError("gone"), "2", "3")
    failed = run_(CHAIN, model)

    record = run_(CHAIN, model, resume=failed.id)

    assert (failed.status, record.status, record.id) == ("failed", "succeeded", failed.id)
    assert ends(record) == {"first": "resumed", "second": "succeeded", "third": "succeeded"}
    assert model.prompts() == ["one", "two after 1", "two after 1", "three after 2"]


def test_failed_attempts_of_earlier_sessions_count() -> None:
    model = ScriptedProvider("1", TransportError("gone"), "2", "3")
    failed = run_(CHAIN, model)

    record = run_(CHAIN, model, resume=failed.id)

    assert [attempt.error is None for attempt in record.outcomes[1].attempts] == [False, True]
    assert record.totals.calls == 4


def test_resuming_a_run_that_is_done_asks_nothing() -> None:
    model = echo()
    done = run_(CHAIN, model)

    record = run_(CHAIN, model, resume=done.id)

    assert (record.status, len(model.requests), record.outputs) == ("succeeded", 3, done.outputs)


def test_an_edited_stage_runs_again_and_the_reason_is_told_before_it_is_paid() -> None:
    model = echo()
    done = run_(CHAIN, model)
    events: list[Event] = []

    record = run_(CHAIN.replace("two after", "TWO after"), model, resume=done.id, events=events)

    again = {event.path: event.again for event in events if isinstance(event, StageStarted)}
    assert ends(record) == {"first": "resumed", "second": "succeeded", "third": "succeeded"}
    assert again == {"second": "changed since it ran: prompt", "third": "changed since it ran: prompt"}


def test_a_saved_file_that_was_deleted_is_written_again_without_a_call() -> None:
    model = echo()
    done = run_(CHAIN, model)
    Path("first.txt").unlink()

    run_(CHAIN, model, resume=done.id)

    assert Path("first.txt").read_text() == "<one>\n"
    assert len(model.requests) == 3


def test_only_the_edited_last_stage_of_a_pipeline_is_paid_for_in_the_next_run() -> None:
    model = echo()
    before = run_(CHAIN, model)

    record = run_(CHAIN.replace("three", "THREE"), model)

    assert ends(record) == {"first": "cached", "second": "cached", "third": "succeeded"}
    assert record.outcomes[0].cached_from == before.id
    assert record.outcomes[0].saved_usd == Decimal("0.00002")
    assert record.totals.calls == 1


def test_another_model_is_another_question() -> None:
    model = echo()
    run_(CHAIN, model)

    record = run_(CHAIN.replace("prompt: one", "prompt: one\n    model: expensive"), model)

    assert ends(record)["first"] == "succeeded"


class Agent(ScriptedProvider):
    """May do more than answer."""

    acts = True


def test_the_answer_of_an_agent_is_never_used_again_in_another_run() -> None:
    run_(CHAIN, Agent(otherwise="done"))

    assert set(ends(run_(CHAIN, Agent(otherwise="done"))).values()) == {"succeeded"}


def test_nor_is_that_of_an_agent_on_a_higher_rung() -> None:
    Path("p.yaml").write_text(
        "{flowcraft: 1, stages: [{id: a, prompt: x, model: [cheap, expensive], output: json}]}", encoding="utf-8"
    )
    records = []
    for _ in range(2):
        with llm_of(ScriptedProvider(otherwise="no"), Agent(otherwise="{}"), PRICES) as llm:
            records.append(run_pipeline("p.yaml", llm=llm, durable=Durable()))

    assert [ends(record) for record in records] == [{"a": "succeeded"}] * 2


def test_a_rejected_result_is_never_cached() -> None:
    text = "flowcraft: 1\nstages: [{id: only, prompt: a number, output: json}]"
    run_(text, ScriptedProvider("not json", "nor this"))

    record = run_(text, ScriptedProvider("7"))

    assert (record.status, record.outcomes[0].output) == ("succeeded", 7)


@pytest.mark.parametrize(
    ("fresh", "cached"), [(("*",), set()), (("second",), {"first"}), ((), {"first", "second", "third"})]
)
def test_fresh_stages_are_asked_anew(fresh: tuple[str, ...], cached: set[str]) -> None:
    answers = iter(range(100))
    model = ScriptedProvider(otherwise=lambda _: str(next(answers)))
    run_(CHAIN, model)

    record = run_(CHAIN, model, fresh=fresh)

    assert {path for path, end in ends(record).items() if end == "cached"} == cached


def test_starting_at_a_stage_takes_the_others_from_the_run_before() -> None:
    model = echo()
    run_(CHAIN, model)

    record = run_(CHAIN, model, start_at="second")

    assert ends(record) == {"first": "cached", "second": "succeeded", "third": "succeeded"}


def test_a_single_stage_runs_on_the_results_from_before() -> None:
    model = echo()
    run_(CHAIN, model)

    record = run_(CHAIN, model, only="second")

    assert ends(record) == {"first": "cached", "second": "succeeded", "third": "skipped"}
    assert record.outcomes[2].status == "skipped"
    assert len(model.requests) == 4


def test_a_single_stage_builds_on_what_ended_last_be_it_in_an_older_run_that_was_resumed() -> None:
    edited = CHAIN.replace("two after", "TWO after")
    model = ScriptedProvider("1", "2", TransportError("gone"), "a", "b", "c", "X", "Y", "Z")
    older = run_(CHAIN, model)
    run_(CHAIN, model, fresh=("*",))
    run_(edited, model, resume=older.id)

    record = run_(edited, model, only="third")

    assert [outcome.output for outcome in record.outcomes] == ["a", "X", "Z"]
    assert model.prompts()[-1] == "three after X"


def test_a_run_of_the_version_before_goes_on_and_its_results_are_used_again() -> None:
    model = ScriptedProvider("0", "0", "0", "1", "2", TransportError("gone"), "3", "3 again")
    run_(CHAIN, model)
    failed = run_(CHAIN, model, fresh=("*",))
    version_3(Path(".flowcraft/flowcraft.db"))

    record = run_(CHAIN, model, resume=failed.id)
    later = run_(CHAIN.replace("three", "THREE"), model)

    assert ends(record) == {"first": "resumed", "second": "resumed", "third": "succeeded"}
    assert [attempt.error is None for attempt in record.outcomes[2].attempts] == [False, True]
    assert ends(later) == {"first": "cached", "second": "cached", "third": "succeeded"}
    assert {later.outcomes[0].cached_from, later.outcomes[1].cached_from} == {failed.id}
    with open_records(Path.cwd()) as (records, database):
        assert database.problems() == []
        assert [[call.settled for call in records.calls(run)] for run in (1, 2)] == [[True] * 3, [True] * 4]


def test_answers_that_a_run_of_the_version_before_had_not_used_are_used() -> None:
    model = ScriptedProvider("1", "2", "3")
    done = run_(CHAIN, model)
    with open_records(Path.cwd()) as (_, database):
        database.commit([("DELETE FROM stages WHERE path <> 'first'", ())])  # as if killed before they were written
    version_3(Path(".flowcraft/flowcraft.db"))

    record = run_(CHAIN, model, resume=done.id)

    assert [outcome.output for outcome in record.outcomes] == ["1", "2", "3"]
    assert len(model.requests) == 3


def test_a_single_stage_without_results_from_before_is_refused_with_the_way_out() -> None:
    model = echo()

    with pytest.raises(UsageError, match="needs 'first', of which there is no result yet") as caught:
        run_(CHAIN, model, only="second")

    assert "--from first" in str(caught.value.hint)
    assert model.requests == []


@pytest.mark.parametrize("option", [{"only": "secnd"}, {"start_at": "secnd"}, {"fresh": ("secnd",)}])
def test_a_stage_that_is_misspelt_is_refused_with_the_nearest(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="has no stage 'secnd'") as caught:
        run_(CHAIN, echo(), **option)

    assert "second" in str(caught.value.hint)


def test_a_run_that_is_misspelt_is_refused_with_the_nearest() -> None:
    done = run_(CHAIN, echo())

    with pytest.raises(UsageError, match="there is no run") as caught:
        run_(CHAIN, echo(), resume=done.id[:-1] + "x")

    assert done.id in str(caught.value.hint)


def test_a_wait_that_the_service_asked_for_is_kept_by_a_resume() -> None:
    error = RateLimitError("slow down", retryable=True, retry_after_s=0.2, status=429)
    model = ScriptedProvider(error, error, error, otherwise="x")
    failed = run_(CHAIN, model, settings={"retries": 0})

    with open_records(Path.cwd()) as (records, _):
        call = records.calls(records.run(failed.id).number)[0]

    assert (call.retry_after_s, call.cost) == (0.2, Decimal(0))
    assert run_(CHAIN, model, resume=failed.id, settings={"retries": 3}).status == "succeeded"


def test_a_result_knows_its_last_call_whichever_session_made_it() -> None:
    text = "flowcraft: 1\nstages: [{id: a, prompt: one}, {id: b, prompt: '2 ${{ stages.a.output }}'}]"
    found = []
    record = run_(text, llm := echo())
    for _ in range(2):
        with open_records(Path.cwd()) as (_, database):
            found.append([row["last_call"] for row in database.rows("SELECT last_call FROM stages ORDER BY path")])
            database.commit([("DELETE FROM stages WHERE path = 'b'", ())])  # as if killed before that was written
        record = run_(text, llm, resume=record.id)

    assert found == [[1, 2], [1, 2]]
    with open_records(Path.cwd()) as (records, _):
        assert [call.settled for call in records.calls(1)] == [True, True]


def test_a_command_whose_end_nobody_has_seen_does_not_run_again_unasked() -> None:
    text = "flowcraft: 1\nstages: [{id: deploy, run: 'echo done >> log'}]"
    done = run_(text, echo())
    with open_records(Path.cwd()) as (_, database):
        database.commit([("UPDATE stages SET status = 'started', outcome = NULL", ())])

    refused = run_(text, echo(), resume=done.id)
    still = run_(text, echo(), resume=done.id)
    record = run_(text, echo(), resume=done.id, rerun_unknown=True)

    assert "nobody has seen its end" in str(refused.outcomes[0].error)
    assert "--on-unknown rerun" in str(still.outcomes[0].hint)
    assert (record.status, Path("log").read_text()) == ("succeeded", "done\ndone\n")


def test_secrets_are_nowhere_in_the_folder_of_runs() -> None:
    text = """
    flowcraft: 1
    inputs: {token: {type: string, secret: true}}
    stages:
      - id: use
        run: echo "$TOKEN"
        env: {TOKEN: "${{ inputs.token }}"}
    """
    record = run_(text, echo(), inputs={"token": "s3cr3t-canary"})

    kept = b"".join(path.read_bytes() for path in Path(".flowcraft").rglob("*") if path.is_file())
    assert record.outcomes[0].output == "***"
    assert b"s3cr3t-canary" not in kept


def test_nothing_is_asked_when_the_folder_of_runs_cannot_be_made() -> None:
    Path(".flowcraft").write_text("a file")
    model = echo()

    with pytest.raises(LedgerError, match="cannot be used"):
        run_(CHAIN, model)

    assert model.requests == []


def test_nothing_more_is_asked_when_the_disk_is_full() -> None:
    model = ScriptedProvider()

    def fill(request: Any) -> str:
        with open_records(Path.cwd()) as (_, database):
            database.path.unlink()  # what stops the next commit as surely as a full disk does
        return "1"

    model.enqueue(fill)
    with pytest.raises(LedgerError):
        run_(CHAIN, model)

    assert len(model.requests) == 1


def test_a_replayed_result_is_not_what_a_single_stage_builds_on() -> None:
    run_(CHAIN, echo(), replayed=True)

    with pytest.raises(UsageError, match="of which there is no result yet"):
        run_(CHAIN, echo(), only="second")

    assert run_(CHAIN, echo(), only="second", replayed=True).status == "succeeded"
