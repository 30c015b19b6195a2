"""What a call has cost; unknown stays unknown and is never 0."""

from decimal import Decimal

from flowcraft.core.values import Prices
from flowcraft.llm.base import Usage

_PER_MILLION = Decimal(1_000_000)


def cost_usd(usage: Usage | None, prices: Prices | None) -> Decimal | None:
    """US dollars for `usage` at `prices` (per million tokens), or None if either is not known.

    Cached input tokens are part of `prompt_tokens` and have a price of their own where one is set.
    """
    if prices is None:
        return None
    if prices.input == prices.output == 0 and not prices.cached_input:
        return Decimal(0)
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    cached = usage.cached_tokens or 0
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    fresh = max(0, usage.prompt_tokens - cached)
    total = fresh * prices.input + cached * cached_price + usage.completion_tokens * prices.output
    return total / _PER_MILLION
