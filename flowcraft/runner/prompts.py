"""The prompt stage: ask a model, judge its answer, send it back with the reasons, go up a rung, give up in time.

Technical trouble is retried below, in the llm floor, and nowhere else; here only a wrong answer counts, or a model
that is down where the stage names another. `Books` collects what was sent and what it has cost.
"""

import json
import logging
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from flowcraft.core.errors import AuthError, DeadlineError, ProviderError, RateLimitError, ReplyError, TransportError
from flowcraft.core.values import Origin
from flowcraft.llm.base import LLMMessage, LLMResponse
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Named
from flowcraft.runner.answers import Reading, reading, sent_back
from flowcraft.runner.books import Books
from flowcraft.runner.checks import Judge
from flowcraft.runner.files import INSTRUCTION, Changes, Transaction, changes_in, result_of
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.work import Question, Shape, Task
from flowcraft.runner.workspace import Workspace

CUT_OFF = "it was cut off at the limit of tokens (finish_reason 'length'): be shorter, or raise params.max_tokens"
FILTERED = "the service held a part of the answer back (finish_reason 'content_filter')"


_DOWN = (AuthError, RateLimitError, TransportError, DeadlineError)

log = logging.getLogger(__name__)


class _Judged(NamedTuple):
    """An answer with the value that was read from it, or with the reasons why it is not accepted."""

    response: LLMResponse
    value: Any = None
    reasons: tuple[str, ...] = ()
    written: Mapping[str, str | None] | None = None
    warnings: tuple[str, ...] = ()


def ask(task: Task, books: Books, judge: Judge) -> Outcome:
    """Carry out a prompt stage. Raises ProviderError, UsageError or Cancelled."""
    question = task.work
    assert isinstance(question, Question)
    if books.account:
        books.scope.wait(books.account.wait_s)
    rungs = [question.model, *(_rung(name, question) for name in question.ladder)]
    judged: _Judged | None = None
    for number, model in enumerate(rungs):
        top = number == len(rungs) - 1
        try:
            judged = _climbed(task, question, model, books, judge, judged, top)
        except ProviderError as error:
            if top or not _is_down(error):
                raise
            log.warning("%s: %s, going up to %s", task.path, error, question.ladder[number])
        else:
            if not judged.reasons:
                return _accepted(judged, books)
        books.event = "escalation"
    assert judged
    return _given_up(task, judged.response, judged.reasons, books)


def _rung(name: str, question: Question) -> Named:
    return Named(name, "stage", question.model.origin if question.model else Origin("argument"))


def _is_down(error: ProviderError) -> bool:
    return error.retryable or isinstance(error, _DOWN) or (error.status or 0) >= 500


def _climbed(
    task: Task,
    question: Question,
    model: Named | None,
    books: Books,
    judge: Judge,
    before: _Judged | None,
    top: bool,
) -> _Judged:
    """The last answer on one rung: accepted, or with reasons when its attempts are used up."""
    messages, params = _opening(task, question, model, books.llm)
    if before:
        messages += _sent_back(before.response.content, before.reasons, task)
    limit = question.attempts if _has_contract(task) else 1
    number = 1
    while True:
        response = books.answered(model, messages, params)
        judged = _judged(response, task, judge)
        if not judged.reasons:
            return judged
        last = number == limit
        books.rejected(judged.reasons, last=last and top)
        if last:
            return judged
        messages += _sent_back(response.content, judged.reasons, task)
        books.event = "again"
        number += 1


def _has_contract(task: Task) -> bool:
    return task.shape.json or task.shape.files or bool(task.contract.checks)


def _accepted(judged: _Judged, books: Books) -> Outcome:
    cut = (CUT_OFF,) if judged.response.finish_reason == "length" else ()
    warnings = tuple(f"the answer of '{books.task.path}': {what}" for what in (*cut, *judged.warnings))
    return books.outcome(status="succeeded", output=judged.value, written=judged.written or {}, warnings=warnings)


