"""Runs that are kept, in the current folder: a real database, a scripted model; shared by several test modules."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from textwrap import dedent
from typing import Any

from fakes import ScriptedProvider, llm_of

from flowcraft.core.values import Prices
from flowcraft.llm.base import BaseLLMProvider
from flowcraft.runner.events import Event
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable

PRICES = Prices(input=Decimal(1), output=Decimal(2))

CHAIN = """
flowcraft: 1
stages:
  - id: first
    prompt: one
    output: {save: first.txt}
  - id: second
    prompt: two after ${{ stages.first.output }}
  - id: third
    prompt: three after ${{ stages.second.output }}
outputs: {result: "${{ stages.third.output }}"}
"""


def run_(
    text: str,
    model: BaseLLMProvider,
    *,
    settings: Mapping[str, Any] | None = None,
    prices: Prices | None = PRICES,
    events: list[Event] | None = None,
    inputs: Mapping[str, Any] | None = None,
    **durable: Any,
) -> RunRecord:
    Path("p.yaml").write_text(dedent(text))
    with llm_of(model, None, prices, **(settings or {})) as llm:
        listener = events.append if events is not None else None
        return run_pipeline("p.yaml", inputs, llm=llm, jobs=1, durable=Durable(**durable), on_event=listener)


def ends(record: RunRecord) -> dict[str, str]:
    """How each stage ended: its status, or where its result is from."""
    return {
        one.path: "cached" if one.cached_from else "resumed" if one.resumed else one.status for one in record.outcomes
    }


def echo() -> ScriptedProvider:
    return ScriptedProvider(otherwise=lambda request: f"<{request.messages[-1].content}>")
