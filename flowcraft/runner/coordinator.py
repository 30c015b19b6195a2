"""The coordinator of one run: starts what can start, takes in what comes back, notes how everything has ended.

It alone knows the whole run and takes no locks: only the thread that has the turn (see crew.py) is in here. Groups,
loops and used pipelines are lists of stages of their own (`Frame`) that report to their place when they are over;
nothing here waits for anything but the workers.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from queue import Empty
from typing import Any

from flowcraft.core.errors import FlowcraftError, LedgerError
from flowcraft.core.scope import Scope
from flowcraft.pipeline.model import Stage
from flowcraft.runner.crew import Crew, Landed, Launch
from flowcraft.runner.events import Event, RunFinished, RunStarted
from flowcraft.runner.execution import FINALLY_S, Executions
from flowcraft.runner.flow import Fan, Frame, Limits, Place
from flowcraft.runner.gates import blocked
from flowcraft.runner.minutes import INTERRUPTED
from flowcraft.runner.outcome import Attempt, Outcome, RunRecord, RunStatus
from flowcraft.runner.stages import cancelled, failed

STOP_S = 3.0  # what listens ends within 0.5 s; a program that ignores TERM gets 2 s before KILL

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Coordinator(Executions):
    """One run; everything here happens in one thread."""

    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    started_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # What somebody has to hear or answer happens in the caller's thread.
        alone = self.minutes.listener is not None or self.ask is not None
        self.crew = Crew(self.executor, self.llm, self._went_on, alone=alone)

    def carried_out(self) -> RunRecord:
        """Start what can start, take in what comes back, until nothing is left or somebody stops it."""
        limits = Limits(scope=self.scope, budgets=self.budgets)
        root = self.frame(self.pipeline.stages, self.pipeline, self.renderer, self.names, limits)
        self.minutes.tell(RunStarted(self.id, self.pipeline.name, tuple(stage.id for stage in self.pipeline.stages)))
        self._carry_out()
        status = self._status(root)
        if self.unfinished:
            self._end_used()
        if status != "paused" and root.finals:
            status = self._finally(root, status)
        if self.minutes.session:
            self.minutes.session.aftermath.settle()
        record = self._record(status)
        if self.minutes.session:
            self.minutes.session.finish(record)
        self.minutes.tell(RunFinished(record))
        return record

    def end(self) -> None:
        """End whatever still runs, at once."""
        self.scope.cancel()

    def _carry_out(self) -> None:
        take_back = self.scope.on_cancel(self.crew.wake)
        try:
            self._drive()
        except KeyboardInterrupt:
            self.scope.cancel()
        except BaseException:
            self.minutes.close()
            self._stop()
            raise
        finally:
            take_back()
        if self.waiting and not self.scope.cancelled:
            self._pause()
        elif self.sources:
            self._stop()
        self.scope.close()

    def _drive(self) -> None:
        self._start_all()
        while self.crew.flying and not self.scope.cancelled:
            self._take_in(self.crew.heard())
            self._start_all()

    def _went_on(self, launch: Launch, outcome: Outcome) -> None:
        """A whole turn, in the thread of the worker that has landed."""
        self.landed(launch, outcome)
        self._start_all()

    def _take_in(self, message: Event | Landed | None) -> None:
        if isinstance(message, Landed):
            self.landed(message.launch, message.outcome)
        elif message is not None:
            self.minutes.tell(message)

    def _start_all(self) -> None:
        flying, scope = self.crew.flying, self.scope
        while len(flying) < self.jobs and not scope.cancelled and self._start_one():
            pass

    def _start_one(self) -> bool:
        """Start what comes next; False if there is nothing."""
        if self.agenda:
            self.agenda.popleft()()
            return True
        for source in reversed(self.sources):  # what has begun is finished first
            if isinstance(source, Frame):
                name = source.schedule.take()
                if name is not None:
                    self._begin(source.place(source.stages[name]))
                    return True
            elif (number := source.take()) is not None:
                self.item(source, number)
                return True
        return False

    def _begin(self, place: Place) -> None:
        stage, frame, session = place.stage, place.frame, self.minutes.session
        settle = partial(self._settle, place)
        known = session.settled(place.path, stage.kind) if session and not frame.prefix else None
        if known:
            settle(known, known.attempts)
            return
        try:
            wanted = stage.condition is None or self._wanted(place)
        except FlowcraftError as error:
            settle(failed(place.path, stage.kind, error), ())
            return
        if not wanted:
            settle(Outcome(path=place.path, kind=stage.kind, status="skipped", reason="its `if` is false"), ())
            return
        self.guarded(place, settle, self.start)

    def _wanted(self, place: Place) -> bool:
        stage, names, renderer = place.stage, place.names, place.frame.renderer
        return self.found(f"{place.path}?if", stage.condition, names.public, lambda: renderer.wanted(stage, names))

    # -- how it ends ----------------------------------------------------------------------------

    def _settle(self, place: Place, outcome: Outcome, attempts: Sequence[Attempt]) -> None:
        """Note the end of a stage, before anything that depends on it can start."""
        frame, name = place.frame, place.stage.id
        self._ended(frame, name, outcome, attempts)
        if outcome.status == "failed" and not place.stage.tolerant:
            self._never(frame, frame.schedule.failed(name))
            if not self.keep_going and not frame.final:
                self._halt(frame.doomed(), f"not started because '{place.path}' failed")
        elif outcome.status != "cancelled":
            frame.schedule.done(name)
        self._close(frame)

    def _ended(self, frame: Frame, name: str, outcome: Outcome, attempts: Sequence[Attempt] = ()) -> None:
        frame.outcomes[name] = outcome
        frame.attempts += attempts
        frame.names.add(name, outcome, attempts)
        self.minutes.note(outcome, (*frame.order, frame.numbers[name]))

    def _close(self, frame: Frame) -> None:
        if frame.over and frame in self.sources:
            self.sources.remove(frame)
            if frame.end:
                frame.end(frame)

    def _halt(self, top: Frame, reason: str) -> None:
        """Start nothing more in a list that fails for sure, nor in what runs inside of it."""
        if top.halted:
            return
        inside = [source for source in self.sources if _frame_of(source).within(top)]
        for source in inside:
            source.halted = source.halted or reason
            if isinstance(source, Frame):
                self._never(source, source.schedule.stop(reason))
        for source in reversed(inside):
            if isinstance(source, Fan):
                self.fan_over(source)
            else:
                self._close(source)

    def _never(self, frame: Frame, reasons: Mapping[str, str]) -> None:
        for name, reason in reasons.items():
            path, kind = frame.prefix + name, frame.stages[name].kind
            self._ended(frame, name, Outcome(path=path, kind=kind, status="skipped", reason=reason))

    def _pause(self) -> None:
        """Nothing can go on before a gate is answered."""
        for frame in self._frames():
            for name, stage in frame.stages.items():
                path = frame.prefix + name
                if name not in frame.outcomes and path not in self.waiting:
                    order = (*frame.order, frame.numbers[name])
                    self.minutes.note(blocked(path, stage.kind, self.waiting[0]), order)
        self.sources.clear()

    def _stop(self) -> None:
        """Start nothing more, end what runs and wait for it, but not for ever."""
        self.scope.cancel()
        self.crew.claim()
        self.interrupted = True
        self.agenda.clear()
        for source in self.sources:
            source.halted = source.halted or INTERRUPTED
            if isinstance(source, Fan):
                source.cancelled = True
            else:
                self._never(source, source.schedule.stop(INTERRUPTED))
        self._await()
        for launch in self.crew.given_up():
            launch.end(cancelled(launch.task), ())
        frames = self._frames()
        self.sources.clear()
        for frame in reversed(frames):
            if frame.owner and frame.finals:
                self.unfinished.append(frame)
            for name, stage in frame.stages.items():
                if name not in frame.outcomes:
                    self._ended(frame, name, _gone(frame.prefix + name, stage))

    def _await(self) -> None:
        deadline_s = time.monotonic() + STOP_S
        while self.crew.flying:
            try:
                self._take_in(self.crew.heard_within(deadline_s - time.monotonic()))
            except Empty:
                break
            except LedgerError as error:
                self.minutes.session = None
                log.warning("%s", error)
            except Exception:
                log.exception("a stage broke while it was stopped")

    def _frames(self) -> list[Frame]:
        return [source for source in self.sources if isinstance(source, Frame)]

    # -- the end of the run ---------------------------------------------------------------------

    def _end_used(self) -> None:
        """What stands under `finally` in used pipelines that an interruption has ended, the inner ones first."""
        self.interrupted, self.scope = False, Scope(FINALLY_S)
        while self.unfinished and not self.interrupted:
            depth = max(len(frame.order) for frame in self.unfinished)
            for frame in [frame for frame in self.unfinished if len(frame.order) == depth]:
                self.unfinished.remove(frame)
                self.ending(frame, "interrupted", self.scope)
            self._carry_out()
        self.interrupted = True

    def _finally(self, root: Frame, status: RunStatus) -> RunStatus:
        """The stages that run whatever happened; they cannot make a success of a failure."""
        interrupted, self.interrupted = self.interrupted, False
        self.scope = Scope(FINALLY_S if interrupted else None)
        last = self.ending(root, status, self.scope)
        self._carry_out()
        after = self._status(last)
        self.interrupted = self.interrupted or interrupted
        return after if status == "succeeded" else status

    def _status(self, root: Frame) -> RunStatus:
        if self.interrupted:
            return "interrupted"
        return "paused" if self.waiting and not root.failure else root.status

    def _record(self, status: RunStatus) -> RunRecord:
        self.names.run.status = status
        outputs: dict[str, Any] = {}
        error = hint = None
        session = self.minutes.session
        if status == "succeeded" and not (session and session.selection.only):
            try:
                outputs = self.renderer.outputs(self.names)
            except FlowcraftError as found:
                status, error, hint = "failed", str(found), found.hint
        return RunRecord(
            id=self.id,
            pipeline=self.pipeline.name,
            file=self.pipeline.file,
            status=status,
            inputs=self.inputs,
            outcomes=self.minutes.in_order(),
            outputs=outputs,
            started=self.started,
            ended=datetime.now(timezone.utc),
            seconds=time.monotonic() - self.started_s,
            error=error,
            hint=hint,
            used=session.used() if session else None,
        )


def _gone(path: str, stage: Stage) -> Outcome:
    """The outcome of what an interruption has ended: a group in the middle, any other stage before its start."""
    if stage.loops or stage.below or stage.kind == "uses":
        return Outcome(path=path, kind=stage.kind, status="cancelled", reason="the run was interrupted")
    return Outcome(path=path, kind=stage.kind, status="skipped", reason=INTERRUPTED)


def _frame_of(source: Frame | Fan) -> Frame:
    return source if isinstance(source, Frame) else source.place.frame
