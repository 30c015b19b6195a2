"""What a run has cost, what it wasted and saved, and what one tier alone would have cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from flowcraft.llm.pricebook import Rates
from flowcraft.runner.store.records import CallRow, Records


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """US dollars; `tiers` are estimates from the tokens of accepted answers, None where they cannot be made.

    `wasted` is for attempts that failed or whose answer was rejected. `unknown` calls have no known cost.
    """

    calls: int
    actual: Decimal
    unknown: int
    wasted: Decimal
    wasted_calls: int
    maybe_billed: int
    saved: Decimal
    cached: int
    credits: Decimal
    tiers: Mapping[str, Decimal | None]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def costs(records: Records, run: int, tiers: Mapping[str, Rates | None]) -> Costs:
    """The costs of a run; `tiers` has the rates to compare with."""
    calls = records.calls(run)
    cached = [row.outcome for row in records.stages(run).values() if row.outcome and row.outcome.cached_from]
    wasted = [call for call in calls if call.state == "failed" or call.rejected]
    accepted = [call for call in calls if call.state == "answered" and not call.rejected]
    return Costs(
        calls=len(calls),
        actual=_total(calls),
        unknown=sum(call.cost is None for call in calls),
        wasted=_total(wasted),
        wasted_calls=len(wasted),
        maybe_billed=sum(call.state == "started" for call in calls),
        saved=sum((outcome.saved_usd or Decimal(0) for outcome in cached), Decimal(0)),
        cached=len(cached),
        credits=sum((call.usage.credits or Decimal(0) for call in calls if call.usage), Decimal(0)),
        tiers={tier: _alone(accepted, price) for tier, price in tiers.items()},
    )


def _total(calls: list[CallRow]) -> Decimal:
    return sum((call.cost for call in calls if call.cost is not None), Decimal(0))


def _alone(calls: list[CallRow], price: Rates | None) -> Decimal | None:
    found = [price.cost(call.usage) if price else None for call in calls]
    known = [amount for amount in found if amount is not None]
    return sum(known, Decimal(0)) if len(known) == len(found) else None
