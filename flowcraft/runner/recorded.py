"""A test made from a run: its answers by the path of the stage, those from the cache too, and the files it has read."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowcraft.core.errors import UsageError
from flowcraft.core.globs import literal
from flowcraft.pipeline.model import Pipeline, Prompt
from flowcraft.runner.choices import all_stages
from flowcraft.runner.outcome import Attempt, Outcome
from flowcraft.runner.store.records import CallRow, Records, RunRow, StageRow
from flowcraft.runner.workspace import Workspace

MAX_TEXT_BYTES = 32 * 1024  # of a file that is written into the test; larger ones are copied from where they are

_ENDED = ("succeeded", "failed", "rejected", "paused")
_FILES = re.compile(r"\b(glob|read)\(\s*(?:'([^']*)'|\"([^\"]*)\"|inputs\.(\w+))\s*\)")


def case_of(records: Records, row: RunRow, pipeline: Pipeline, root: Path, folder: Path) -> dict[str, Any]:
    """A test that plays a run again, in the form of a file in `folder`. Raises UsageError for a run without an end."""
    if row.status not in _ENDED:
        hint = f"flowcraft resume {row.id}, then record it"
        raise UsageError(f"run {row.id} has not come to its end: it is {row.status}", hint=hint)
    rows = records.stages(row.number)
    inputs = _inputs(pipeline, row)
    data = {
        "name": f"as run {row.id}",
        "pipeline": os.path.relpath(row.file, folder),
        "settings": os.path.relpath(row.options["settings"], folder) if row.options.get("settings") else None,
        "inputs": inputs,
        "answers": dict(_answers(records, row, rows)),
        "approve": {path: one.status == "succeeded" for path, one in rows.items() if one.kind == "approve"},
        "files": _files(pipeline, inputs, rows, root, folder),
        "expect": _expected(row, rows),
    }
    return {key: value for key, value in data.items() if value or key == "answers"}


def _inputs(pipeline: Pipeline, row: RunRow) -> dict[str, Any]:
    given = dict(row.options.get("inputs", {}))
    secret = {one.name: "a secret that is not kept" for one in pipeline.inputs if one.secret and one.required}
    return {**secret, **given}


def _answers(records: Records, row: RunRow, rows: Mapping[str, StageRow]) -> Iterator[tuple[str, Any]]:
    own: dict[str, list[CallRow]] = {path: [] for path in rows}
    for call in records.calls(row.number):
        own.setdefault(call.path, []).append(call)
    for path, calls in own.items():
        outcome = rows[path].outcome if path in rows else None
        cached = outcome.cached_from if outcome else None
        asked = _last(_of_run(records, cached, path) if cached else calls)
        answers = [call.response.content for call in asked if call.response]
        if answers:
            yield path, answers
        elif outcome and cached and outcome.kind == "prompt":  # that run was deleted since
            yield path, [_answered(outcome)]
        elif calls:
            yield path, {"error": calls[-1].error or "there was no answer"}


def _of_run(records: Records, run_id: str, path: str) -> list[CallRow]:
    with suppress(UsageError):
        return records.calls(records.run(run_id).number, path)
    return []


def _last(calls: Sequence[CallRow]) -> Sequence[CallRow]:
    """The calls since the stage was asked for the last time; before that it may have been another question."""
    first = max((number for number, call in enumerate(calls) if call.event == "first"), default=0)
    return calls[first:]


def _answered(outcome: Outcome) -> Any:
    files = isinstance(outcome.output, Mapping) and set(outcome.output) == {"files", "deleted", "text"}
    return outcome.output["text"] if files else outcome.output


def _expected(row: RunRow, rows: Mapping[str, StageRow]) -> dict[str, Any]:
    top = {path: one for path, one in rows.items() if "/" not in path and "[" not in path}
    stages = {path: _expected_of(one, models=bool(row.options.get("models"))) for path, one in top.items()}
    return {"status": row.status, "stages": stages, "outputs": dict(row.outputs or {})}


def _expected_of(row: StageRow, *, models: bool) -> dict[str, Any]:
    attempts = row.outcome.attempts if row.outcome else ()
    found: dict[str, Any] = {"status": row.status}
    if attempts and not any(attempt.error for attempt in attempts):  # what has failed does not fail again
        found["attempts"] = len(attempts)
        found |= {} if models else {"rungs": rungs(attempts)}
    return found


def rungs(attempts: Sequence[Attempt]) -> list[str]:
    """The models that were asked for answers, in order."""
    return list(dict.fromkeys(attempt.name for attempt in attempts if attempt.event != "check"))


def _files(
    pipeline: Pipeline, inputs: Mapping[str, Any], rows: Mapping[str, StageRow], root: Path, folder: Path
) -> dict[str, Any]:
    """What the run has read by name, as it is now, without what it has saved itself."""
    workspace = Workspace(root)
    saved = {one.outcome.saved for one in rows.values() if one.outcome}
    found: set[str] = set()
    for glob in _globs(pipeline, inputs):
        with suppress(UsageError):
            found.update(workspace.glob(glob))
    return {name: _content(root / name, folder) for name in sorted(found - saved)}


def _globs(pipeline: Pipeline, inputs: Mapping[str, Any]) -> Iterator[str]:
    values = {**{one.name: one.default for one in pipeline.inputs}, **inputs}
    texts = {}
    for owner, stage in all_stages(pipeline):
        yield from stage.reads
        texts[str(owner.file)] = owner.file.read_text(encoding="utf-8")
        if isinstance(stage.work, Prompt):
            texts[stage.work.text.source] = stage.work.text.source
    for text in texts.values():
        for function, one, other, name in _FILES.findall(text):
            path = one or other or values.get(name)
            if isinstance(path, str) and path:
                yield path if function == "glob" else literal(path)


def _content(file: Path, folder: Path) -> Any:
    with suppress(OSError, UnicodeDecodeError):
        if file.stat().st_size <= MAX_TEXT_BYTES:
            return file.read_bytes().decode()
    return {"from": os.path.relpath(file, folder)}
