"""The books of one stage: every question goes through here, is told of, and is counted."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol

from flowcraft.core.errors import FlowcraftError, ProviderError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import LLMMessage, LLMResponse
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.calls import Event as Cause
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Named
from flowcraft.runner.outcome import AnswerRejected, Attempt, AttemptEnded, Event, Task, TextPiece


class Account(Protocol):
    """Reserves, writes down and settles; see accounts.py."""

    run_id: str
    attempts: tuple[Attempt, ...]
    wait_s: float

    def recalled(
        self, model: ModelSettings, messages: list[LLMMessage], params: Mapping[str, Any]
    ) -> LLMResponse | None: ...

    def started(self, call: CallStarted) -> None: ...

    def finished(self, call: CallFinished, attempt: Attempt) -> None: ...

    def rejected(self, reasons: tuple[str, ...]) -> None: ...


class Books:
    """Observes the calls of one stage: keeps its attempts, tells about each, and the `account` before all.

    `event` is why the next call is made, if it is not the first; `answers` counts those to the stage's own question.
    """

    def __init__(self, path: str, emit: Callable[[Event], None], account: "Account | None" = None) -> None:
        self.path = path
        self.emit = emit
        self.account = account
        self.attempts: list[Attempt] = list(account.attempts) if account else []
        self.event: Cause = "first"
        self.answers = 0
        self._open: dict[str, CallStarted] = {}
        self._lock = threading.Lock()

    def answered(
        self,
        llm: LLMIntegration,
        task: Task,
        model: Named | None,
        messages: list[LLMMessage],
        params: Mapping[str, Any],
        scope: Scope,
    ) -> LLMResponse:
        """The answer to a question: one that was paid for before, or a new one. Raises ProviderError."""
        response = self._asked(llm, task, model, messages, params, scope, streamed=task.streamed)
        self.answers += 1
        return response

    def verdict(
        self, llm: LLMIntegration, task: Task, model: Named | None, messages: list[LLMMessage], scope: Scope
    ) -> LLMResponse:
        """What a model says about a result."""
        before, self.event = self.event, "check"
        try:
            return self._asked(llm, task, model, messages, {}, scope, streamed=False)
        finally:
            self.event = before

    def started(self, call: CallStarted) -> None:
        if self.event != "first" and (call.event == "first" or self.event == "check"):
            call = replace(call, event=self.event)
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

    def rejected(self, reasons: tuple[str, ...], *, last: bool) -> None:
        """The last answer was not accepted."""
        if self.account:
            self.account.rejected(reasons)
        self.emit(AnswerRejected(self.path, self.answers, reasons, last))

    def _asked(
        self,
        llm: LLMIntegration,
        task: Task,
        model: Named | None,
        messages: list[LLMMessage],
        params: Mapping[str, Any],
        scope: Scope,
        *,
        streamed: bool,
    ) -> LLMResponse:
        if self.account:
            known = self.account.recalled(llm.choose(task.stage, model).model, messages, params)
            if known:
                return known
        call: dict[str, Any] = {
            "model": model,
            "timeout": task.timeout_s,
            "scope": scope,
            "observer": self,
            "retries": task.retries,
        }
        if not streamed:
            return llm.chat_completion(messages, task.stage, **call, **params)
        with llm.stream_completion(messages, task.stage, **call, **params) as pieces:
            for piece in pieces:
                self.emit(TextPiece(task.path, piece, "answer"))
            return pieces.response


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
    refused = refused or isinstance(error, UsageError)
    return Decimal(0) if refused else None
