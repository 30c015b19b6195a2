"""A run's answers as a recording that `--replay` and the replay provider play."""

import json
from collections.abc import Iterator
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
    for outcome in record.outcomes:
        try:
            run = records.run(outcome.cached_from or record.id)
        except UsageError:  # deleted since
            continue
        yield from (call for call in records.calls(run.number, outcome.path) if call.response)


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
