"""What an agent has used, wherever it says so; what it does not say stays unknown.

Tokens stand in the answer to the prompt (`usage`, or Gemini's `_meta.quota`), or piecemeal in the updates, once
per call of the model (Qwen's `_meta.usage`). Context sizes (`usage_update`) are no usage, but bring the cost.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from typing import Any

from flowcraft.llm.base import Usage

_TOKENS = tuple(field.name for field in fields(Usage) if field.name != "credits")
_TRAILER = re.compile(r"▸ Credits:\s*([0-9]+(?:[.,][0-9]+)?)?")


def usage_of(result: Mapping[str, Any]) -> Usage | None:
    """The usage in the answer to `session/prompt`: in `usage`, or in `_meta.quota.token_count`."""
    usage = result.get("usage")
    if isinstance(usage, Mapping):
        return _from_usage(usage)
    found = _within(result, "_meta", "quota", "token_count")
    if found is None:
        return None
    return _known(
        prompt_tokens=_count(found.get("input_tokens")),
        completion_tokens=_count(found.get("output_tokens")),
        total_tokens=_count(found.get("total_tokens")),
        cached_tokens=_count(found.get("cached_tokens")),
    )


def piece_of_usage(update: Mapping[str, Any]) -> Usage | None:
    """The usage of one call of the model, in the `_meta` of an update."""
    found = _within(update, "_meta", "usage")
    return None if found is None else _from_usage(found)


def added(one: Usage | None, other: Usage | None) -> Usage | None:
    """Both together; what one of them does not know counts as what the other knows."""
    if one is None or other is None:
        return one or other
    both = {
        name: [count for count in (getattr(one, name), getattr(other, name)) if count is not None] for name in _TOKENS
    }
    return Usage(**{name: sum(counts) for name, counts in both.items() if counts})


def metered_credits(params: Mapping[str, Any]) -> Decimal | None:
    """The credits in a metadata notification of Kiro, or None."""
    metering = params.get("meteringUsage")
    if not isinstance(metering, list):
        return None
    amounts = [_amount(entry.get("value")) for entry in metering if isinstance(entry, Mapping) and _in_credits(entry)]
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None


def dollars(update: Mapping[str, Any]) -> Decimal | None:
    """What a session has cost so far, in a `usage_update`; None if it does not say it in US dollars."""
    cost = _within(update, "cost")
    return _amount(cost.get("amount")) if cost and str(cost.get("currency")).upper() == "USD" else None


def trailer_credits(stderr: str) -> tuple[bool, Decimal | None]:
    """Whether Kiro's closing line is there, which alone proves an answer, and the credits it names."""
    found = _TRAILER.search(stderr)
    return (found is not None, _amount((found[1] or "").replace(",", ".")) if found else None)


def _from_usage(usage: Mapping[str, Any]) -> Usage | None:
    count = {name: _count(usage.get(f"{name}Tokens")) for name in ("input", "output", "total", "thought")}
    prompt, completion, total, thought = count.values()
    read, written = _count(usage.get("cachedReadTokens")), _count(usage.get("cachedWriteTokens"))
    apart = (read or 0) + (written or 0)
    # Some agents count cached and thought tokens apart from the others; the total gives it away.
    if None not in (prompt, completion, total):
        rest = total - prompt - completion  # type: ignore[operator]  # not None, see above
        if apart and rest >= apart:
            prompt, rest = prompt + apart, rest - apart  # type: ignore[operator]
        if thought and rest >= thought:
            completion = completion + thought  # type: ignore[operator]
    return _known(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=read,
        cache_creation_tokens=written,
        reasoning_tokens=thought,
    )


def _within(value: Any, *keys: str) -> Mapping[str, Any] | None:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else None


def _known(**counts: int | None) -> Usage | None:
    return Usage(**counts) if any(counts.values()) else None  # type: ignore[arg-type]  # only token counts come here


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _in_credits(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("unit") or "credit").lower().startswith("credit")


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool) or value in (None, ""):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None
