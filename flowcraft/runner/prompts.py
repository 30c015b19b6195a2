"""The prompt stage: ask a model, judge its answer, send it back with the reasons, give up in time.

Technical trouble is retried below, in the llm floor, and nowhere else; here only a wrong answer counts.
`Books` collects what was sent and what it has cost.
"""

import json
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from flowcraft.core.errors import FlowcraftError, ProviderError, ReplyError
from flowcraft.core.scope import Scope
from flowcraft.llm.base import LLMMessage, LLMResponse
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.accounts import Account
from flowcraft.runner.answers import Reading, reading
from flowcraft.runner.outcome import (
    AnswerRejected,
    Attempt,
    AttemptEnded,
    Event,
    Outcome,
    Question,
    Shape,
    Task,
    TextPiece,
)

ANSWERS = 2  # the language's default for `attempts`, the first answer included
CUT_OFF = "it was cut off at the limit of tokens (finish_reason 'length'): be shorter, or raise params.max_tokens"
FILTERED = "the service held a part of the answer back (finish_reason 'content_filter')"


class Books:
    """Observes the calls of one stage: keeps its attempts, tells about each, and the `account` before all."""

    def __init__(self, path: str, emit: Callable[[Event], None], account: Account | None = None) -> None:
        self.path = path
        self.emit = emit
        self.account = account
        self.attempts: list[Attempt] = list(account.attempts) if account else []
        self._open: dict[str, CallStarted] = {}
        self._lock = threading.Lock()

    def started(self, call: CallStarted) -> None:
        if self.account:
            self.account.started(call)
        with self._lock:
            self._open[call.id] = call

    def finished(self, call: CallFinished) -> None:
        with self._lock:
            started = self._open.pop(call.id, None)
            if started is None:  # it never left, or its end could not be written down and is told again
                return
            attempt = _attempt(started, call)
            self.attempts.append(attempt)
        if self.account:
            self.account.finished(call, attempt)
        self.emit(AttemptEnded(self.path, attempt))

    def rejected(self, number: int, reasons: tuple[str, ...], *, last: bool) -> None:
        """The answer was not accepted."""
        if self.account:
            self.account.rejected(reasons)
        self.emit(AnswerRejected(self.path, number, reasons, last))


def ask(task: Task, question: Question, llm: LLMIntegration, books: Books, scope: Scope) -> Outcome:
    """Carry out a prompt stage. Raises ProviderError, UsageError or Cancelled."""
    messages, params = _opening(task, question, llm)
    model = llm.choose(task.stage, question.model).model
    if books.account:
        scope.wait(books.account.wait_s)
    call = {"model": question.model, "timeout": task.timeout_s, "scope": scope, "observer": books, **params}
    number = 1
    while True:
        response = books.account.recalled(model, messages, params) if books.account else None
        response = response or _answer(task, llm, books, messages, call)
        judged = _judged(response, task.shape)
        if not judged.reasons:
            warnings = (f"the answer of '{task.path}': {CUT_OFF}",) if response.finish_reason == "length" else ()
            return Outcome(path=task.path, kind="prompt", status="succeeded", output=judged.value, warnings=warnings)
        last = number == ANSWERS or not task.shape.json
        books.rejected(number, judged.reasons, last=last)
        if last:
            return _given_up(task, response, judged.reasons)
        messages += _sent_back(response.content, judged.reasons, task.shape)
        number += 1


def _opening(task: Task, question: Question, llm: LLMIntegration) -> tuple[list[LLMMessage], dict[str, Any]]:
    """The first messages and the parameters; JSON is asked for in the way the chosen service understands best."""
    messages, params, shape = list(question.messages), dict(question.params), task.shape
    if not shape.json:
        return messages, params
    service = llm.provider(llm.choose(task.stage, question.model).model)
    if shape.schema is not None and service.json_schema:
        named = {"name": task.stage, "schema": dict(shape.schema), "strict": _strict(shape.schema)}
        params.setdefault("response_format", {"type": "json_schema", "json_schema": named})
        return messages, params
    wanted = "Answer with one JSON value and nothing else: no explanation, no code fence."
    messages[-1] = LLMMessage("user", f"{messages[-1].content.rstrip()}\n\n{wanted}{_schema_text(shape)}")
    return messages, params


def _answer(
    task: Task, llm: LLMIntegration, books: Books, messages: list[LLMMessage], call: Mapping[str, Any]
) -> LLMResponse:
    if not task.streamed:
        return llm.chat_completion(messages, task.stage, **call)
    with llm.stream_completion(messages, task.stage, **call) as pieces:
        for piece in pieces:
            books.emit(TextPiece(task.path, piece, "answer"))
        return pieces.response


def _judged(response: LLMResponse, shape: Shape) -> Reading:
    if response.finish_reason == "content_filter":
        return Reading(reasons=(FILTERED,))
    if not shape.json:
        return Reading(response.content)
    if response.finish_reason == "length":
        return Reading(reasons=(CUT_OFF,))
    return reading(response.content, shape.schema)


def _sent_back(answer: str, reasons: tuple[str, ...], shape: Shape) -> list[LLMMessage]:
    """The next two messages: the answer, and what is wrong with it."""
    listed = "\n".join(f"- {reason}" for reason in reasons)
    text = f"Your answer was not accepted:\n{listed}\n\nAnswer again with one JSON value and nothing else."
    # Services refuse a message without text.
    return [LLMMessage("assistant", answer.strip() or "(nothing)"), LLMMessage("user", text + _schema_text(shape))]


def _given_up(task: Task, response: LLMResponse, reasons: tuple[str, ...]) -> Outcome:
    said = "; ".join(reasons)
    error = ReplyError(
        f"{ANSWERS} answers were not accepted, the last because: {said}" if task.shape.json else said,
        provider=response.provider,
        model=response.model,
        hint="read the rejected answer in the record; try `model: expensive` or a simpler schema",
    )
    return Outcome(
        path=task.path,
        kind="prompt",
        status="failed",
        error=str(error),
        hint=error.hint,
        rejected=response.content,
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


def _attempt(started: CallStarted, finished: CallFinished) -> Attempt:
    choice, response, error = started.choice, finished.response, finished.error
    return Attempt(
        event=started.event,
        name=choice.model.name,
        model=response.model if response else choice.model.model,
        provider=choice.model.provider,
        tier=choice.tier,
        cause=choice.cause,
        source=str(choice.origin),
        seconds=finished.seconds,
        usage=response.usage if response else None,
        cost=response.cost if response else _cost_of_failure(error),
        finish_reason=response.finish_reason if response else None,
        error=str(error) if error else None,
    )


def _cost_of_failure(error: FlowcraftError | None) -> Decimal | None:
    # What was refused by its status, or never left, is not billed; anything else may have been.
    refused = isinstance(error, ProviderError) and (not error.sent or error.status is not None)
    return Decimal(0) if refused else None
