"""`flowcraft run` and `flowcraft resume`."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from flowcraft.cli.options import (
    FILE,
    Decorator,
    inputs,
    json_option,
    model_option,
    pairs,
    settings_option,
    show_warnings,
    workspace_option,
)
from flowcraft.cli.surroundings import say
from flowcraft.core.errors import FlowcraftError, LedgerError, UsageError
from flowcraft.core.problems import counted

if TYPE_CHECKING:
    from flowcraft.cli.live import View
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.pipeline.model import Pipeline
    from flowcraft.runner.events import Event
    from flowcraft.runner.gates import Decision
    from flowcraft.runner.outcome import RunRecord
    from flowcraft.runner.session import Durable

input_option = click.option(
    "-i",
    "--input",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="An input of the pipeline; NAME=@FILE takes a file's text. May be given again.",
)
_OPTIONS: tuple[Decorator, ...] = (
    settings_option,
    model_option,
    click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="How many stages may run at the same time."),
    click.option("--keep-going", is_flag=True, help="After a failure, still run what does not depend on it."),
    click.option("--from", "start_at", metavar="STAGE", help="Run this stage and those after it, on earlier results."),
    click.option("--only", metavar="STAGE", help="Run this stage alone, on the results from before."),
    click.option(
        "--fresh",
        is_flag=False,
        flag_value="*",
        multiple=True,
        metavar="[STAGE]",
        help="Ask anew, whatever is known; for one stage or all. May be given again.",
    ),
    click.option(
        "--budget",
        "budgets",
        multiple=True,
        metavar="UNIT=AMOUNT",
        help="What the run may use: usd=2.50, tokens=500k, calls=40, credits=10, time=10m. May be given again.",
    ),
    workspace_option,
    json_option,
)


def run_options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What the command line asks for, beside the pipeline and its inputs."""

    settings_path: Path | None
    models: Sequence[str]
    jobs: int | None
    keep_going: bool
    start_at: str | None
    only: str | None
    fresh: Sequence[str]
    budgets: Sequence[str]
    workspace: Path | None
    as_json: bool
    resume: str | None = None
    on_unknown: str = "ask"
    record: Path | None = None
    replay: Path | None = None
    decisions: "Mapping[str, Decision]" = field(default_factory=dict)


@click.command()
@click.argument("file", required=False, type=FILE)
@input_option
@run_options
@click.option("--record", type=click.Path(path_type=Path), metavar="PATH", help="Write all answers there for --replay.")
@click.option("--replay", type=click.Path(path_type=Path), metavar="PATH", help="Take all answers from there, offline.")
def run(file: Path | None, given: Sequence[str], **order: Any) -> int:
    """Run the pipeline FILE; everything is kept in .flowcraft, so that nothing is paid for twice.

    Exit code 0: done, 1: a stage failed, 2: the file or the command line is wrong,
    3: it waits for an approval, 4: that was refused, 130: interrupted.
    """
    fresh = list(order["fresh"])
    if file is None and fresh and fresh[-1] != "*":  # `--fresh FILE`: the name of a stage is optional
        file, order["fresh"] = Path(fresh[-1]), [*fresh[:-1], "*"]
    if file is None:
        raise click.UsageError("Missing argument 'FILE'.", click.get_current_context())
    return _carried_out(file, inputs(given), _Order(**order))


@click.command()
@click.argument("run_id", required=False, metavar="[RUN]")
@input_option
@run_options
@click.option(
    "--on-unknown",
    type=click.Choice(["ask", "fail", "rerun"]),
    default="ask",
    show_default=True,
    help="What to do with a command that was killed or stopped and may have done its work; asks on a terminal only.",
)
def resume(run_id: str | None, given: Sequence[str], on_unknown: str, **order: Any) -> int:
    """Go on with RUN (default: the latest) after a crash, Ctrl-C, a failure or a spent budget.

    What has succeeded is not run again unless it was changed. Secret inputs are not kept: give them again with -i.
    """
    return resumed(run_id, given, on_unknown, order)


