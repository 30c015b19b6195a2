"""`runs`, `show`, `export`, `prune` and `db`: what is kept of runs."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowcraft.cli.options import json_option, workspace_option
from flowcraft.core.errors import UsageError
from flowcraft.core.problems import counted, did_you_mean

if TYPE_CHECKING:
    from flowcraft.runner.store.records import CallRow, Records, RunRow, StageRow

_NOTE = 100  # characters of an error in a table

run_argument = click.argument("run_id", required=False, metavar="[RUN]")


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, the latest first.")
@workspace_option
@json_option
def runs(limit: int, workspace: Path | None, as_json: bool) -> None:
    """List the runs that are kept here, the latest first."""
    from flowcraft.cli.report import dump
    from flowcraft.cli.screen import seconds, table
    from flowcraft.runner.store.records import open_records

    root = Path(workspace or ".").resolve()
    with open_records(root) as (records, _):
        found = [(row, state(root, row), records.spent(row.number)) for row in records.runs(limit)]
        paid = {row.id: _paid(records, row) for row, _, _ in found}
    if as_json:
        click.echo(dump([_row_json(row, status, spent) for row, status, spent in found]))
        return
    cells = [
        (row.id, row.pipeline, status, seconds(row.seconds), str(spent["calls"]), paid[row.id])
        for row, status, spent in found
    ]
    click.echo(table(cells, ("run", "pipeline", "status", "time", "calls", "cost")) if cells else "no runs yet")


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN] [STAGE]")
@workspace_option
@json_option
def show(names: tuple[str, ...], workspace: Path | None, as_json: bool) -> None:
    """Show RUN (default: the latest); with STAGE what it was asked and what it answered, attempt by attempt."""
    from flowcraft.cli.report import dump
    from flowcraft.runner.store.records import open_records

    root = Path(workspace or ".").resolve()
    with open_records(root) as (records, _):
        row, stage = _meant(root, records, names)
        if as_json:
            whole = whole_run(root, records, row)
            click.echo(dump(_of_stage(whole, stage) if stage else whole))
        elif stage:
            _show_stage(root, records, row, stage)
        else:
            _show_run(root, records, row)


@click.command()
@run_argument
@workspace_option
def export(run_id: str | None, workspace: Path | None) -> None:
    """Print everything that is kept of RUN (default: the latest) as JSON."""
    from flowcraft.cli.report import dump
    from flowcraft.runner.store.records import open_records

    root = Path(workspace or ".").resolve()
    with open_records(root) as (records, _):
        click.echo(dump(whole_run(root, records, records.run(run_id))))


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN]...")
@click.option("--older-than", type=click.IntRange(min=0), metavar="DAYS", help="Delete runs that began earlier.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Keep the N latest, delete all others.")
@workspace_option
def prune(run_ids: tuple[str, ...], older_than: int | None, keep: int | None, workspace: Path | None) -> None:
    """Delete runs with their prompts and answers; runs at work are kept. What is deleted is no longer cached."""
    from flowcraft.runner.store.ledger import FOLDER, Ledger
    from flowcraft.runner.store.records import open_records

    if not run_ids and older_than is None and keep is None:
        raise UsageError("prune what?", hint="flowcraft prune --older-than 30, or --keep 20, or RUN")
    root = Path(workspace or ".").resolve()
    with open_records(root) as (records, _):
        rows = records.runs()
        chosen = {records.run(one).id for one in run_ids}
        if older_than is not None:
            limit = (datetime.now(timezone.utc) - timedelta(days=older_than)).isoformat()
            chosen |= {row.id for row in rows if row.started < limit}
        chosen |= {row.id for row in rows[keep:]} if keep is not None else set()
        gone = [row for row in rows if row.id in chosen and state(root, row) != "running"]
    ledger = Ledger(root, create=False)
    try:
        ledger.forget([row.number for row in gone])
        ledger.database.vacuum()
    finally:
        ledger.close()
    for row in gone:
        _forget_notes(root / FOLDER / "runs" / row.id)
    click.echo(f"deleted {len(gone)} of {counted(len(rows), 'run')}")


def _forget_notes(folder: Path) -> None:
    """Delete what is noted of a run beside the database; what its stages have put there stays."""
    from flowcraft.runner import aftermath, gates

    with suppress(OSError):
        for name in (aftermath.FILE, gates.FILE):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


@click.group()
def db() -> None:
    """The database of runs, .flowcraft/flowcraft.db."""


@db.command()
@workspace_option
def check(workspace: Path | None) -> int:
    """Check the database; exit code 1 if something is wrong in it."""
    from flowcraft.runner.store.database import FILE
    from flowcraft.runner.store.ledger import FOLDER
    from flowcraft.runner.store.records import open_records

    root = Path(workspace or ".").resolve()
    place = root / FOLDER / FILE
    with open_records(root) as (records, database):
        problems = database.problems()
        for problem in problems:
            click.echo(problem, err=True)
        if problems:
            found = counted(len(problems), "problem")
            click.echo(f"{place}: {found}; keep a copy, then move it away", err=True)
            return 1
        click.echo(f"{place}: ok, version {database.version}, {counted(len(records.runs()), 'run')}")
    return 0


def state(root: Path, row: "RunRow") -> str:
    """The status of a run; one that is `running` without a process was killed."""
    from flowcraft.runner.store.ledger import FOLDER
    from flowcraft.runner.store.runlock import is_running

    return "killed" if row.status == "running" and not is_running(root / FOLDER, row.id) else row.status


def waiting_gates(root: Path, records: "Records", row: "RunRow") -> list[str]:
    """The gates at which a run waits, as far as it is known."""
    from flowcraft.runner.gates import Opened
    from flowcraft.runner.store.ledger import FOLDER

    if row.status != "paused":
        return []
    ended = {path for path, one in records.stages(row.number).items() if one.status == "succeeded"}
    return Opened(root / FOLDER / "runs" / row.id).waiting(ended)


def _paid(records: "Records", row: "RunRow") -> str:
    from flowcraft.cli.screen import money
    from flowcraft.runner.costs import costs

    found = costs(records, row.number, {})
    unknown = f"{found.unknown} of unknown cost" if found.unknown else ""
    return f"{money(found.actual)} and {unknown}" if unknown and found.actual else unknown or money(found.actual)


def checked_stage(root: Path, records: "Records", row: "RunRow", wanted: str) -> str:
    """The path of a stage of this run; raises UsageError with the nearest one."""
    known = _paths(root, records, row)
    if wanted not in known:
        hint = did_you_mean(wanted, known) or "nothing of this run has come to an end yet"
        raise UsageError(f"run {row.id} has no stage '{wanted}'", hint=hint)
    return wanted


def _paths(root: Path, records: "Records", row: "RunRow") -> set[str]:
    called = (call.path for call in records.calls(row.number))
    return {*records.stages(row.number), *called, *waiting_gates(root, records, row)}


def _meant(root: Path, records: "Records", names: tuple[str, ...]) -> "tuple[RunRow, str | None]":
    """The run and the stage that are named; a single name is a stage of the latest run, else a run."""
    if len(names) > 2:
        raise click.UsageError("give a RUN, a STAGE, or a RUN and its STAGE", click.get_current_context())
    if len(names) == 2:
        row = records.run(names[0])
        return row, checked_stage(root, records, row, names[1])
    latest = records.run()
    paths = _paths(root, records, latest) if names else set()
    if not names or names[0] in paths:
        return latest, next(iter(names), None)
    try:
        return records.run(names[0]), None
    except UsageError:
        if names[0][:1].isdigit():  # runs are named by their time, stages begin with a letter
            raise
        return latest, checked_stage(root, records, latest, names[0])


def whole_run(root: Path, records: "Records", row: "RunRow") -> dict[str, Any]:
    """Everything that is kept of a run as plain data."""
    calls = records.calls(row.number)
    ended = records.stages(row.number)
    waiting = waiting_gates(root, records, row)
    paths = dict.fromkeys((*ended, *(call.path for call in calls), *waiting))
    stages = []
    for path in paths:
        own = [_call_json(call) for call in calls if call.path == path]
        status = "waiting" if path in waiting else "unfinished"
        stages.append({**_stage_json(path, ended.get(path), status), "calls": own})
    return {**_row_json(row, state(root, row), records.spent(row.number)), "stages": stages}


def _of_stage(whole: dict[str, Any], path: str) -> Any:
    return next(stage for stage in whole["stages"] if stage["path"] == path)


def _row_json(row: "RunRow", status: str, spent: Any) -> dict[str, Any]:
    return {
        "export": 1,
        "id": row.id,
        "pipeline": row.pipeline,
        "file": str(row.file),
        "status": status,
        "inputs": row.inputs,
        "outputs": row.outputs,
        "error": row.error,
        "hint": row.hint,
        "started": row.started,
        "ended": row.ended,
        "seconds": round(row.seconds, 3),
        "sessions": row.sessions,
        "spent": spent,
    }


def _stage_json(path: str, row: "StageRow | None", status: str) -> dict[str, Any]:
    outcome = row.outcome.to_json() if row and row.outcome else None
    facts = {"status": row.status if row else status, "why": row.why if row else {}}
    return {"path": path, **facts, "fingerprint": row.fingerprint if row else None, "outcome": outcome}


def _call_json(call: "CallRow") -> dict[str, Any]:
    return {
        "id": call.id,
        "session": call.session,
        "state": call.state,
        "maybe_billed": call.state == "started",
        "event": call.event,
        "choice": call.choice,
        "request": call.request,
        "reserved": call.reserved,
        "started": call.started,
        "seconds": call.seconds,
        "usd": call.cost,
        "usage": call.attempt.to_json() if call.usage else None,
        "answer": call.response.content if call.response else None,
        "finish_reason": call.response.finish_reason if call.response else None,
        "rejected": call.rejected,
        "error": call.error,
    }


def _show_run(root: Path, records: "Records", row: "RunRow") -> None:
    from flowcraft.cli.screen import clean, seconds, table
    from flowcraft.runner.gates import WAITS

    spent = records.spent(row.number)
    click.echo(clean(f"run {row.id} of {row.pipeline} ({row.file})"))
    times = f" in {counted(row.sessions, 'session')}" if row.sessions > 1 else ""
    made = counted(spent["calls"], "call")
    click.echo(f"{state(root, row)}, {seconds(row.seconds)}{times}, {made}, {_paid(records, row)}")
    if row.error:
        click.echo(clean(f"error: {row.error}"))
    calls = records.calls(row.number)
    cells = []
    for path, stage in records.stages(row.number).items():
        own = [call for call in calls if call.path == path]
        cells.append((path, *_status(stage), str(len(own))))
    open_paths = [call.path for call in calls if call.path not in {cell[0] for cell in cells}]
    cells += [(path, "unfinished", "", str(open_paths.count(path))) for path in dict.fromkeys(open_paths)]
    gates = waiting_gates(root, records, row)
    cells += [(path, "waiting", WAITS, "0") for path in gates]
    click.echo(table(cells, ("stage", "status", "note", "calls")) if cells else "nothing has ended yet")
    for line in (*_open_calls(root, row, calls), *(f"{name}: {value}" for name, value in row.outputs.items())):
        click.echo(clean(line))
    for line in _next(root, records, row, gates):
        click.echo(clean(line))


def _open_calls(root: Path, row: "RunRow", calls: "list[CallRow]") -> list[str]:
    unknown = sum(call.state == "started" for call in calls)
    if unknown and state(root, row) == "running":
        return [f"{counted(unknown, 'call')} without an end: under way, or lost with a killed process"]
    return [f"{counted(unknown, 'call')} without a recorded end: maybe billed"] if unknown else []


def _next(root: Path, records: "Records", row: "RunRow", gates: Sequence[str]) -> list[str]:
    """The commands that go on with the run."""
    from flowcraft.runner.budget import raising
    from flowcraft.runner.gates import how_to_decide

    if row.status == "paused":
        return how_to_decide(row.id, gates)
    goes_on = state(root, row) in ("failed", "interrupted", "killed") and not row.replayed
    more = raising(stage.outcome.hint for stage in records.stages(row.number).values() if stage.outcome)
    return [f"continue with: flowcraft resume {row.id}{more}"] if goes_on else []


def _status(stage: "StageRow") -> tuple[str, str]:
    outcome = stage.outcome
    if outcome is None:
        return stage.status, "stopped with the run" if stage.status == "interrupted" else "its end was not seen"
    if outcome.cached_from:
        return "cached", f"from run {outcome.cached_from}"
    lines = (outcome.error or outcome.reason or "").splitlines()
    return stage.status, lines[0][:_NOTE] if lines else ""


def _show_stage(root: Path, records: "Records", row: "RunRow", path: str) -> None:
    from flowcraft.cli.screen import clean, money
    from flowcraft.llm.parts import shown

    stage = records.stages(row.number).get(path)
    cached = stage is not None and stage.outcome is not None and stage.outcome.cached_from
    gates = waiting_gates(root, records, row)
    begun = "waiting" if path in gates else "unfinished"
    known = f"cached from run {cached}" if cached else stage.status if stage else begun
    click.echo(f"{path} of run {row.id}: {known}")
    before = ", before that" if cached else ""
    for number, call in enumerate(records.calls(row.number, path), start=1):
        cost = "maybe billed" if call.state == "started" else money(call.cost)
        click.echo(clean(f"\n--- attempt {number} ({call.event}{before}): {call.choice['name']}, {call.state}, {cost}"))
        for message in call.request["messages"]:
            click.echo(clean(f"[{message['role']}]\n{shown(message['content'])}"))
        if call.response:
            click.echo(clean(f"[answer]\n{call.response.content}"))
        for label, text in (("rejected", call.rejected), ("error", call.error)):
            if text:
                click.echo(clean(f"[{label}] {text}"))
    outcome = stage.outcome if stage else None
    if outcome:
        facts = {"output": outcome.output, "error": outcome.error, "reason": outcome.reason, "stderr": outcome.stderr}
        for label, value in facts.items():
            if value not in (None, ""):
                click.echo(clean(f"\n[{label}]\n{value}"))
    for line in _next(root, records, row, gates) if path in gates else ():
        click.echo(clean(line))
