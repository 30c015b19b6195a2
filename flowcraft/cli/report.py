"""Answers and runs as JSON text."""

import json
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from flowcraft.llm.base import LLMResponse


def response_json(response: LLMResponse) -> str:
    """An answer as a JSON object; names as in `LLMResponse`."""
    return dump(asdict(response))


def dump(value: Any) -> str:
    """`value` as indented JSON; decimals become numbers."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else str(value)
