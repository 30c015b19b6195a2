"""The account of one stage: every attempt goes through the budget and the ledger before it leaves and when it ends.

Answers that this run had paid for before it was killed, and never made use of, are given out again instead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import LLMMessage, LLMResponse
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.bounds import worst_case
from flowcraft.runner.budget import Amounts, Budget, unbilled, used
from flowcraft.runner.nested import Budgets
from flowcraft.runner.outcome import Attempt
from flowcraft.runner.store.fingerprint import call_key
from flowcraft.runner.store.ledger import Ledger
from flowcraft.runner.store.records import CallRow

MAX_WAIT_S = 60.0  # longer wishes end a call at once, in a resumed run, too


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is being worked on, and the how manieth process this is that does."""

    number: int
    session: int
    id: str


class Account:
    """Kept by one stage in one session of a run; its calls may come from any thread, one at a time.

    `earlier` are the calls that earlier sessions of the run have made for the stage.
    """

    def __init__(
        self,
        run: OpenRun,
        path: str,
        *,
        ledger: Ledger,
        llm: LLMIntegration,
        budget: Budget | Budgets,
        earlier: Sequence[CallRow] = (),
    ) -> None:
        self.run_id = run.id
        self.attempts = tuple(call.attempt for call in earlier)
        self.wait_s = _left_of_wait(earlier[-1]) if earlier else 0.0
        self._run, self._path = run, path
        self._ledger, self._budget, self._llm = ledger, budget, llm
        self._unused = [call for call in earlier if call.state == "answered" and not call.settled]
        self._key = ""
        self._last = 0
        self._open: dict[str, tuple[int, Amounts]] = {}

    def recalled(
        self, model: ModelSettings, messages: Sequence[LLMMessage], params: Mapping[str, Any]
    ) -> LLMResponse | None:
        """The answer to this question that was paid for and not used, if there is one."""
        self._key = call_key(model, messages, params)
        for call in self._unused:
            if call.key == self._key:
                self._unused.remove(call)
                self._last = call.number
                return call.response
        return None

    def started(self, call: CallStarted) -> None:
        """Reserve and write down; raises BudgetError, LedgerError or Cancelled, and then nothing is sent."""
        worst = worst_case(self._llm, call.choice, call.request, self._budget.limit)
        self._budget.reserve(worst, call.request.scope)
        try:
            number = self._ledger.call_started(self._run.number, self._run.session, self._path, self._key, call, worst)
        except BaseException:
            self._budget.settle(worst, {})
            raise
        self._open[call.id] = (number, worst)
        self._last = number

    def finished(self, call: CallFinished, attempt: Attempt) -> None:
        """Write down what came of it, and settle."""
        number, worst = self._open.pop(call.id)
        free = unbilled(call.error)
        amounts = {"calls": Decimal(1)} if free else used(attempt.usage, attempt.cost, worst)
        self._budget.settle(worst, amounts)
        self._ledger.call_finished(number, call, attempt.cost)

    def rejected(self, reasons: Iterable[str]) -> None:
        """The last answer was not accepted."""
        self._ledger.rejected(self._last, reasons)


def _left_of_wait(call: CallRow) -> float:
    """Seconds that the service still wants to be left alone for; a clock that was set makes them no longer."""
    if call.state != "failed" or call.retry_after_s is None or call.ended is None:
        return 0.0
    passed_s = (datetime.now(timezone.utc) - datetime.fromisoformat(call.ended)).total_seconds()
    return min(call.retry_after_s, MAX_WAIT_S, max(0.0, call.retry_after_s - passed_s))
