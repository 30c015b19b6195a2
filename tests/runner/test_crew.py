"""Who goes on with a run: the caller's thread, or the workers by themselves while nobody listens."""

import random
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from fakes import Gate, ScriptedProvider, llm_of

from flowcraft.core.errors import LedgerError
from flowcraft.core.scope import Scope
from flowcraft.llm.base import ChatRequest, LLMMessage
from flowcraft.runner.crew import Crew, Landed, Launch
from flowcraft.runner.events import AttemptEnded, Event, StageFinished
from flowcraft.runner.executors import open_executor
from flowcraft.runner.outcome import Outcome, RunRecord
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable
from flowcraft.runner.work import Question, Task

PATIENCE_S = 20.0
CALLER = ContextVar("caller", default="nobody")


def run_(stages: list[str], model: ScriptedProvider, *, tail: str = "", **options: Any) -> RunRecord:
    path = Path("p.yaml")
    path.write_text("flowcraft: 1\nstages:\n" + "".join(f"  - {{{stage}}}\n" for stage in stages) + tail)
    with llm_of(model) as llm:
        return run_pipeline(path, llm=llm, **options)


def chain(length: int) -> list[str]:
    return [f"id: s{number}, prompt: 'x{number}'" for number in range(length)]


def prompt_of(request: ChatRequest) -> str:
    return request.messages[-1].content


def landed_in(*, alone: bool) -> tuple[list[int], object]:
    """Let a worker carry out one task: the threads that went on with the run by themselves, and what was heard."""
    threads: list[int] = []
    question = Question(messages=(LLMMessage("user", "x"),))
    task = Task(path="a", stage="a", work=question)

    def go_on(launch: Launch, outcome: Outcome) -> None:
        crew.over(launch)
        threads.append(threading.get_ident())

    def answer(request: ChatRequest) -> str:
        until_s = time.monotonic() + PATIENCE_S
        while not alone and not crew._open and time.monotonic() < until_s:
            time.sleep(0)  # until the caller's thread sleeps
        return "done"

    with llm_of(ScriptedProvider(answer)) as llm, open_executor(1) as executor:
        crew = Crew(executor, llm, go_on, alone=alone)
        crew.launch(Launch(task, lambda outcome, attempts: None, Scope(), None))
        heard = crew.heard()
        while isinstance(heard, AttemptEnded):
            heard = crew.heard()
    return threads, heard


def test_a_worker_goes_on_with_the_run_while_nobody_listens() -> None:
    threads, heard = landed_in(alone=False)

    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert heard is None  # the run is over


def test_the_callers_thread_goes_on_where_somebody_listens() -> None:
    threads, heard = landed_in(alone=True)

    assert threads == []
    assert isinstance(heard, Landed)
    assert heard.outcome.output == "done"


def test_what_is_heard_has_been_told_before_the_next_stage_starts() -> None:
    model = ScriptedProvider(otherwise="done")
    asked: list[int] = []
    threads: set[int] = set()

    def hear(event: Event) -> None:
        if isinstance(event, StageFinished):
            asked.append(len(model.requests))
            threads.add(threading.get_ident())

    run_(chain(5), model, on_event=hear)

    assert asked == [1, 2, 3, 4, 5]
    assert threads == {threading.get_ident()}


def test_a_stage_starts_only_when_all_it_needs_has_ended_however_many_workers_go_on() -> None:
    dice = random.Random(7)
    needs = {n: sorted(dice.sample(range(n), min(n, dice.randrange(4)))) for n in range(150)}
    ended: set[int] = set()
    early: list[int] = []

    def answer(request: ChatRequest) -> str:
        number = int(prompt_of(request))
        early.extend(need for need in needs[number] if need not in ended)
        ended.add(number)
        return "done"

    stages = [
        f"id: s{n}, needs: [{', '.join(f's{need}' for need in found)}], prompt: '{n}'" for n, found in needs.items()
    ]
    record = run_(stages, ScriptedProvider(otherwise=answer), jobs=8)

    assert record.status == "succeeded"
    assert [outcome.path for outcome in record.outcomes] == [f"s{n}" for n in needs]
    assert early == []
    assert len(ended) == 150


def test_items_that_nobody_hears_run_side_by_side_and_no_more_than_there_are_jobs() -> None:
    together = threading.Barrier(3, timeout=PATIENCE_S)
    at_work: set[str] = set()
    most: list[int] = []

    def answer(request: ChatRequest) -> str:
        at_work.add(prompt_of(request))
        most.append(len(at_work))
        together.wait()
        at_work.discard(prompt_of(request))
        together.wait()
        return prompt_of(request)

    stage = "id: a, foreach: {in: '${{ range(12) }}'}, prompt: 'item ${{ item }}'"
    record = run_([stage], ScriptedProvider(otherwise=answer), jobs=3)

    assert record.outcomes[0].output == [f"item {number}" for number in range(12)]
    assert max(most) == 3


def test_what_breaks_while_a_worker_goes_on_crosses_to_the_caller() -> None:
    model = ScriptedProvider(otherwise="done")

    stages = ["id: a, prompt: x", "id: b, run: rm .flowcraft/flowcraft.db", "id: c, prompt: y"]
    with pytest.raises(LedgerError, match="was removed"):
        run_(stages, model, durable=Durable())

    assert len(model.requests) == 1


def test_cancelling_stops_workers_that_go_on_by_themselves() -> None:
    gate, scope, records = Gate(), Scope(), []
    model = ScriptedProvider("one", [gate])
    thread = threading.Thread(target=lambda: records.append(run_(chain(4), model, scope=scope)))
    thread.start()
    gate.reached()

    scope.cancel()
    thread.join(PATIENCE_S)

    assert [outcome.status for outcome in records[0].outcomes] == ["succeeded", "cancelled", "skipped", "skipped"]


def test_a_task_that_does_not_listen_is_given_up_and_the_last_stages_still_run() -> None:
    stuck, scope, records = threading.Event(), Scope(), []

    def deaf(request: ChatRequest) -> str:
        scope.cancel()
        stuck.wait(PATIENCE_S)
        return "too late"

    try:
        model = ScriptedProvider(otherwise=deaf)
        tail = "finally:\n  - {id: c, run: echo cleaned}\n"
        records.append(run_(["id: a, prompt: x"], model, jobs=1, scope=scope, tail=tail))
    finally:
        stuck.set()

    assert {outcome.path: outcome.status for outcome in records[0].outcomes} == {
        "a": "cancelled",
        "finally/c": "succeeded",
    }
    assert records[0].status == "interrupted"


@pytest.mark.parametrize("heard", [True, False])
def test_a_stage_sees_the_context_of_the_caller_and_changes_nobody_elses(heard: bool) -> None:
    seen: list[str] = []

    def answer(request: ChatRequest) -> str:
        seen.append(CALLER.get())
        CALLER.set("a stage")
        return "done"

    CALLER.set("the caller")
    run_(chain(3), ScriptedProvider(otherwise=answer), on_event=(lambda event: None) if heard else None)

    assert seen == ["the caller"] * 3
    assert CALLER.get() == "the caller"
