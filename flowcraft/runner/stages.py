"""Carrying out one task, in a worker: the table of kinds, and what every kind has in common.

A worker knows its task and nothing else of the run. What goes wrong in a known way becomes a failed outcome;
any other exception is a bug of ours and crosses to the caller.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from flowcraft.core.errors import Cancelled, FlowcraftError
from flowcraft.core.scope import Scope
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.accounts import Account
from flowcraft.runner.commands import execute_command
from flowcraft.runner.leftovers import RUN_VARIABLE
from flowcraft.runner.outcome import Event, Execution, Outcome, Question, Task
from flowcraft.runner.prompts import Books, ask

Emit = Callable[[Event], None]


def _prompt(task: Task, llm: LLMIntegration, books: Books, scope: Scope) -> Outcome:
    assert isinstance(task.work, Question)
    return ask(task, task.work, llm, books, scope)


def _run(task: Task, llm: LLMIntegration, books: Books, scope: Scope) -> Outcome:
    assert isinstance(task.work, Execution)
    work = task.work
    if books.account:
        work = replace(work, env={RUN_VARIABLE: books.account.run_id, **work.env})
    return execute_command(task, work, books.emit, scope)


KINDS: dict[type, Callable[[Task, LLMIntegration, Books, Scope], Outcome]] = {Question: _prompt, Execution: _run}


def execute(task: Task, llm: LLMIntegration, emit: Emit, scope: Scope, account: Account | None = None) -> Outcome:
    """Carry out `task`; ends soon after `scope` is cancelled. `emit` is called in this thread.

    `account` keeps the books of a run that can be resumed.
    """
    books = Books(task.path, emit, account)
    started_s = time.monotonic()
    try:
        scope.check()
        outcome = KINDS[type(task.work)](task, llm, books, scope)
    except Cancelled:
        outcome = cancelled(task)
    except FlowcraftError as error:
        # A call that was ended from outside may end in any error at all.
        outcome = cancelled(task) if scope.cancelled else failed(task.path, task.kind, error)
    return replace(outcome, seconds=time.monotonic() - started_s, attempts=tuple(books.attempts))


def failed(path: str, kind: str, error: FlowcraftError) -> Outcome:
    """The outcome of a stage that an error has ended; an incomplete answer is kept with it."""
    partial = getattr(error, "partial_text", "") or None
    return Outcome(path=path, kind=kind, status="failed", error=str(error), hint=error.hint, rejected=partial)


def cancelled(task: Task) -> Outcome:
    """The outcome of a task that was stopped from outside."""
    return Outcome(path=task.path, kind=task.kind, status="cancelled", reason="the run was interrupted")