def _opening(
    task: Task, question: Question, model: Named | None, llm: LLMIntegration
) -> tuple[list[LLMMessage], dict[str, Any]]:
    """The first messages and the parameters; JSON is asked for in the way the chosen service understands best."""
    messages, params, shape = list(question.messages), dict(question.params), task.shape
    if shape.files:
        messages[-1] = messages[-1].followed_by(f"{INSTRUCTION}{', '.join(task.writes)}")
    if not shape.json:
        return messages, params
    service = llm.provider(llm.choose(task.stage, model).model)
    if shape.schema is not None and service.json_schema:
        named = {"name": task.stage, "schema": dict(shape.schema), "strict": _strict(shape.schema)}
        params.setdefault("response_format", {"type": "json_schema", "json_schema": named})
        return messages, params
    wanted = "Answer with one JSON value and nothing else: no explanation, no code fence."
    messages[-1] = messages[-1].followed_by(f"{wanted}{_schema_text(shape)}")
    return messages, params


def _judged(response: LLMResponse, task: Task, judge: Judge) -> _Judged:
    """Held to everything in turn, cheapest first; files are in the workspace only while commands look at them."""
    if response.finish_reason == "content_filter":
        return _Judged(response, reasons=(FILTERED,))
    if task.shape.files:
        return _with_files(response, task, judge)
    if not task.shape.json:
        return _Judged(response, response.content, judge.reasons(response.content))
    cut = response.finish_reason == "length"
    read = Reading(reasons=(CUT_OFF,)) if cut else reading(response.content, task.shape.schema)
    return _Judged(response, read.value, read.reasons or judge.reasons(read.value))


def _with_files(response: LLMResponse, task: Task, judge: Judge) -> _Judged:
    workspace = Workspace(task.contract.cwd)
    found = changes_in(response.content, task.writes, workspace)
    if response.finish_reason == "length":
        found = Changes(reasons=(CUT_OFF,))
    if found.reasons:
        return _Judged(response, reasons=found.reasons)
    value = result_of(found.changes, response.content)
    assert task.undo
    transaction = Transaction(workspace, task.undo)
    written = transaction.apply(found.changes)
    try:
        reasons = judge.reasons(value)
    except BaseException:
        transaction.take_back()
        raise
    if reasons:
        transaction.take_back()
    return _Judged(response, value, reasons, written, found.examples)


def _sent_back(answer: str, reasons: tuple[str, ...], task: Task) -> list[LLMMessage]:
    """The next two messages: the answer, and what is wrong with it."""
    text = f"Your answer was not accepted:\n- {sent_back(reasons)}\n\n"
    if task.shape.files:
        text += "Answer again with all files that you change, whole, in the form that was asked for."
    elif task.shape.json:
        text += f"Answer again with one JSON value and nothing else.{_schema_text(task.shape)}"
    else:
        text += "Answer again, whole."
    # Services refuse a message without text.
    return [LLMMessage("assistant", answer.strip() or "(nothing)"), LLMMessage("user", text)]


def _given_up(task: Task, response: LLMResponse, reasons: tuple[str, ...], books: Books) -> Outcome:
    said = sent_back(reasons, "; ")
    made = "1 answer was" if books.answers == 1 else f"{books.answers} answers were"
    error = ReplyError(
        f"{made} not accepted, the last because: {said}" if _has_contract(task) else said,
        provider=response.provider,
        model=response.model,
        hint=f"read the answers: flowcraft show {shlex.quote(task.path)}; {_way_out(task)}",
    )
    return books.outcome(status="failed", error=str(error), hint=error.hint, rejected=response.content)


def _way_out(task: Task) -> str:
    climbed = isinstance(task.work, Question) and task.work.ladder
    return (
        "the whole ladder was asked: try a simpler contract"
        if climbed
        else ("try `model: [cheap, expensive]` or a simpler contract")
    )


def _schema_text(shape: Shape) -> str:
    if shape.schema is None:
        return ""
    return f"\nIt must fit this JSON Schema:\n{json.dumps(shape.schema, ensure_ascii=False, indent=2)}"


def _strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes the schema: it refuses objects with optional or further properties."""
    if isinstance(schema, list):
        return all(_strict(item) for item in schema)
    if not isinstance(schema, Mapping):
        return True
    properties = schema.get("properties")
    if isinstance(properties, Mapping) or schema.get("type") == "object":
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required", ())) != set(properties or ()):
            return False
    return all(_strict(value) for value in schema.values())
