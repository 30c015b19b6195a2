"""What a call has cost; unknown stays unknown and is never 0."""

from decimal import Decimal

from flowcraft.core.values import Prices
from flowcraft.llm.base import Usage

_PER_MILLION = Decimal(1_000_000)


def cost_usd(usage: Usage | None, prices: Prices | None) -> Decimal | None:
    """US dollars for `usage` at `prices` (per million tokens), or None if either is not known.

    Input tokens that come from a cache or go into one are part of `prompt_tokens`, with prices of their own.
    """
    if prices is None:
        return None
    if prices.input == prices.output == 0 and not (prices.cached_input or prices.cache_write):
        return Decimal(0)
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    read, written = usage.cached_tokens or 0, usage.cache_creation_tokens or 0
    fresh = max(0, usage.prompt_tokens - read - written)
    total = fresh * prices.input + usage.completion_tokens * prices.output
    total += read * (prices.input if prices.cached_input is None else prices.cached_input)
    total += written * (prices.input if prices.cache_write is None else prices.cache_write)
    return total / _PER_MILLION
