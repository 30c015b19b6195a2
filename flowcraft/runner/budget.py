"""What a run may use: reserve the worst case before a call, settle with what was reported; arithmetic under one lock.

Units are never converted into each other. Money and tokens can be bounded before a call (see bounds.py); credits and
time are known only afterwards, so they stop the next call.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from flowcraft.core.errors import BudgetError, FlowcraftError, ProviderError, TransportError, UsageError
from flowcraft.core.problems import counted, did_you_mean
from flowcraft.core.scope import Scope
from flowcraft.llm.base import Usage

UNITS = ("usd", "tokens", "calls", "credits", "time")
LOOK_S = 0.1  # how late a waiting call notices that its run was stopped

_GO_ON = "continue with a higher limit: flowcraft resume"

_SUFFIXES = {"k": 1_000, "m": 1_000_000}
_DIGITS, _MOST_DIGITS = 4, 12  # of dollars behind the point: as many as show why a budget is not enough
_LEAST_S = Decimal("0.001")  # that is shown
_DURATIONS = {"s": 1, "m": 60, "h": 3600}

Amounts = Mapping[str, Decimal]
AskMore = Callable[[str, str, Decimal, Scope], Decimal | None]  # what is wrong, unit, limit; ends with the scope


def limits(given: Mapping[str, Any]) -> dict[str, Decimal]:
    """Budgets from settings, a pipeline or `--budget`: unit -> amount; `tokens` may be 500k, `time` 10m.

    Raises UsageError for an unknown unit or what is no amount.
    """
    made = {}
    for unit, value in given.items():
        if unit not in UNITS:
            hint = did_you_mean(unit, UNITS) or f"a budget is in {', '.join(UNITS)}"
            raise UsageError(f"there is no budget in '{unit}'", hint=hint)
        made[unit] = _amount(unit, str(value).strip().lower())
    return made


def used(usage: Usage | None, cost: Decimal | None, reserved: Amounts) -> dict[str, Decimal]:
    """What an ended call counts: what was reported, and what was reserved where nothing was."""
    amounts = dict(reserved)
    if cost is not None:
        amounts["usd"] = cost
    if usage and usage.prompt_tokens is not None and usage.completion_tokens is not None:
        amounts["tokens"] = Decimal(usage.prompt_tokens + usage.completion_tokens)
    if usage and usage.credits is not None:
        amounts["credits"] = usage.credits
    return amounts


def unbilled(error: FlowcraftError | None) -> bool:
    """Whether a call that failed like this has used nothing: it never arrived, or was refused by its status.

    Anything else, or a part of an answer, may be billed.
    """
    refused = isinstance(error, ProviderError) and (
        not error.sent or (error.status is not None and not error.partial_text)
    )
    return refused or isinstance(error, UsageError) or (isinstance(error, TransportError) and error.stale)


@dataclass(frozen=True, slots=True)
class _Short:
    unit: str
    limit: Decimal
    spent: Decimal
    wanted: Decimal
    waiting_helps: bool


class Budget:
    """The budget of one run; thread-safe. `spent` is what earlier sessions have used.

    `ask` is called, in the thread of the call and for one call at a time, where a call does not fit: it gives a new
    limit, or None to stop.
    """

    def __init__(
        self,
        limit: Amounts,
        spent: Amounts | None = None,
        *,
        ask: AskMore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = dict(limit)
        self._spent = {unit: Decimal((spent or {}).get(unit, 0)) for unit in UNITS}
        self._reserved = dict.fromkeys(UNITS, Decimal(0))
        self._flying = self._waiting = 0
        self._changed = threading.Condition()
        self._ask = ask
        self._clock = clock
        self._started_s = clock()

    def reserve(self, worst: Amounts, scope: Scope) -> None:
        """Set aside what a call may use; waits while calls that are under way may leave enough.

        Raises BudgetError if it does not fit, Cancelled if the scope is cancelled meanwhile.
        """
        if not self.limit:
            return
        with self._changed:
            while (short := self._short(worst)) is not None:
                if short.waiting_helps and self._flying:
                    self._wait()
                    scope.check()
                elif not self._raised(short, scope):
                    raise _too_little(short)
            self._flying += 1
            for unit, amount in worst.items():
                self._reserved[unit] += amount

    def settle(self, worst: Amounts, amounts: Amounts) -> None:
        """A call that had reserved `worst` has ended and used `amounts`."""
        if not self.limit:
            return
        with self._changed:
            self._flying -= 1
            for unit, amount in worst.items():
                self._reserved[unit] -= amount
            for unit, amount in amounts.items():
                self._spent[unit] += amount
            if self._waiting:
                self._changed.notify_all()

    def left_s(self) -> float | None:
        """Seconds left of a budget in time."""
        limit = self.limit.get("time")
        return None if limit is None else max(0.0, float(limit - self._used("time")))

    def _wait(self) -> None:
        self._waiting += 1
        try:
            self._changed.wait(LOOK_S)
        finally:
            self._waiting -= 1

    def _used(self, unit: str) -> Decimal:
        elapsed = Decimal(str(self._clock() - self._started_s)) if unit == "time" else Decimal(0)
        return self._spent[unit] + elapsed

    def _short(self, worst: Amounts) -> _Short | None:
        for unit, limit in self.limit.items():
            spent, wanted = self._used(unit), worst.get(unit, Decimal(0))
            # What can only be known afterwards must leave something for the next call.
            fits = spent + self._reserved[unit] + wanted <= limit if unit in worst else spent < limit
            if not fits:
                helps = unit in worst and spent + wanted <= limit
                return _Short(unit, limit, spent, wanted, helps)
        return None

    def _raised(self, short: _Short, scope: Scope) -> bool:
        new = self._ask(_said(short), short.unit, short.limit, scope) if self._ask else None
        if new is None or new <= short.limit:
            return False
        self.limit[short.unit] = new
        return True


def _too_little(short: _Short) -> BudgetError:
    hint = f"{_GO_ON} --budget {short.unit}=..."
    if short.wanted and short.unit in ("usd", "tokens"):
        hint += "; a smaller max_tokens makes the worst case smaller"
    return BudgetError(_said(short), unit=short.unit, hint=hint)


def raising(hints: Iterable[str | None]) -> str:
    """The options of `resume` without which the same budgets would stop the run again, by the hints of its stages."""
    found = [hint.removeprefix(_GO_ON).split(";")[0] for hint in hints if hint and hint.startswith(_GO_ON)]
    return "".join(dict.fromkeys(found))


def _said(short: _Short) -> str:
    unit = short.unit
    digits = next((some for some in range(_DIGITS, _MOST_DIGITS) if _shows(short, some)), _MOST_DIGITS)
    limit, spent, wanted = (amount_text(unit, one, digits) for one in (short.limit, short.spent, short.wanted))
    text = f"the budget of {limit} is not enough: {spent} used"
    return f"{text}, and the next call may need {wanted}" if short.wanted else text


def _shows(short: _Short, digits: int) -> bool:
    """Whether amounts with so many digits still show that it is too little."""
    limit, spent, wanted = (round(one, digits) for one in (short.limit, short.spent, short.wanted))
    return spent + wanted > limit


def amount_text(unit: str, amount: Decimal, digits: int = _DIGITS) -> str:
    """An amount with its unit, for people; `digits` are those of dollars behind the point."""
    if unit == "usd":
        return f"${amount:.{digits}f}".rstrip("0").rstrip(".") if amount else "$0"
    if unit != "time":
        return counted(amount, unit.removesuffix("s"))
    return f"{amount:.1f} s" if amount >= 1 or not amount else f"{max(amount, _LEAST_S):.3f}".rstrip("0") + " s"


def _amount(unit: str, text: str) -> Decimal:
    factor = 1
    table = _DURATIONS if unit == "time" else _SUFFIXES if unit == "tokens" else {}
    if text[-1:] in table:
        text, factor = text[:-1], table[text[-1]]
    try:
        amount = Decimal(text.lstrip("$") if unit == "usd" else text) * factor
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        examples = {"usd": "2.50", "tokens": "500k", "time": "10m"}
        raise UsageError(f"{text!r} is no amount of {unit}", hint=f"write {unit}={examples.get(unit, '100')}")
    return amount
