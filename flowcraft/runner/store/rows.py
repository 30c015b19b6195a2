"""The values of a run as the text of a row, and back; money stays decimal, unknown stays unknown."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any

from flowcraft.llm.base import ChatRequest, LLMResponse, Usage
from flowcraft.llm.parts import ImagePart, TextPart
from flowcraft.runner.outcome import Attempt, Outcome


def _plain(value: Any) -> Any:
    # Decimals become text, so that no digit of money is lost; of images only what they are is kept.
    return value.record if isinstance(value, (TextPart, ImagePart)) else str(value)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain).encode
_SILENT = frozenset(("written", "warnings", "attempts", "resumed", "cached", "reasoning"))  # mostly empty or False
_MONEY = ("cost", "credits", "saved_usd")


def text_of(value: Any) -> str:
    """`value` as compact JSON that every database can hold."""
    text = _encode(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, from a program's output
            return json.dumps(value, separators=(",", ":"), default=_plain)
    return text


def outcome_text(outcome: Outcome) -> str:
    """The whole outcome; `outcome_from` reads it back."""
    data = _said(outcome)
    if outcome.attempts:
        data["attempts"] = [_with_usage(_said(attempt), attempt.usage) for attempt in outcome.attempts]
    return text_of(data)


def outcome_from(text: str) -> Outcome:
    """What `outcome_text` has written."""
    data = _known(Outcome, json.loads(text))
    attempts = tuple(attempt_from(row) for row in data.pop("attempts", ()))
    return Outcome(**data | {"attempts": attempts, "warnings": tuple(data.get("warnings", ()))})


def attempt_from(row: Mapping[str, Any]) -> Attempt:
    """One of the attempts of an outcome as it is written."""
    return Attempt(**{"tier": None} | _known(Attempt, row) | {"usage": usage_from(row.get("usage"))})


def usage_data(usage: Usage | None) -> dict[str, Any] | None:
    """Reported usage without what is unknown."""
    return None if usage is None else {name: value for name, value in _fields(usage).items() if value is not None}


def usage_text(usage: Usage | None) -> str:
    """Reported usage as JSON; `usage_from` reads it once it is parsed."""
    return "null" if usage is None else text_of(usage_data(usage))


def amounts_text(amounts: Mapping[str, Decimal]) -> str:
    """Amounts by their units as JSON; numbers as text, and units are plain words."""
    return "{" + ",".join([f'"{unit}":"{amount}"' for unit, amount in amounts.items()]) + "}"


def usage_from(row: Mapping[str, Any] | None) -> Usage | None:
    """What `usage_data` has made."""
    return None if row is None else Usage(**_known(Usage, row))


def response_text(response: LLMResponse) -> str:
    """A whole answer with its usage and cost."""
    return text_of(_with_usage(_said(response), response.usage))


def response_from(text: str) -> LLMResponse:
    """What `response_text` has written."""
    data = _known(LLMResponse, json.loads(text))
    return LLMResponse(**data | {"usage": usage_from(data.get("usage"))})


def request_text(request: ChatRequest) -> str:
    """What was asked, as JSON, and as the lines of a recording have it; a text alone is written much faster."""
    messages = [f'{{"role":{text_of(one.role)},"content":{text_of(one.content)}}}' for one in request.messages]
    params = text_of(dict(request.params)) if request.params else "{}"
    return f'{{"messages":[{",".join(messages)}],"params":{params}}}'


def _said(value: Any) -> dict[str, Any]:
    # What is not there is not written, and read back as the default of its field.
    return {name: one for name, one in _fields(value).items() if one is not None and (one or name not in _SILENT)}


def _with_usage(data: dict[str, Any], usage: Usage | None) -> dict[str, Any]:
    return data if usage is None else data | {"usage": usage_data(usage)}


def _fields(value: Any) -> dict[str, Any]:
    names, values = _reader(value.__class__)
    return dict(zip(names, values(value), strict=True))


@lru_cache(maxsize=16)
def _reader(kind: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    return _names(kind), attrgetter(*_names(kind))


@lru_cache(maxsize=16)
def _names(kind: Any) -> tuple[str, ...]:
    return kind._fields if issubclass(kind, tuple) else tuple(one.name for one in fields(kind))


def _known(kind: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    # Rows of an earlier version may lack fields, those of a later one have more.
    names = _names(kind)
    return {
        name: Decimal(value) if name in _MONEY and value is not None else value
        for name, value in row.items()
        if name in names
    }
