"""What a stage has given becomes files of the workspace: under `save`, and those of a result from another run."""

from dataclasses import replace
from pathlib import Path

from flowcraft.core.errors import FlowcraftError, StageError
from flowcraft.pipeline.expressions.data import indented
from flowcraft.runner.files import Transaction, changes_in
from flowcraft.runner.leftovers import remove_temporary
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.stages import failed
from flowcraft.runner.work import Task
from flowcraft.runner.workspace import Workspace


def published(task: Task, outcome: Outcome, workspace: Workspace, resumed: str | None) -> Outcome:
    """A known result with its files, which may have to be written (again)."""
    if task.shape.files and outcome.cached_from and not outcome.resumed:
        outcome = _rewritten(task, outcome, workspace)
    if task.save is None or (outcome.resumed and task.save.exists()) or not outcome.ok:
        return outcome
    return saved(task.save, outcome, workspace, resumed)


def saved(place: Path, outcome: Outcome, workspace: Workspace, resumed: str | None) -> Outcome:
    """The outcome with its output in a file; a failed one if that cannot be written.

    `resumed` is the id of a run that was killed before: what it has left half-written beside the file goes.
    """
    value = outcome.output
    text = value if isinstance(value, str) else indented(value)
    text += "" if text.endswith("\n") else "\n"
    if resumed:
        remove_temporary(place.parent, resumed)
    try:
        return replace(outcome, saved=workspace.write(place, text))
    except FlowcraftError as error:
        lost = failed(outcome.path, outcome.kind, error)
        return replace(outcome, status="failed", output=None, rejected=text, error=lost.error, hint=lost.hint)


def _rewritten(task: Task, outcome: Outcome, workspace: Workspace) -> Outcome:
    found = changes_in(outcome.output["text"], task.writes, workspace)
    try:
        if found.reasons:
            raise StageError(f"the files of an earlier run cannot be used: {found.reasons[0]}", hint="use --fresh")
        assert task.undo
        return replace(outcome, written=Transaction(workspace, task.undo).apply(found.changes))
    except FlowcraftError as error:
        return failed(outcome.path, outcome.kind, error)
