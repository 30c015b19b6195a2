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
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.store.records import CallRow, Records, RunRow, StageRow
from flowcraft.runner.workspace import Workspace

MAX_TEXT_BYTES = 32 * 1024  # of a file that is written into the test; larger ones are copied from where they are

_ENDED = ("succeeded", "failed", "rejected", "paused")
_ROUND = re.compile(r"\[(\d+)\]")
_FACTS = re.compile(r" \((?:provider|model|status|request id) [^()]*\)$")  # what an error says of its service
_STATUS = re.compile(r"\bstatus (\d{3})\b")
_FILES = re.compile(r"\b(glob|read)\(\s*(?:'([^']*)'|\"([^\"]*)\"|inputs\.(\w+))\s*\)")


def case_of(records: Records, row: RunRow, pipeline: Pipeline, root: Path, folder: Path) -> dict[str, Any]:
    """A test that plays a run again, in the form of a file in `folder`. Raises UsageError for a run without an end."""
    if row.status not in _ENDED:
        hint = f"flowcraft resume {row.id}, then record it"
        raise UsageError(f"run {row.id} has not come to its end: it is {row.status}", hint=hint)
    rows = records.stages(row.number)
    inputs = _inputs(pipeline, row)
    asked = asked_of(records, row, rows)
    data = {
        "name": f"as run {row.id}",
        "pipeline": os.path.relpath(row.file, folder),
        "settings": os.path.relpath(row.options["settings"], folder) if row.options.get("settings") else None,
        "inputs": inputs,
        "answers": dict(_answers(asked, rows)),
        "verdicts": dict(_verdicts(asked)),
        "approve": {path: one.status == "succeeded" for path, one in rows.items() if one.kind == "approve"},
        "files": _files(pipeline, inputs, rows, root, folder),
        "expect": _expected(row, rows, asked),
    }
    return {key: value for key, value in data.items() if value or key == "answers"}


def lost_in(records: Records, row: RunRow, pipeline: Pipeline) -> list[str]:
    """What a test of a run cannot hold, in sentences."""
    rows = records.stages(row.number)
    found = []
    commands = [path for path, one in rows.items() if one.kind in ("run", "python") and one.status != "skipped"]
    commands += [stage.id for _, stage in all_stages(pipeline) if any(check.run for check in stage.checks)]
    if commands:
        names = ", ".join(dict.fromkeys(commands))
        found.append(f"commands run again ({names}): what they need beyond these files is to be put under `files`")
    for path, calls in asked_of(records, row, rows).items():
        ends = {str(one.response.finish_reason) for one in calls if one.response} - {"stop", "None"}
        found += [f"an answer of '{path}' has ended with {end}: in the test it is whole" for end in sorted(ends)]
    if row.options.get("models"):
        found.append("--model was given: the test asks the models of the file and the settings")
    if any("the budget of" in (one.outcome.error or "") for one in rows.values() if one.outcome):
        found.append("a budget was used up: answers in a test cost something else, so that it may be enough there")
    reasons = {one.outcome.reason or "" for one in rows.values() if one.outcome}
    if any(reason.startswith("not asked for") for reason in reasons):
        found.append("--only was given: the test runs all stages")
    return found


def _inputs(pipeline: Pipeline, row: RunRow) -> dict[str, Any]:
    given = dict(row.options.get("inputs", {}))
    secret = {one.name: "a secret that is not kept" for one in pipeline.inputs if one.secret and one.required}
    return {**secret, **given}


def asked_of(records: Records, row: RunRow, rows: Mapping[str, StageRow]) -> dict[str, list[CallRow]]:
    """What a run has asked for each stage that has ended, in the form in which a test can answer it.

    Only the last time that a stage ran counts, and of the tries of one call the last.
    """
    own: dict[str, list[CallRow]] = {path: [] for path in rows}
    for call in records.calls(row.number):
        own.setdefault(call.path, []).append(call)
    found = {}
    for path, calls in own.items():
        ended = rows.get(path)
        if ended is not None and ended.status != "skipped" and not _outrun(path, rows):
            cached = ended.outcome.cached_from if ended.outcome else None
            found[path] = _last_tries(_last(_of_run(records, cached, path) if cached else calls))
    return {path: calls for path, calls in found.items() if calls}


