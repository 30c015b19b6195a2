"""`approve` and `reject`: the answer to a gate at which a run waits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flowcraft.cli.asking import user
from flowcraft.cli.run import input_option, resumed, run_options
from flowcraft.cli.runs import waiting_gates
from flowcraft.core.errors import UsageError
from flowcraft.core.problems import did_you_mean

_stage_option = click.option("--stage", metavar="STAGE", help="Which gate, where several wait.")
_comment_option = click.option("--comment", default="", metavar="TEXT", help="Kept with the decision.")


@click.command()
@click.argument("run_id", required=False, metavar="[RUN]")
@_stage_option
@_comment_option
@input_option
@run_options
def approve(run_id: str | None, stage: str | None, comment: str, given: Sequence[str], **order: Any) -> int:
    """Approve the gate at which RUN (default: the latest) waits, and go on with it."""
    return _decided(run_id, stage, comment, given, order, approved=True)


@click.command()
@click.argument("run_id", required=False, metavar="[RUN]")
@_stage_option
@_comment_option
@input_option
@run_options
def reject(run_id: str | None, stage: str | None, comment: str, given: Sequence[str], **order: Any) -> int:
    """Reject the gate at which RUN (default: the latest) waits; the run ends with exit code 4."""
    return _decided(run_id, stage, comment, given, order, approved=False)


def _decided(
    run_id: str | None, stage: str | None, comment: str, given: Sequence[str], order: dict[str, Any], *, approved: bool
) -> int:
    from flowcraft.runner.gates import Decision
    from flowcraft.runner.store.records import open_records

    root = Path(order["workspace"] or ".").resolve()
    with open_records(root) as (records, _):
        row = records.run(run_id)
        waiting = waiting_gates(root, records, row)
    if row.status == "paused" and not waiting:  # its folder was deleted
        again = f"flowcraft resume {row.id}  finds out anew what it waits for"
        raise UsageError(f"it is not known any more what run {row.id} waits for", hint=again)
    if row.status != "paused":
        raise UsageError(f"run {row.id} waits for no decision: it is {row.status}", hint="flowcraft runs")
    if stage is not None and stage not in waiting:
        raise UsageError(f"no gate '{stage}' waits in run {row.id}", hint=did_you_mean(stage, waiting))
    if stage is None and len(waiting) > 1:
        raise UsageError(f"run {row.id} waits at several gates", hint=f"--stage {' or '.join(waiting)}")
    decision = Decision(approved=approved, comment=comment, by=user())
    return resumed(row.id, given, "ask", order, {stage or waiting[0]: decision})
