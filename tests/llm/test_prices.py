"""What calls cost: input that comes from a service's cache, goes into it, or neither, has three prices."""

from decimal import Decimal

import pytest

from flowcraft.core.values import ModelSettings, Prices
from flowcraft.llm.base import Usage
from flowcraft.llm.pricebook import rates
from flowcraft.llm.prices import cost_usd

USAGE = Usage(prompt_tokens=1_000_000, completion_tokens=100_000, cached_tokens=200_000, cache_creation_tokens=300_000)


def prices(**more: str) -> Prices:
    return Prices(input=Decimal(4), output=Decimal(20), **{kind: Decimal(price) for kind, price in more.items()})


@pytest.mark.parametrize(
    ("listed", "cost"),
    [
        (prices(), "6"),
        (prices(cached_input="0.4"), "5.28"),
        (prices(cache_write="5"), "6.3"),
        (prices(cached_input="0.4", cache_write="5"), "5.58"),
        (prices(cached_input="0", cache_write="0"), "4"),
        (Prices(input=Decimal(0), output=Decimal(0), cache_write=Decimal(1)), "0.3"),
    ],
)
def test_each_kind_of_input_has_its_price(listed: Prices, cost: str) -> None:
    assert cost_usd(USAGE, listed) == Decimal(cost)


def test_qwen_bills_a_quarter_more_for_what_it_puts_into_its_cache() -> None:
    known = rates(ModelSettings(name="q", provider="qwen-code", model="qwen3-coder-plus"))
    assert known

    assert known.cost(Usage(prompt_tokens=10_000, completion_tokens=0, cache_creation_tokens=10_000)) == Decimal(
        "0.0125"
    )


def test_the_most_that_a_request_may_cost_holds_where_all_of_it_goes_into_the_cache() -> None:
    known = rates(ModelSettings(name="m", provider="openai", model="m", prices=prices(cache_write="5")))
    assert known

    assert known.ceiling(1_000_000, 0) == 5


def test_the_library_of_prices_knows_the_cache_too() -> None:
    pytest.importorskip("genai_prices")
    known = rates(ModelSettings(name="c", provider="anthropic", model="claude-sonnet-4-5"))
    assert known
    costs = [
        known.cost(Usage(prompt_tokens=1000, completion_tokens=0, **cache))
        for cache in ({}, {"cached_tokens": 1000}, {"cache_creation_tokens": 1000})
    ]

    assert costs == [Decimal("0.003"), Decimal("0.0003"), Decimal("0.00375")]
