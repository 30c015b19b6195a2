"""The books of one stage: every question goes through here, is told of, and is counted."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol

from flowcraft.core.errors import FlowcraftError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import LLMMessage, LLMResponse
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.calls import Event as Cause
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.pricebook import rates
from flowcraft.llm.routing import Named
from flowcraft.runner.budget import unbilled
from flowcraft.runner.events import AnswerRejected, AttemptEnded, Event, TextPiece
from flowcraft.runner.outcome import Attempt, Outcome
from flowcraft.runner.work import Task


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

    def __init__(
        self,
        task: Task,
        llm: LLMIntegration,
        emit: Callable[[Event], None],
        scope: Scope,
        account: "Account | None" = None,
    ) -> None:
        self.task = task
        self.llm = llm
        self.emit = emit
        self.scope = scope
        self.account = account
        self.attempts: list[Attempt] = list(account.attempts) if account else []
        self.event: Cause = "first"
        self.answers = 0
        self._began_s = time.monotonic()
        self._open: dict[str, CallStarted] = {}

    def answered(self, model: Named | None, messages: list[LLMMessage], params: Mapping[str, Any]) -> LLMResponse:
        """The answer to a question: one that was paid for before, or a new one. Raises ProviderError."""
        response = self._asked(model, messages, params, streamed=self.task.streamed)
        self.answers += 1
        return response

    def verdict(self, model: Named | None, messages: list[LLMMessage]) -> LLMResponse:
        """What a model says about a result."""
        before, self.event = self.event, "check"
        try:
            return self._asked(model, messages, {}, streamed=False)
        finally:
            self.event = before

    def started(self, call: CallStarted) -> None:
        if self.event != "first" and (call.event == "first" or self.event == "check"):
            call = call._replace(event=self.event)
        if self.account:
            self.account.started(call)
        self._open[call.id] = call

    def finished(self, call: CallFinished) -> None:
        started = self._open.pop(call.id, None)
        if started is None:  # it never left, or its end could not be written down and is told again
            return
        attempt = _attempt(started, call)
        self.attempts.append(attempt)
        if self.account:
            self.account.finished(call, attempt)
        self.emit(AttemptEnded(self.task.path, attempt))

    def rejected(self, reasons: tuple[str, ...], *, last: bool) -> None:
        """The last answer was not accepted."""
        if self.account:
            self.account.rejected(reasons)
        self.emit(AnswerRejected(self.task.path, self.answers, reasons, last))

    def outcome(self, **facts: Any) -> Outcome:
        """How the stage has ended, with what was asked for it and how long it took."""
        seconds, attempts = time.monotonic() - self._began_s, tuple(self.attempts)
        return Outcome(path=self.task.path, kind=self.task.kind, seconds=seconds, attempts=attempts, **facts)

    def closed(self, outcome: Outcome) -> Outcome:
        """The same for an outcome that somebody else has made."""
        return replace(outcome, seconds=time.monotonic() - self._began_s, attempts=tuple(self.attempts))

    def _asked(
        self, model: Named | None, messages: list[LLMMessage], params: Mapping[str, Any], *, streamed: bool
    ) -> LLMResponse:
        task, llm = self.task, self.llm
        if self.account:
            known = self.account.recalled(llm.choose(task.stage, model).model, messages, params)
            if known:
                return known
        call: dict[str, Any] = {
            "model": model,
            "timeout": task.timeout_s,
            "scope": self.scope,
            "observer": self,
            "retries": task.retries,
        }
        if not streamed:
            return llm.chat_completion(messages, task.stage, **call, **params)
        # What is shown of an answer counts for nothing until it is whole.
        with llm.stream_completion(messages, task.stage, provisional=True, **call, **params) as pieces:
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
        cost=response.cost if response else _cost_of_failure(error, choice.model),
        finish_reason=response.finish_reason if response else None,
        error=str(error) if error else None,
    )


def _cost_of_failure(error: FlowcraftError | None, model: ModelSettings) -> Decimal | None:
    known = rates(model)
    return Decimal(0) if unbilled(error) or (known and known.ceiling(1, 1) == 0) else None
