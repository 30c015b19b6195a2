"""Running a pipeline: one coordinator that alone knows the whole run, and workers that know one task each.

The coordinator owns the schedule, the names that templates see, the outcomes and the listener; it takes no locks,
because nobody else has a reference. Workers hand pieces of text and outcomes over one queue. What costs
nothing is checked before the first call.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from flowcraft.core.errors import FlowcraftError, LedgerError
from flowcraft.core.scope import Scope
from flowcraft.core.settings import SettingsManager
from flowcraft.core.values import Settings
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Choice
from flowcraft.pipeline.load import load
from flowcraft.pipeline.model import Pipeline, Stage
from flowcraft.pipeline.plan import bind
from flowcraft.runner.choices import named_models
from flowcraft.runner.executors import open_executor
from flowcraft.runner.inputs import secret_texts, shown
from flowcraft.runner.ledger import FOLDER
from flowcraft.runner.leftovers import remove_temporary
from flowcraft.runner.names import Names, RunNames
from flowcraft.runner.outcome import (
    Event,
    Outcome,
    Question,
    RunFinished,
    RunRecord,
    RunStarted,
    RunStatus,
    StageFinished,
    StageStarted,
    Task,
)
from flowcraft.runner.schedule import Schedule
from flowcraft.runner.session import Durable, Session, new_id, open_session
from flowcraft.runner.stages import cancelled, execute, failed
from flowcraft.runner.tasks import Renderer
from flowcraft.runner.workspace import Workspace

DEFAULT_JOBS = 4  # calls at a time that the usual services allow
STOP_S = 3.0  # what listens ends within 0.5 s; a program that ignores TERM gets 2 s before KILL
INTERRUPTED = "not started because the run was interrupted"

Listener = Callable[[Event], None]

log = logging.getLogger(__name__)


def run_pipeline(  # noqa: PLR0913 - the front door: all but the first have a default
    pipeline: Pipeline | str | os.PathLike[str],
    inputs: Mapping[str, Any] | None = None,
    *,
    settings: SettingsManager | Settings | None = None,
    llm: LLMIntegration | None = None,
    jobs: int | None = None,
    models: Mapping[str, str] | None = None,
    workspace: str | os.PathLike[str] | None = None,
    keep_going: bool = False,
    on_event: Listener | None = None,
    scope: Scope | None = None,
    durable: Durable | None = None,
) -> RunRecord:
    """Run a pipeline to its end and say what came of it; a failed stage is an outcome, not an exception.

    `llm` is used and left open; without it one is made from `settings`. `models` names the model of single stages
    and wins over all else. `on_event` is called in this thread. Ctrl-C, and cancelling `scope` from
    another thread, end what runs and give a record with the status `interrupted`. `durable` writes everything
    down in the workspace, so that the run can be resumed and what was paid for is used again.
    Raises UsageError, PipelineError or SettingsError for what is wrong before anything has run, and
    LedgerError if it cannot be written down.
    """
    checked = pipeline if isinstance(pipeline, Pipeline) else load(Path(pipeline))
    values = bind(checked, inputs or {}, os.environ)
    root = Workspace(workspace or ".").root
    with ExitStack() as stack:
        llm = llm or stack.enter_context(LLMIntegration(settings))
        choices = tuple(named_models(checked, llm, models or {}))
        for choice in choices:
            for model in (choice.model, *choice.fallbacks):
                llm.provider(model)
        session = _session(stack, root, checked, values, llm, durable)
        if session:
            session.check_prices(choices)
        run_id = session.run_id if session else new_id()
        place = Workspace(root, tag=run_id)
        names = Names(checked, values, RunNames(run_id, root / FOLDER / "runs" / run_id))
        spilled = session.spilled() if session else stack.enter_context(_temporary_folder())
        limit = jobs or llm.settings.jobs or DEFAULT_JOBS
        run = _Run(
            id=run_id,
            pipeline=checked,
            stages={stage.id: stage for stage in checked.stages},
            inputs=shown(checked, values),
            names=names,
            renderer=Renderer(checked, names, place, spilled, secrets=secret_texts(checked, values)),
            schedule=Schedule({stage.id: stage.needs for stage in checked.stages}, keep_going=keep_going),
            workspace=place,
            llm=llm,
            models=models or {},
            jobs=limit,
            executor=stack.enter_context(open_executor(limit)),
            listener=on_event,
            scope=Scope(session.budget.left_s() if session else None, parent=scope),
            session=session,
        )
        # A second Ctrl-C may tear the first one's cancelling off: what then still runs is ended here.
        stack.callback(run.scope.cancel)
        return run.carried_out()


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flowcraft-") as folder:
        yield Path(folder)


def _session(
    stack: ExitStack,
    root: Path,
    pipeline: Pipeline,
    values: Mapping[str, Any],
    llm: LLMIntegration,
    durable: Durable | None,
) -> Session | None:
    if durable is None:
        return None
    return stack.enter_context(open_session(root, pipeline, shown(pipeline, values), llm.settings, durable))


@dataclass(frozen=True, slots=True)
class _Landed:
    """A worker is done with the task of this path."""

    path: str
    future: "Future[Outcome]"


@dataclass(slots=True, kw_only=True)
class _Run:
    """The coordinator of one run; everything here happens in one thread."""

    id: str
    pipeline: Pipeline
    stages: Mapping[str, Stage]
    inputs: Mapping[str, Any]
    names: Names
    renderer: Renderer
    schedule: Schedule
    workspace: Workspace
    llm: LLMIntegration
    models: Mapping[str, str]
    jobs: int
    executor: Executor
    listener: Listener | None
    scope: Scope
    session: Session | None = None
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    started_s: float = field(default_factory=time.monotonic)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    flying: dict[str, Task] = field(default_factory=dict)
    interrupted: bool = False
    inbox: "SimpleQueue[Event | _Landed | None]" = field(default_factory=SimpleQueue)

    def carried_out(self) -> RunRecord:
        """Start what can start, take in what comes back, until nothing is left or somebody stops it."""
        take_back = self.scope.on_cancel(lambda: self.inbox.put(None))
        try:
            self._tell(RunStarted(self.id, self.pipeline.name, tuple(stage.id for stage in self.pipeline.stages)))
            self._drive()
        except KeyboardInterrupt:
            self.scope.cancel()
        except BaseException:
            self.listener = self.session = None
            self._stop()
            raise
        finally:
            take_back()
            self.scope.close()
        if len(self.outcomes) < len(self.pipeline.stages):
            self._stop()
        record = self._record()
        if self.session:
            self.session.finish(record)
        self._tell(RunFinished(record))
        return record

    def _drive(self) -> None:
        while not self.scope.cancelled:
            while len(self.flying) < self.jobs and (path := self.schedule.take()) is not None:
                self._begin(self.stages[path])
            if not self.flying:
                return
            self._take_in(self.inbox.get())

    def _begin(self, stage: Stage) -> None:
        session = self.session
        outcome = session.settled(stage.id, stage.kind) if session else None
        if outcome:
            self._settle(outcome)
            return
        try:
            if not self.renderer.wanted(stage):
                self._settle(Outcome(path=stage.id, kind=stage.kind, status="skipped", reason="its `if` is false"))
                return
            task = self.renderer.task(stage, self.models, streamed=self.listener is not None)
            choice = self.llm.choose(task.stage, task.work.model) if isinstance(task.work, Question) else None
            outcome = session.known(task, choice) if session else None
            if outcome:
                self._settle(self._published(task, outcome))
                return
            self._tell(self._start_of(task, choice))
            if session and task.kind == "run":
                session.command_starts(task)
        except LedgerError:
            raise
        except FlowcraftError as error:
            self._settle(failed(stage.id, stage.kind, error))
            return
        self.flying[task.path] = task
        account = session.account(task) if session else None
        future = self.executor.submit(execute, task, self.llm, self.inbox.put, self.scope, account)
        future.add_done_callback(lambda done: self.inbox.put(_Landed(task.path, done)))

    def _start_of(self, task: Task, choice: Choice | None) -> StageStarted:
        again = self.session.why_again(task.path) if self.session else None
        if choice is None:
            return StageStarted(task.path, task.kind, again=again)
        return StageStarted(task.path, task.kind, choice.model.name, choice.tier, choice.because, again)

    def _published(self, task: Task, outcome: Outcome) -> Outcome:
        """A known result with its file, which may have to be written (again)."""
        if task.save is None or (outcome.resumed and task.save.exists()):
            return outcome
        return self._saved(task.save, outcome)

    def _take_in(self, message: "Event | _Landed | None") -> None:
        if isinstance(message, _Landed):
            task = self.flying.pop(message.path, None)
            outcome = message.future.result()
            self._settle(self._saved(task.save, outcome) if task and task.save and outcome.ok else outcome)
        elif message is not None:
            self._tell(message)

    def _settle(self, outcome: Outcome) -> None:
        """Note the end of a stage, before anything that depends on it can start."""
        self._note(outcome)
        if outcome.status == "failed":
            self._never(self.schedule.failed(outcome.path))
        elif outcome.status != "cancelled":
            self.schedule.done(outcome.path)

    def _note(self, outcome: Outcome) -> None:
        self.outcomes[outcome.path] = outcome
        self.names.add(outcome)
        if self.session and outcome.reason != INTERRUPTED:
            self.session.ended(outcome)
        self._tell(StageFinished(outcome))

    def _never(self, reasons: Mapping[str, str]) -> None:
        for path, reason in reasons.items():
            self._note(Outcome(path=path, kind=self.stages[path].kind, status="skipped", reason=reason))

    def _saved(self, place: Path, outcome: Outcome) -> Outcome:
        value = outcome.output
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        text += "" if text.endswith("\n") else "\n"
        if self.session and self.session.resumed:
            remove_temporary(place.parent, self.id)
        try:
            return replace(outcome, saved=self.workspace.write(place, text))
        except FlowcraftError as error:
            lost = failed(outcome.path, outcome.kind, error)
            return replace(outcome, status="failed", output=None, rejected=text, error=lost.error, hint=lost.hint)

    def _stop(self) -> None:
        """Start nothing more, end what runs and wait for it, but not for ever."""
        self.scope.cancel()
        self.interrupted = True
        self.schedule.stop(INTERRUPTED)
        deadline_s = time.monotonic() + STOP_S
        while self.flying:
            try:
                message = self.inbox.get(timeout=max(0.0, deadline_s - time.monotonic()))
                self._take_in(message)
            except Empty:
                break
            except LedgerError as error:
                self.session = None
                log.warning("%s", error)
            except Exception:
                log.exception("a stage broke while it was stopped")
        for task in self.flying.values():
            self._note(cancelled(task))
        self._never({path: INTERRUPTED for path in self.stages if path not in self.outcomes})

    def _record(self) -> RunRecord:
        outcomes = tuple(self.outcomes[stage.id] for stage in self.pipeline.stages)
        status: RunStatus = "succeeded"
        if self.interrupted or any(outcome.status == "cancelled" for outcome in outcomes):
            status = "interrupted"
        elif any(outcome.status == "failed" for outcome in outcomes):
            status = "failed"
        self.names.run.status = status
        outputs, error, hint = {}, None, None
        if status == "succeeded" and not (self.session and self.session.selection.only):
            try:
                outputs = self.renderer.outputs()
            except FlowcraftError as found:
                status, error, hint = "failed", str(found), found.hint
        return RunRecord(
            id=self.id,
            pipeline=self.pipeline.name,
            file=self.pipeline.file,
            status=status,
            inputs=self.inputs,
            outcomes=outcomes,
            outputs=outputs,
            started=self.started,
            ended=datetime.now(timezone.utc),
            seconds=time.monotonic() - self.started_s,
            error=error,
            hint=hint,
        )

    def _tell(self, event: Event) -> None:
        if self.listener:
            self.listener(event)
