"""What a run and its stages may still use: their limits, what earlier sessions have spent, what a person has raised.

A raised limit is written down with the run, so that a resume knows it.
"""

import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from flowcraft.core.scope import Scope
from flowcraft.runner.budget import Amounts, AskMore, Budget, limits
from flowcraft.runner.store.ledger import Ledger
from flowcraft.runner.store.records import Records


class Allowance:
    """Makes the budgets of one run; thread-safe. `options` are what is written of it, and hold earlier raises."""

    def __init__(
        self, run: int, ledger: Ledger, options: Mapping[str, Any], ask: AskMore | None, *, resumed: bool
    ) -> None:
        self._run, self._ledger, self._ask, self._resumed = run, ledger, ask, resumed
        self._records = Records(ledger.database)
        self._options = dict(options)
        self._lock = threading.Lock()

    def whole(self, limit: Amounts) -> Budget:
        """The budget of the run."""
        return Budget(limit, self._spent(None) if limit else None, ask=self._asking(None))

    def of_stage(self, path: str, given: Mapping[str, Any]) -> Budget | None:
        """The budget of a stage or used pipeline, if it has one."""
        if not given:
            return None
        raised = self._options.get("stage_budgets", {}).get(path, {})
        return Budget({**limits(given), **limits(raised)}, self._spent(path), ask=self._asking(path))

    def _spent(self, path: str | None) -> Amounts | None:
        return self._records.spent(self._run, path) if self._resumed else None

    def _asking(self, path: str | None) -> AskMore | None:
        ask = self._ask
        if ask is None:
            return None

        def more(text: str, unit: str, limit: Decimal, scope: Scope) -> Decimal | None:
            new = ask(f"'{path}': {text}" if path else text, unit, limit, scope)
            if new is not None and new > limit:
                self._keep(path, unit, new)
            return new

        return more

    def _keep(self, path: str | None, unit: str, new: Decimal) -> None:
        with self._lock:
            if path is None:
                self._options["budget"] = {**self._options.get("budget", {}), unit: str(new)}
            else:
                stages = self._options.get("stage_budgets", {})
                self._options["stage_budgets"] = {**stages, path: {**stages.get(path, {}), unit: str(new)}}
            self._ledger.options(self._run, self._options)
