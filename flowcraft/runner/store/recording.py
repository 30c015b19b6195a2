"""A run's answers as a recording that `--replay` and the replay provider play."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from flowcraft.core.errors import UsageError
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.store.records import CallRow, Records
from flowcraft.runner.store.rows import usage_data


def recording(records: Records, record: RunRecord) -> str:
    """One line for each answer that the run has used, those taken from other runs among them."""
    lines = [json.dumps(_line(call), ensure_ascii=False) for call in _answers(records, record)]
    return "".join(f"{line}\n" for line in lines)


def _answers(records: Records, record: RunRecord) -> Iterator[CallRow]:
    answered: dict[str, dict[str, list[CallRow]]] = {}  # of each run, of each stage
    for outcome in record.outcomes:
        run_id = outcome.cached_from or record.id
        if run_id not in answered:
            answered[run_id] = _by_path(records, run_id)
        yield from answered[run_id].get(outcome.path, ())


def _by_path(records: Records, run_id: str) -> dict[str, list[CallRow]]:
    found: dict[str, list[CallRow]] = {}
    with suppress(UsageError):  # deleted since
        for call in records.calls(records.run(run_id).number):
            if call.response:
                found.setdefault(call.path, []).append(call)
    return found


def _line(call: CallRow) -> dict[str, Any]:
    response = call.response
    assert response
    usage = {name: value for name, value in (usage_data(response.usage) or {}).items() if name != "credits"}
    facts = {
        "content": response.content,
        "finish_reason": response.finish_reason,
        "usage": usage,
        "reasoning": response.reasoning,
        "model": response.model,
        "request_id": response.request_id,
    }
    known = {name: value for name, value in facts.items() if value or name == "content"}
    return {"request": {"model": call.choice["model"], **call.request}, "response": known}