def resumed(
    run_id: str | None,
    given: Sequence[str],
    on_unknown: str,
    order: dict[str, Any],
    decisions: "Mapping[str, Decision] | None" = None,
) -> int:
    """Go on with a run, with answers to the gates at which it waits."""
    from flowcraft.runner.store.ledger import FOLDER, file_hash
    from flowcraft.runner.store.records import open_records
    from flowcraft.runner.store.runlock import check_free

    root = Path(order["workspace"] or ".").resolve()
    with open_records(root) as (records, _):
        row = records.run(run_id)
    check_free(root / FOLDER, row.id)
    if not row.file.is_file():
        raise UsageError(
            f"the pipeline of run {row.id} is gone: {row.file}", hint="put it back, or start anew: flowcraft run FILE"
        )
    if row.file_hash != file_hash(row.file):
        click.echo(f"{row.file.name} was edited since run {row.id} began: what that changes runs again", err=True)
    kept = row.options
    chosen = {**kept.get("models", {}), **pairs(order["models"], "--model")}
    order["models"] = [f"{name}={model}" for name, model in chosen.items()]
    order["jobs"] = order["jobs"] or kept.get("jobs")
    order["keep_going"] = order["keep_going"] or kept.get("keep_going", False)
    order["settings_path"] = order["settings_path"] or (Path(kept["settings"]) if kept.get("settings") else None)
    values = {**kept.get("inputs", {}), **inputs(given)}
    more: dict[str, Any] = {"resume": row.id, "on_unknown": on_unknown, "decisions": decisions or {}}
    return _carried_out(row.file, values, _Order(**order, **more))


def _carried_out(file: Path, values: dict[str, Any], order: _Order) -> int:
    from flowcraft.cli.asking import Asker, asks_again
    from flowcraft.cli.limit import Raiser
    from flowcraft.cli.live import open_view
    from flowcraft.cli.models import fetch_weights, quality_note
    from flowcraft.cli.report import dump
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.routing import KnownModels
    from flowcraft.pipeline.load import load
    from flowcraft.runner.choices import named_models
    from flowcraft.runner.run import run_pipeline

    manager = SettingsManager(order.settings_path)
    pipeline = load(file, models=KnownModels(manager.settings))
    show_warnings(pipeline)
    chosen = pairs(order.models, "--model")
    if order.record:
        _check_place(order.record)
    if manager.notice and not order.replay:
        click.echo(manager.notice, err=True)
    stream = sys.stderr if order.as_json else sys.stdout
    with _integration(manager, order.replay) as llm, _way_back(order.workspace) as begun:
        if not order.replay:
            fetch_weights(choice.model for choice in named_models(pipeline, llm, chosen))
        with open_view(stream) as view:
            person = _somebody_is_there(stream)
            more = Raiser(view) if manager.settings.llm.on_exceed == "ask" and person else None
            again = asks_again(view) if order.on_unknown == "ask" and person else None
            record = run_pipeline(
                pipeline,
                values,
                llm=llm,
                models=chosen,
                jobs=order.jobs,
                keep_going=order.keep_going,
                workspace=order.workspace,
                on_event=begun.telling(view),
                durable=replace(_durable(pipeline, values, chosen, order, manager.path), ask=more, ask_again=again),
                ask=Asker(view) if person else None,
                decisions=order.decisions,
            )
    if order.record:
        _write_recording(order.record, record, order.workspace)
    for line in _what_next(record, replayed=order.replay is not None):
        say(line, stream)
    if order.as_json:
        say(dump(record.to_json()))
    if not order.replay:
        quality_note(one.provider for outcome in record.outcomes for one in outcome.attempts if one.error is None)
    return record.exit_code


