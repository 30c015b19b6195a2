"""Carrying out one task, in a worker: the table of kinds, and what every kind has in common.

A worker knows its task and nothing else of the run. What goes wrong in a known way becomes a failed outcome;
any other exception is a bug of ours and crosses to the caller.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from flowcraft.core.errors import Cancelled, FlowcraftError, StageError
from flowcraft.core.globs import is_plain
from flowcraft.core.scope import Scope
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.answers import sent_back
from flowcraft.runner.books import Account, Books
from flowcraft.runner.checks import Judge
from flowcraft.runner.commands import execute_command
from flowcraft.runner.events import Event
from flowcraft.runner.files import changed, hashes_of
from flowcraft.runner.functions import execute_function
from flowcraft.runner.leftovers import RUN_VARIABLE
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.prompts import ask
from flowcraft.runner.work import Execution, Invocation, Judgement, Question, Task
from flowcraft.runner.workspace import Workspace

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0  # before a command is tried again; as between the tries of a call

Emit = Callable[[Event], None]


def _run(task: Task, books: Books, judge: Judge) -> Outcome:
    def once() -> Outcome:
        assert isinstance(task.work, Execution)
        return execute_command(task, replace(task.work, env={**judge.env, **task.work.env}), books.emit, books.scope)

    return books.closed(_worked(task, once, books.scope, judge))


def _python(task: Task, books: Books, judge: Judge) -> Outcome:
    def once() -> Outcome:
        assert isinstance(task.work, Invocation)
        return execute_function(task, task.work, books.emit, books.scope, dict(judge.env))

    return books.closed(_worked(task, once, books.scope, judge))


def _judge(task: Task, books: Books, judge: Judge) -> Outcome:
    assert isinstance(task.work, Judgement)
    return books.closed(_held(books.outcome(status="succeeded", output=task.work.value), judge))


Kind = Callable[[Task, Books, Judge], Outcome]

KINDS: dict[type, Kind] = {Question: ask, Execution: _run, Invocation: _python, Judgement: _judge}


def execute(task: Task, llm: LLMIntegration, emit: Emit, scope: Scope, account: Account | None = None) -> Outcome:
    """Carry out `task`; ends soon after `scope` is cancelled. `emit` is called in this thread.

    `account` keeps the books of a run that can be resumed.
    """
    books = Books(task, llm, emit, scope, account)
    env: Mapping[str, str] = {RUN_VARIABLE: account.run_id} if account and account.run_id else {}
    try:
        scope.check()
        return KINDS[type(task.work)](task, books, Judge(task, books, env))
    except Cancelled:
        return books.closed(cancelled(task))
    except FlowcraftError as error:
        # A call that was ended from outside may end in any error at all.
        return books.closed(cancelled(task) if scope.cancelled else failed(task.path, task.kind, error))


def failed(path: str, kind: str, error: FlowcraftError) -> Outcome:
    """The outcome of a stage that an error has ended; an incomplete answer is kept with it."""
    partial = getattr(error, "partial_text", "") or None
    return Outcome(path=path, kind=kind, status="failed", error=str(error), hint=error.hint, rejected=partial)


def cancelled(task: Task) -> Outcome:
    """The outcome of a task that was stopped from outside."""
    return Outcome(path=task.path, kind=task.kind, status="cancelled", reason="the run was interrupted")


def _worked(task: Task, once: Callable[[], Outcome], scope: Scope, judge: Judge) -> Outcome:
    """A command or function, tried again as often as the stage says, then held to its contract."""
    workspace = Workspace(task.contract.cwd) if task.writes else None
    before = hashes_of(workspace, task.writes) if workspace else {}
    for number in range(1 + (task.retries or 0)):
        if number:
            scope.wait(random.random() * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (number - 1)))
        outcome = once()
        if outcome.ok:
            break
    if workspace:
        outcome = replace(outcome, written=changed(before, hashes_of(workspace, task.writes)))
        missing = [path for path in task.writes if is_plain(path) and not (workspace.root / path).exists()]
        if outcome.ok and missing:
            raise StageError(f"'{task.path}' has not written {missing[0]}", hint="it stands under `writes`")
    return _held(outcome, judge) if outcome.ok else outcome


def _held(outcome: Outcome, judge: Judge) -> Outcome:
    reasons = judge.reasons(outcome.output)
    if not reasons:
        return outcome
    return replace(outcome, status="failed", error=f"its result was not accepted: {sent_back(reasons, '; ')}")
