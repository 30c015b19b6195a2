"""Several budgets over one call: that of the run, and those of the stages and pipelines around it."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from flowcraft.core.errors import BudgetError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import LLMMessage, LLMResponse
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.bounds import worst_case
from flowcraft.runner.budget import Amounts, Budget, unbilled, used
from flowcraft.runner.outcome import Attempt


class Budgets:
    """All of them at once, with the interface of one; `inner` are named by the stage they belong to."""

    def __init__(self, outer: Budget | None, inner: Sequence[tuple[str, Budget]]) -> None:
        self._all = [("", outer)] if outer else []
        self._all += inner

    @property
    def limit(self) -> Mapping[str, Decimal]:
        """The units that something limits."""
        return {unit: amount for _, budget in self._all for unit, amount in budget.limit.items()}

    def reserve(self, worst: Amounts, scope: Scope) -> None:
        """Set aside what a call may use in each of them, or in none; raises BudgetError or Cancelled."""
        done: list[Budget] = []
        try:
            for name, budget in self._all:
                _reserve(name, budget, worst, scope)
                done.append(budget)
        except BaseException:
            for budget in done:
                budget.settle(worst, {})
            raise

    def settle(self, worst: Amounts, amounts: Amounts) -> None:
        """A call that had reserved `worst` has ended and used `amounts`."""
        for _, budget in self._all:
            budget.settle(worst, amounts)


class BudgetAccount:
    """The account of a stage in a run that nobody writes down: only the budgets count."""

    run_id = ""
    attempts: tuple[Attempt, ...] = ()
    wait_s = 0.0

    def __init__(self, budgets: Budgets, llm: LLMIntegration) -> None:
        self._budgets = budgets
        self._llm = llm
        self._reserved: dict[str, Amounts] = {}

    def recalled(
        self, model: ModelSettings, messages: Sequence[LLMMessage], params: Mapping[str, Any]
    ) -> LLMResponse | None:
        """Nothing is known from before."""
        return None

    def started(self, call: CallStarted) -> None:
        """Reserve the worst case; raises BudgetError, and then nothing is sent."""
        worst = worst_case(self._llm, call.choice, call.request, self._budgets.limit)
        self._budgets.reserve(worst, call.request.scope)
        self._reserved[call.id] = worst

    def finished(self, call: CallFinished, attempt: Attempt) -> None:
        """Settle with what was reported."""
        worst = self._reserved.pop(call.id)
        free = unbilled(call.error)
        self._budgets.settle(worst, {"calls": Decimal(1)} if free else used(attempt.usage, attempt.cost, worst))

    def rejected(self, reasons: Sequence[str]) -> None:
        """Nothing to write."""


def _reserve(name: str, budget: Budget, worst: Amounts, scope: Scope) -> None:
    try:
        budget.reserve(worst, scope)
    except BudgetError as error:
        if not name:
            raise
        hint = f"raise the budget of '{name}' in the file, then: flowcraft resume"
        raise BudgetError(f"'{name}': {error.message}", unit=error.unit, hint=hint) from error