def _what_next(record: "RunRecord", *, replayed: bool) -> list[str]:
    """The commands that go on with the run."""
    from flowcraft.runner.gates import WAITS, how_to_decide

    if record.status == "paused":
        gates = [outcome.path for outcome in record.outcomes if (outcome.reason or "").startswith(WAITS)]
        return how_to_decide(record.id, gates)
    goes_on = record.status in ("failed", "interrupted") and not replayed  # it would ask the real models
    return [f"continue with: {_resume(record)}"] if goes_on else []


def _resume(record: "RunRecord") -> str:
    from flowcraft.cli.screen import clean
    from flowcraft.runner.budget import raising
    from flowcraft.runner.session import unsure

    paths = ", ".join(f"'{outcome.path}'" for outcome in record.outcomes if unsure(outcome))
    more = f" --on-unknown rerun  (if {clean(paths)} can run again)" if paths else ""
    return f"flowcraft resume {record.id}{raising(outcome.hint for outcome in record.outcomes)}{more}"


class _Begun:
    """Knows the run that has begun."""

    run_id = ""

    def telling(self, view: "View") -> "Callable[[Event], None]":
        """A listener that passes on to `view`."""
        from flowcraft.runner.events import RunStarted

        def show(event: "Event") -> None:
            if isinstance(event, RunStarted):
                self.run_id = event.id
            view.show(event)

        return show


@contextmanager
def _way_back(workspace: Path | None) -> Iterator[_Begun]:
    """Say how to go on when a run is torn off: by a second Ctrl-C, a full disk."""
    begun = _Begun()
    try:
        yield begun
    except (KeyboardInterrupt, LedgerError, OSError):
        if begun.run_id and _is_kept(workspace, begun.run_id):
            click.echo(f"what was paid for is kept; continue with: flowcraft resume {begun.run_id}", err=True)
        raise


def _is_kept(workspace: Path | None, run_id: str) -> bool:
    """Whether the run can still be read: its database may be what was lost."""
    from flowcraft.runner.store.records import open_records

    try:
        with open_records(Path(workspace or ".").resolve()) as (records, _):
            return records.run(run_id).id == run_id
    except FlowcraftError:
        return False


def _durable(
    pipeline: "Pipeline", values: dict[str, Any], chosen: dict[str, str], order: _Order, settings: Path | None
) -> "Durable":
    from flowcraft.runner.session import Durable

    secret = {one.name for one in pipeline.inputs if one.secret}
    return Durable(
        resume=order.resume,
        fresh=frozenset(("*",) if order.replay else order.fresh),
        start_at=order.start_at,
        only=order.only,
        budget=pairs(order.budgets, "--budget"),
        rerun_unknown=order.on_unknown == "rerun",
        replayed=order.replay is not None,
        options={
            "models": chosen,
            "jobs": order.jobs,
            "keep_going": order.keep_going,
            "settings": str(settings.resolve()) if settings else None,
            "inputs": {name: value for name, value in values.items() if name not in secret},
        },
    )


def _somebody_is_there(stream: TextIO) -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and stream.isatty()


def _integration(manager: "SettingsManager", recording: Path | None) -> "LLMIntegration":
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.llm.replayed import ReplayedIntegration

    return ReplayedIntegration(manager, recording) if recording else LLMIntegration(manager)


def _check_place(path: Path) -> None:
    """Refuse a recording that cannot be written, before anything is paid for."""
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(f"the recording {path} cannot be written", hint="name a file in a folder of yours")


def _write_recording(path: Path, record: "RunRecord", workspace: Path | None) -> None:
    from flowcraft.runner.store.recording import recording
    from flowcraft.runner.store.records import open_records

    with open_records(Path(workspace or ".").resolve()) as (records, _):
        text = recording(records, record)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = f"the recording {path} cannot be written: {error.strerror}"
        raise FlowcraftError(reason, hint="the run is kept: flowcraft export") from None
    if record.status == "paused":
        made = counted(text.count("\n"), "answer")
        click.echo(f"{path}: {made}, up to where the run waits; what comes after it is not recorded", err=True)
