"""How one stage is carried out: its items, its rounds, and in the end a task for a worker, a gate or a list of stages.

Nothing here waits: each part gets a function to call when it has ended, in the thread that has the turn.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from flowcraft.core.errors import FlowcraftError, LedgerError, StageError
from flowcraft.core.problems import counted
from flowcraft.core.scope import Scope
from flowcraft.pipeline.model import Approval, Each, Group, Inclusion, Pipeline, Repeat, Stage
from flowcraft.runner.budget import Budget
from flowcraft.runner.events import StageStarted
from flowcraft.runner.flow import End, Fan, Frame, Limits, Place, together, turns_of
from flowcraft.runner.inputs import secret_texts
from flowcraft.runner.leaves import Leaves
from flowcraft.runner.names import Names
from flowcraft.runner.origins import given_inputs
from flowcraft.runner.outcome import Attempt, Outcome, RunStatus
from flowcraft.runner.stages import failed
from flowcraft.runner.tasks import Renderer
from flowcraft.runner.using import inner_budget

FINALLY_S = 60.0  # at least, for the stages under `finally` of what was interrupted or has used up its time

_LAST = 1 << 30  # in the order of outcomes: after all stages


@dataclass(slots=True, kw_only=True)
class Executions(Leaves):
    """The state of a run, and the starting of its parts."""

    pipeline: Pipeline
    inputs: Mapping[str, Any]
    names: Names
    renderer: Renderer
    jobs: int
    keep_going: bool
    executor: Executor
    scope: Scope
    agenda: "deque[Callable[[], None]]" = field(default_factory=deque)
    sources: list[Frame | Fan] = field(default_factory=list)
    interrupted: bool = False
    unfinished: list[Frame] = field(default_factory=list)
    budgets: tuple[tuple[str, Budget], ...] = ()
    last_names: dict[str, Names] = field(default_factory=dict)

    def start(self, place: Place, end: End) -> None:
        """Start a stage that is wanted: all its items, or its only execution."""
        place = self._begun(place)
        each = place.stage.each
        if each is None:
            self._rounds(place, end)
            return
        items = self._items(place, each)
        place = place._replace(names=place.names.looping(each))
        self.minutes.tell(StageStarted(place.path, place.stage.kind))
        limit = min(each.parallel or self.jobs, self.jobs)
        fan = Fan(place=place, items=items, turns=turns_of(items), limit=limit, end=end, results=[None] * len(items))
        self.sources.append(fan)
        self.fan_over(fan)

    def _items(self, place: Place, each: Each) -> list[Any]:
        renderer, stage, names = place.frame.renderer, place.stage, place.names
        return self.found(f"{place.path}?foreach", each.items, names.public, lambda: renderer.items(stage, each, names))

    def _begun(self, place: Place) -> Place:
        """The place with the limits of its own stage."""
        stage = place.stage
        if stage.timeout_s is None and not stage.budget:
            return place
        whole = stage.timeout_s if isinstance(stage.work, (Group, Inclusion)) else None
        return place._replace(limits=place.limits.narrowed(place.path, whole, self._inner(place.path, stage.budget)))

    def _inner(self, path: str, given: Mapping[str, Any]) -> Budget | None:
        session = self.minutes.session
        return session.allowance.of_stage(path, given) if session else inner_budget(given)

    def item(self, fan: Fan, number: int) -> None:
        """Start one item."""
        each = fan.place.stage.each
        assert each
        place = fan.place.numbered(number, {each.name: fan.items[number], "index": number}, fan.turns[number])

        def landed(outcome: Outcome, attempts: Sequence[Attempt]) -> None:
            self.minutes.note(outcome, place.order)
            fan.landed(number, outcome, attempts)
            self.fan_over(fan)

        self.guarded(place, landed, self._rounds)

    def fan_over(self, fan: Fan) -> None:
        """Report the end of all items, once they have ended."""
        if not fan.over or fan not in self.sources:
            return
        self.sources.remove(fan)
        place, rounds = fan.place, len(fan.items)
        outcome = Outcome(
            path=place.path, kind=place.stage.kind, status="cancelled", iterations=rounds, seconds=place.seconds
        )
        if fan.failure:
            number, bad = fan.failure
            outcome = replace(outcome, status="failed", error=f"item {number}: {bad.error}", hint=bad.hint)
        elif fan.halted and not fan.cancelled:
            outcome = replace(outcome, status="failed", error=fan.halted)
        elif not fan.halted:
            outcome = replace(outcome, status="succeeded", output=fan.results)
        fan.end(outcome, fan.attempts)

    def _rounds(self, place: Place, end: End) -> None:
        if place.stage.repeat is None:
            self._body(place, end)
        else:
            self._round(place, place.stage.repeat, 1, (), end)

    def _round(self, place: Place, repeat: Repeat, number: int, before: Sequence[Attempt], end: End) -> None:
        loop = {"index": number, "max": repeat.most, "last": number == repeat.most}
        inner = place.numbered(number, {"loop": loop}, ("round", number))

        def landed(outcome: Outcome, attempts: Sequence[Attempt]) -> None:
            self.minutes.note(outcome, inner.order)
            made = (*before, *attempts)
            # The stages of a group are still known by the names of this round.
            names = self.last_names.pop(inner.path, inner.names)
            result = self._after_round(place, names, number, outcome)
            if result is None:
                self.agenda.append(partial(self._round, place, repeat, number + 1, made, end))
            elif result.ok:
                self._judged(place._replace(names=names), result, made, end)
            else:
                end(result, made)

        self.guarded(inner, landed, self._body)

    def _after_round(self, place: Place, names: Names, number: int, outcome: Outcome) -> Outcome | None:
        """How the loop ends with this round; None: there is another one."""
        repeat, error = place.stage.repeat, None
        assert repeat
        if outcome.ok:
            try:
                if not self._done(place, names, number, outcome.output):
                    error = self._no_round_left(place, repeat, number)
                    if error is None:
                        return None
            except FlowcraftError as found:
                error = found
        if error is not None:
            outcome = failed(place.path, outcome.kind, error)
        return replace(outcome, path=place.path, attempts=(), iterations=number, seconds=place.seconds)

    def _done(self, place: Place, names: Names, number: int, output: Any) -> bool:
        stage, seen = place.stage, {**names.public, "output": output}
        assert stage.repeat
        key, renderer = f"{place.path}[{number}]?until", place.frame.renderer
        return self.found(key, stage.repeat.until, seen, lambda: renderer.done(stage, names, output))

    def _no_round_left(self, place: Place, repeat: Repeat, number: int) -> FlowcraftError | None:
        if number >= repeat.most:
            hint = "allow more rounds (max), or look at what the last one gave"
            return StageError(f"`{repeat.until.source}` does not hold after {counted(number, 'round')}", hint=hint)
        return StageError(place.frame.halted) if place.frame.halted else None

    def _body(self, place: Place, end: End) -> None:
        work = place.stage.work
        if isinstance(work, Group):
            self._opened(place, end, work.stages, place.frame.pipeline, place.frame.renderer, place.names.below())
        elif isinstance(work, Inclusion):
            self._included(place, end, work)
        elif isinstance(work, Approval):
            self.gate(place, end, work)
        else:
            self.leaf(place, end)

    def _opened(
        self,
        place: Place,
        end: End,
        stages: Sequence[Stage],
        pipeline: Pipeline,
        renderer: Renderer,
        names: Names,
        limits: Limits | None = None,
    ) -> None:
        self.minutes.tell(StageStarted(place.path, place.stage.kind))
        self.frame(
            stages,
            pipeline,
            renderer,
            names,
            limits or place.limits,
            prefix=f"{place.path}/",
            order=place.order,
            turns=place.turns,
            owner=place,
            end=lambda frame: self._closed(frame, place, end),
        )

    def _included(self, place: Place, end: End, work: Inclusion) -> None:
        used, renderer = work.pipeline, place.frame.renderer
        values = self._entered(place, work)
        limits = place.limits.narrowed(place.path, None, self._inner(place.path, used.budget))
        given = given_inputs(used, work, place.names.given)
        inner = renderer.used(used, secret_texts(used, values), place.stage.retries)
        self._opened(place, end, used.stages, used, inner, Names.of(used, values, place.names.run, given), limits)

    def _entered(self, place: Place, work: Inclusion) -> dict[str, Any]:
        """The inputs of a used pipeline; secret ones are nowhere kept, and so looked up anew."""

        def look() -> dict[str, Any]:
            return place.frame.renderer.entered(place.stage, work, place.names, place.path)

        if any(one.secret for one in work.pipeline.inputs):
            return look()
        return self.found(f"{place.path}?with", work.arguments, place.names.public, look)

    def _closed(self, frame: Frame, place: Place, end: End) -> None:
        """All stages of a group or used pipeline have ended; what stands under its `finally` comes now."""
        if not frame.finals:
            self._over((frame,), place, end)
        elif self.scope.cancelled:  # nothing starts any more: when the run has stopped
            self.unfinished.append(frame)
            self._over((frame,), place, end)
        else:
            self._finish(frame, place, end)

    def _finish(self, frame: Frame, place: Place, end: End) -> None:
        # Limits that are used up are no reason to leave things behind; who stops the run stops this, too.
        left_s = frame.limits.scope.remaining_s()
        scope = Scope(None if left_s is None else max(left_s, FINALLY_S))
        take_back = self.scope.on_cancel(scope.cancel)

        def over(last: Frame) -> None:
            take_back()
            self._over((frame, last), place, end)

        self.ending(frame, frame.status, scope, over)

    def ending(
        self, frame: Frame, status: RunStatus, scope: Scope, end: Callable[[Frame], None] | None = None
    ) -> Frame:
        """Open the list of what runs at the end of a pipeline, whatever happened."""
        return self.frame(
            frame.finals,
            frame.pipeline,
            frame.renderer,
            frame.names.ending(status),
            Limits(scope=scope, budgets=frame.limits.budgets),
            prefix=f"{frame.prefix}finally/",
            order=(*frame.order, _LAST),
            turns=frame.turns,
            owner=frame.owner,
            final=True,
            end=end,
        )

    def _over(self, frames: Sequence[Frame], place: Place, end: End) -> None:
        """A group or used pipeline is over, with all its lists."""
        frame = frames[0]
        outcome = together(frames, place)
        attempts = [attempt for one in frames for attempt in one.attempts]
        if all(one.status == "succeeded" for one in frames):
            outcome = self._result(frame, outcome)
        # `until` and `check` see the stages of a group; those of a used pipeline only it sees.
        names = frame.names if isinstance(place.stage.work, Group) else place.names
        if place.stage.repeat:
            self.last_names[place.path] = names
            end(outcome, attempts)
        elif outcome.ok:
            self._judged(place._replace(names=names), outcome, attempts, end)
        else:
            end(outcome, attempts)

    def _result(self, frame: Frame, outcome: Outcome) -> Outcome:
        assert frame.owner
        if isinstance(frame.owner.stage.work, Group):
            value: Any = {name: inner.output for name, inner in frame.outcomes.items() if inner.has_output}
            return replace(outcome, status="succeeded", output=value)
        try:
            return replace(outcome, status="succeeded", output=frame.renderer.outputs(frame.names))
        except FlowcraftError as error:
            return replace(failed(outcome.path, outcome.kind, error), seconds=outcome.seconds)

    def _judged(self, place: Place, outcome: Outcome, attempts: Sequence[Attempt], end: End) -> None:
        """Hold the result of a group or used pipeline to its checks; those of other kinds the worker has made."""
        if not place.stage.checks or not isinstance(place.stage.work, (Group, Inclusion)):
            end(outcome, attempts)
            return

        def landed(judged: Outcome, more: Sequence[Attempt]) -> None:
            end(replace(judged, iterations=outcome.iterations, seconds=place.seconds), (*attempts, *more))

        task = place.frame.renderer.judgement(place.stage, place.path, place.names, outcome.output)
        self.launched(task, place, landed)

    def guarded(self, place: Place, end: End, work: Callable[[Place, End], None]) -> None:
        """Do the work; what goes wrong in a known way is the end of the place."""
        try:
            work(place, end)
        except LedgerError:
            raise
        except FlowcraftError as error:
            end(failed(place.path, place.stage.kind, error), ())

    def frame(
        self, stages: Sequence[Stage], pipeline: Pipeline, renderer: Renderer, names: Names, limits: Limits, **more: Any
    ) -> Frame:
        """Open a list of stages."""
        frame = Frame(
            pipeline=pipeline,
            stages={stage.id: stage for stage in stages},
            renderer=renderer,
            names=names,
            keep_going=self.keep_going,
            limits=limits,
            **more,
        )
        self.sources.append(frame)
        return frame