def _outrun(path: str, rows: Mapping[str, StageRow]) -> bool:
    """Whether it is in a round that its loop did not come to when it ran for the last time."""
    for match in _ROUND.finditer(path):
        name = path[: match.start()]
        loop = rows.get(name)
        rounds = loop.outcome.iterations if loop and loop.outcome else None
        counted_from = 0 if f"{name}[0]" in rows else 1  # items from 0, rounds from 1
        if rounds is not None and int(match[1]) >= rounds + counted_from:
            return True
    return False


def _last_tries(calls: Sequence[CallRow]) -> list[CallRow]:
    """The calls without those that were made again on the same model."""
    found: list[CallRow] = []
    for call in calls:
        again = found and found[-1].state == "failed" and found[-1].choice["name"] == call.choice["name"]
        if again and (call.event == "retry" or call.event == found[-1].event == "check"):
            found.pop()
        if call.state != "started":  # nobody knows what came of it: a later session has asked again
            found.append(call)
    return found


def _answers(asked: Mapping[str, Sequence[CallRow]], rows: Mapping[str, StageRow]) -> Iterator[tuple[str, Any]]:
    for path, row in rows.items():
        answers = [_given(call) for call in asked.get(path, ()) if call.event != "check"]
        if answers:
            yield path, answers
        elif row.kind == "prompt" and row.outcome and row.outcome.cached_from:  # that run was deleted since
            yield path, [_answered(row.outcome)]


def _verdicts(asked: Mapping[str, Sequence[CallRow]]) -> Iterator[tuple[str, Any]]:
    for path, calls in asked.items():
        if verdicts := [_given(call) for call in calls if call.event == "check"]:
            yield path, verdicts


def _given(call: CallRow) -> Any:
    """An answer as a test gives it."""
    if call.response:
        return call.response.content
    error = call.error or "there was no answer"
    facts = _FACTS.search(error)
    status = _STATUS.search(facts[0]) if facts else None
    said = error[: facts.start()] if facts else error
    return {"error": said, "status": int(status[1])} if status else {"error": said}


def _of_run(records: Records, run_id: str, path: str) -> list[CallRow]:
    with suppress(UsageError):
        return records.calls(records.run(run_id).number, path)
    return []


def _last(calls: Sequence[CallRow]) -> Sequence[CallRow]:
    """The calls since the stage was asked for the last time; before that it may have been another question."""
    first = [number for number, call in enumerate(calls) if call.event == "first"]
    return calls[first[-1] :] if first else [call for call in calls if call.session == calls[-1].session]


def _answered(outcome: Outcome) -> Any:
    files = isinstance(outcome.output, Mapping) and set(outcome.output) == {"files", "deleted", "text"}
    return outcome.output["text"] if files else outcome.output


def _expected(row: RunRow, rows: Mapping[str, StageRow], asked: Mapping[str, Sequence[CallRow]]) -> dict[str, Any]:
    top = {path: one for path, one in rows.items() if "/" not in path and "[" not in path}
    stages = {path: _expected_of(one, asked, models=bool(row.options.get("models"))) for path, one in top.items()}
    return {"status": row.status, "stages": stages, "outputs": dict(row.outputs or {})}


def _expected_of(row: StageRow, asked: Mapping[str, Sequence[CallRow]], *, models: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"status": row.status}
    inside = [path for path in asked if path.startswith((f"{row.path}/", f"{row.path}["))]
    if inside and row.status == "failed":  # how far the others came is another matter each time
        return found
    calls = [call for path in (row.path, *inside) for call in asked.get(path, ()) if call.event != "check"]
    names = list(dict.fromkeys(call.choice["name"] for call in calls))
    if calls:
        found["attempts"] = len(calls)
    if calls and not models and (not inside or len(names) == 1):
        found["rungs"] = names
    return found


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
