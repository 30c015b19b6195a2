"""What a model's tokens cost: the settings first, then a small dated book, then genai-prices if it is installed.

Prices are decimals. A tier is chosen by the input of one request and holds for all of it. Nobody's price is guessed:
a model that is in none of the three has none, and None is not 0.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flowcraft.core.values import ModelSettings, Prices
from flowcraft.llm.base import Usage
from flowcraft.llm.prices import cost_usd

_MILLION = Decimal(1_000_000)
_FILE = Path(__file__).with_name("prices.json")


class Rates(NamedTuple):
    """What one model costs; `price_of` has the prices of a request by its input tokens.

    `source` says who says so: the settings, the book with its date, genai-prices.
    """

    price_of: Callable[[int], Prices]
    source: str
    max_output: int | None = None

    def cost(self, usage: Usage | None) -> Decimal | None:
        """US dollars for reported usage; None if it is not known."""
        return cost_usd(usage, self.price_of((usage.prompt_tokens if usage else None) or 0))

    def ceiling(self, input_tokens: int, output_tokens: int) -> Decimal:
        """The most that a request with so much input and output may cost."""
        prices = self.price_of(input_tokens)
        # All of it may come from the service's cache, or go into it.
        dearest = max(prices.input, prices.cached_input or 0, prices.cache_write or 0)
        return (input_tokens * dearest + output_tokens * prices.output) / _MILLION


def rates(model: ModelSettings) -> Rates | None:
    """What `model` costs, None if nobody knows."""
    own = model.prices
    if own is not None:
        return Rates(price_of=lambda _: own, source="settings")
    return _listed(model.provider, model.model, model.base_url)


def billed(model: ModelSettings, *, at_list_price: bool) -> Rates | None:
    """What single calls to `model` are billed; None also where a login or plan is used instead of the list's price."""
    return rates(model) if at_list_price or model.prices is not None else None


@lru_cache(maxsize=256)  # asked twice for each call, and books do not change
def _listed(provider: str, name: str, base_url: str | None) -> Rates | None:
    return _in_book(provider, name, base_url) or _elsewhere(name, base_url)


def _in_book(provider: str, name: str, base_url: str | None) -> Rates | None:
    host = urlsplit(base_url).hostname or "" if base_url else ""
    for row in _book():
        hosts = any(host == known or host.endswith(f".{known}") for known in row["hosts"])
        if row["model"] == name and (hosts or (not host and provider in row["providers"])):
            source = f"price book of {row['as_of']}"
            return Rates(price_of=partial(_tier, row["tiers"]), source=source, max_output=row["max_output"])
    return None


def _tier(tiers: Sequence[Mapping[str, Any]], input_tokens: int) -> Prices:
    fitting = (tier for tier in tiers if tier["up_to"] is None or input_tokens <= tier["up_to"])
    tier = next(fitting, tiers[-1])
    return Prices(**{kind: Decimal(tier[kind]) for kind in ("input", "output", "cached_input", "cache_write")})


@lru_cache(maxsize=1)
def _book() -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads(_FILE.read_text(encoding="utf-8"))["models"])


def _elsewhere(name: str, base_url: str | None) -> Rates | None:
    # A server of the user's own bills by its own rules, whatever the model is called.
    if base_url is not None or not name:
        return None
    with suppress(LookupError):
        if _calculator() is not None:
            _genai_prices(name, 1)
            return Rates(price_of=partial(_genai_prices, name), source="genai-prices")
    return None


@lru_cache(maxsize=1)
def _calculator() -> tuple[Any, Any] | None:
    """Tokens and price of genai-prices; looked for once, since looking for what is not there takes long."""
    try:
        library = import_module("genai_prices")
    except ImportError:
        return None
    return library.Usage, library.calc_price


@lru_cache(maxsize=1024)
def _genai_prices(name: str, input_tokens: int) -> Prices:
    """What the extra `prices` says; it has no table to ask for, so a request of that size is priced."""
    calculator = _calculator()
    assert calculator
    tokens, price = calculator
    size = max(1, input_tokens)
    asked = Decimal(price(tokens(input_tokens=size, output_tokens=0), model_ref=name).total_price)
    both = Decimal(price(tokens(input_tokens=size, output_tokens=1_000_000), model_ref=name).total_price)
    read = Decimal(price(tokens(input_tokens=size, cache_read_tokens=size), model_ref=name).total_price)
    written = Decimal(price(tokens(input_tokens=size, cache_write_tokens=size), model_ref=name).total_price)
    return Prices(
        input=asked * _MILLION / size,
        output=both - asked,
        cached_input=read * _MILLION / size,
        cache_write=written * _MILLION / size,
    )
