"""`why` and `cost`: the reasons and the money."""

from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowcraft.cli.options import json_option, settings_option, workspace_option
from flowcraft.cli.runs import checked_stage, run_argument, waiting_gates
from flowcraft.core.errors import UsageError
from flowcraft.core.problems import counted

if TYPE_CHECKING:
    from flowcraft.runner.store.records import CallRow, Records, RunRow, StageRow

_SHOWN = 60  # characters of a text that differs


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[RUN] STAGE")
@workspace_option
@json_option
def why(names: tuple[str, ...], workspace: Path | None, as_json: bool) -> None:
    """Say why STAGE of RUN (default: the latest) ran, was cached, skipped or rejected, and on which model."""
    from flowcraft.cli.report import dump
    from flowcraft.cli.screen import clean
    from flowcraft.runner.store.records import open_records

    if len(names) > 2:
        raise click.UsageError("give a RUN and a STAGE, or a STAGE", click.get_current_context())
    root = Path(workspace or ".").resolve()
    with open_records(root) as (records, _):
        row = records.run(names[0] if len(names) == 2 else None)
        path = checked_stage(root, records, row, names[-1])
        told = _reasons(records, row, path)
        if path in waiting_gates(root, records, row):
            told |= {"status": "waiting", "because": f"nobody has decided: flowcraft approve {row.id} --stage {path}"}
    if as_json:
        click.echo(dump({"run": row.id, "stage": path, **told}))
        return
    click.echo(clean(f"{path} of run {row.id}: {told['status']}, because {told['because']}"))
    for line in told["model"], *told["differs"], *told["attempts"]:
        if line:
            click.echo(clean(f"  {line}"))


def _reasons(records: "Records", row: "RunRow", path: str) -> dict[str, Any]:
    stage = records.stages(row.number).get(path)
    calls = records.calls(row.number, path)
    differs = _differences(records, row, stage, calls) if stage and stage.why.get("decision") == "ran" else []
    cached = stage is not None and stage.why.get("decision") == "cached"
    choice = _question(calls).choice if calls and not cached else None
    before = "before that: " if cached else ""  # an earlier session has asked, about what has changed since
    return {
        "status": "cached" if cached else stage.status if stage else "unfinished",
        "because": _because(stage),
        "model": f"{choice['name']} [{choice['type'] or 'no tier'}]: {choice['because']}" if choice else "",
        "differs": differs,
        "attempts": [before + _attempt(number, call) for number, call in enumerate(calls, start=1)],
    }


def _because(stage: "StageRow | None") -> str:
    if stage is None:
        return "it was begun, and its end is not recorded"
    outcome, decision = stage.outcome, stage.why
    if decision.get("decision") == "cached":
        return f"nothing that it depends on has changed since run {decision['run']}"
    if outcome is None:
        stopped = stage.status == "interrupted"
        return "it was started, and " + ("stopped with the run" if stopped else "nobody has seen its end")
    if outcome.status == "skipped":
        return outcome.reason or "it was skipped"
    if stage.kind == "approve":
        return outcome.error or f"approved by {outcome.output['by'] or 'somebody'}"
    reason = decision.get("reason") or "there was no result for this question"
    return f"{reason}; it failed: {outcome.error}" if outcome.error else reason


def _differences(records: "Records", row: "RunRow", stage: "StageRow", calls: "list[CallRow]") -> list[str]:
    """What is different from the latest run in which this stage succeeded."""
    from flowcraft.runner.store.fingerprint import differing

    found = records.latest(str(row.file), (stage.path,), before=row.number)
    if not found or not stage.parts:
        return []
    older, run_id = found[stage.path]
    names = differing(stage.parts, older.parts)
    if not names:
        return [f"same question as in run {run_id}"]
    told = [f"differs from run {run_id} in: {', '.join(names)}"]
    asked_in = (older.outcome and older.outcome.cached_from) or run_id
    before: list[CallRow] = []
    with suppress(UsageError):  # that run was pruned
        before = records.calls(records.run(asked_in).number, stage.path)
    if "prompt" in names and calls and before:
        old, new = _asked(_question(before)), _asked(_question(calls))
        told += [_text_difference(old, new)] if old != new else []
    return told


def _question(calls: "list[CallRow]") -> "CallRow":
    """The call with which the stage was asked for the last time; a resume may have asked something else."""
    return next((call for call in reversed(calls) if call.event == "first"), calls[0])


def _asked(call: "CallRow") -> str:
    from flowcraft.llm.parts import shown

    return next((shown(one["content"]) for one in call.request["messages"] if one["role"] == "user"), "")


def _text_difference(old: str, new: str) -> str:
    place = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, place - 20)
    return f"prompt, from character {place}: {old[start : start + _SHOWN]!r} is now {new[start : start + _SHOWN]!r}"


def _attempt(number: int, call: "CallRow") -> str:
    from flowcraft.cli.screen import money

    head = f"attempt {number} ({call.event}) {call.choice['name']}"
    if call.state == "started":
        return f"{head}: no end is recorded, maybe billed"
    if call.error:
        return f"{head}: failed: {call.error}"
    end = f"rejected: {call.rejected}" if call.rejected else "answered"
    return f"{head}: {end}, {call.seconds or 0:.1f} s, {money(call.cost)}"


@click.command()
@run_argument
@settings_option
@workspace_option
@json_option
def cost(run_id: str | None, settings_path: Path | None, workspace: Path | None, as_json: bool) -> None:
    """Show what RUN (default: the latest) has cost, beside what one tier alone would have cost (estimated)."""
    from flowcraft.cli.report import dump
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.llm.pricebook import rates
    from flowcraft.runner.costs import costs
    from flowcraft.runner.store.records import open_records

    with open_records(Path(workspace or ".").resolve()) as (records, _):
        row = records.run(run_id)
        kept = Path(row.options.get("settings") or "")
        with LLMIntegration(SettingsManager(settings_path or (kept if kept.is_file() else None))) as llm:
            tiers = {tier: llm.choose(model=tier).model for tier in ("cheap", "expensive")}
        found = costs(records, row.number, {tier: rates(model) for tier, model in tiers.items()})
    if as_json:
        click.echo(dump({"run": row.id, **found.to_json()}))
        return
    click.echo(f"run {row.id}: {counted(found.calls, 'call')}")
    lines = {
        "actual": _sum(found.actual, found.unknown),
        f"all cheap ({tiers['cheap'].name})": _estimate(found.tiers["cheap"]),
        f"all expensive ({tiers['expensive'].name})": _estimate(found.tiers["expensive"]),
        "wasted attempts": f"{_dollars(found.wasted)} in {counted(found.wasted_calls, 'call')}",
        "saved by the cache": f"{_dollars(found.saved)} in {counted(found.cached, 'stage')}",
        "maybe billed": f"{counted(found.maybe_billed, 'call')} without a recorded end",
    }
    width = max(map(len, lines))
    for label, text in lines.items():
        click.echo(f"  {label.ljust(width)}  {text}")
    if found.credits:
        click.echo(f"  {'credits'.ljust(width)}  {found.credits}")


def _dollars(amount: Decimal) -> str:
    return f"${amount:.6f}"


def _sum(amount: Decimal, unknown: int) -> str:
    return _dollars(amount) + (f", and {counted(unknown, 'call')} of unknown cost" if unknown else "")


def _estimate(amount: Decimal | None) -> str:
    return "unknown (no price, or no reported tokens)" if amount is None else f"{_dollars(amount)} (estimate)"
