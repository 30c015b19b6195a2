"""Runs that are kept, in the current folder: a real database, a scripted model; shared by several test modules."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
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
from flowcraft.runner.store.ledger_schema import APPLICATION_ID, MIGRATIONS

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


def version_3(path: Path) -> None:
    """Write the database of runs anew as FlowCraft did before stages and calls were numbered run by run."""
    with closing(sqlite3.connect(path)) as new:
        new.row_factory = sqlite3.Row
        orders = {"runs": "number", "calls": "number", "stages": "turn, number", "kept": "number"}
        tables = {
            name: [dict(row) for row in new.execute(f"SELECT * FROM {name} ORDER BY {orders[name]}")] for name in orders
        }
    path.unlink()
    numbers = {call["number"]: number for number, call in enumerate(tables["calls"], start=1)}
    for number, stage in enumerate(tables["stages"], start=1):
        stage |= {"number": number, "last_call": numbers.get((stage["run"] << 32) + stage["last_call"], 0)}
    with closing(sqlite3.connect(path)) as old:
        old.executescript("".join(MIGRATIONS[:3]))
        old.executescript(f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=3; PRAGMA journal_mode=WAL")
        for name, rows in tables.items():
            for row in rows:
                values = row | ({"number": numbers[row["number"]]} if name == "calls" else {})
                values.pop("turn", None)
                marks = ", ".join("?" * len(values))
                old.execute(f"INSERT INTO {name} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
        old.commit()


def echo() -> ScriptedProvider:
    return ScriptedProvider(otherwise=lambda request: f"<{request.messages[-1].content}>")
