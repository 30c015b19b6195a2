"""The parts of a run that is under way: lists of stages that run, places in them, items of a loop; no threads.

A path names one execution: `coding`, `fix_loop[2]/fix` (round 2, from 1), `describe[17]` (the item number 17, from 0).
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from flowcraft.core.scope import Scope
from flowcraft.pipeline.model import Inclusion, Pipeline, Stage
from flowcraft.runner.budget import Budget
from flowcraft.runner.names import Names
from flowcraft.runner.outcome import Attempt, Outcome, RunStatus
from flowcraft.runner.schedule import Schedule
from flowcraft.runner.store.fingerprint import digest
from flowcraft.runner.tasks import Renderer
from flowcraft.runner.work import Turn

Order = tuple[int, ...]
# Takes how something has ended, and all attempts that were made for it.
End = Callable[[Outcome, Sequence[Attempt]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The time and the budgets that everything inside shares."""

    scope: Scope
    budgets: tuple[tuple[str, Budget], ...] = ()

    def narrowed(self, name: str, timeout_s: float | None, budget: Budget | None) -> "Limits":
        """These limits, and those of the stage `name` besides."""
        time_s = budget.left_s() if budget else None
        least = min((value for value in (timeout_s, time_s) if value is not None), default=None)
        scope = self.scope if least is None else Scope(least, parent=self.scope)
        return Limits(scope=scope, budgets=(*self.budgets, (name, budget)) if budget else self.budgets)


class Place(NamedTuple):
    """One execution of a stage: where it is, what it can name, what it may use."""

    frame: "Frame"
    stage: Stage
    path: str
    names: Names
    limits: Limits
    order: Order
    since_s: float
    turns: tuple[Turn, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it has run until now."""
        return time.monotonic() - self.since_s

    def numbered(self, number: int, local: Mapping[str, Any], turn: Turn) -> "Place":
        """One round or item of it."""
        return self._replace(
            path=f"{self.path}[{number}]",
            names=self.names.inside(local),
            order=(*self.order, number),
            since_s=time.monotonic(),
            turns=(*self.turns, turn),
        )


@dataclass(eq=False, slots=True, kw_only=True)
class Frame:
    """One list of stages that runs: that of a pipeline, or of a group in one of its rounds.

    `owner` is the place of the group; `end` is called when all stages have ended. `final` is the list under `finally`
    of a pipeline, which nothing outside of it halts, nor a failure in it; `rejected` says that somebody said no at a
    gate in it.
    """

    pipeline: Pipeline
    stages: Mapping[str, Stage]
    renderer: Renderer
    names: Names
    limits: Limits
    keep_going: bool = False
    prefix: str = ""
    order: Order = ()
    turns: tuple[Turn, ...] = ()
    owner: Place | None = None
    end: "Callable[[Frame], None] | None" = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    final: bool = False
    rejected: bool = False
    halted: str | None = None
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self.schedule = Schedule(
            {name: stage.needs for name, stage in self.stages.items()},
            keep_going=self.keep_going or self.final,
            regardless=[name for name, stage in self.stages.items() if stage.regardless],
        )
        self.numbers = {name: number for number, name in enumerate(self.stages)}

    @property
    def over(self) -> bool:
        return len(self.outcomes) == len(self.stages)

    @property
    def failure(self) -> Outcome | None:
        """The first stage that has failed and may not."""
        bad = (out for name, out in self.outcomes.items() if out.status == "failed" and not self.stages[name].tolerant)
        return next(bad, None)

    @property
    def status(self) -> RunStatus:
        """How the list has ended, as a run does."""
        if any(outcome.status == "cancelled" for outcome in self.outcomes.values()):
            return "interrupted"
        if self.failure or self.halted:
            return "rejected" if self.rejected else "failed"
        return "succeeded"

    @property
    def ends(self) -> str | None:
        """Where the paths begin of what this list ends."""
        return self.prefix.removesuffix("finally/") if self.final else None

    @property
    def finals(self) -> tuple[Stage, ...]:
        """The stages that run after this list, whatever happened: it is all of a pipeline."""
        whole = self.owner is None or isinstance(self.owner.stage.work, Inclusion)
        return self.pipeline.finals if whole and not self.final else ()

    def reject(self) -> None:
        """Note that somebody said no, here and in the lists around."""
        frame: Frame | None = self
        while frame is not None:
            frame.rejected = True
            frame = frame.owner.frame if frame.owner else None

    def place(self, stage: Stage) -> Place:
        """Where a stage of this list runs."""
        return Place(
            frame=self,
            stage=stage,
            path=self.prefix + stage.id,
            names=self.names,
            limits=self.limits,
            order=(*self.order, self.numbers[stage.id]),
            since_s=time.monotonic(),
            turns=self.turns,
        )

    def within(self, other: "Frame") -> bool:
        """Whether this list is that one or runs inside of it."""
        frame: Frame | None = self
        while frame is not None and frame is not other:
            frame = frame.owner.frame if frame.owner and not frame.final else None
        return frame is other

    def doomed(self) -> "Frame":
        """The outermost list that fails for sure because this one does."""
        owner = self.owner
        if owner is None or owner.stage.tolerant or self.final:
            return self
        return owner.frame.doomed()


def together(frames: Sequence[Frame], place: Place) -> Outcome:
    """How the stage at `place` has ended if these lists of it have; where they have succeeded, it says nothing yet."""
    outcome = Outcome(path=place.path, kind=place.stage.kind, status="cancelled", seconds=place.seconds)
    bad = next((one.failure for one in frames if one.failure), None)
    halted = next((one.halted for one in frames if one.halted), None)
    if bad is not None:
        name = bad.path.removeprefix(frames[0].prefix)
        return replace(outcome, status="failed", error=f"'{name}' failed: {bad.error}", hint=bad.hint)
    return replace(outcome, status="failed", error=halted) if halted else outcome


def turns_of(items: Sequence[Any]) -> list[Turn]:
    """What tells each item apart, wherever it stands: its value, and which it is of those with the same value."""
    seen: Counter[str] = Counter()
    turns: list[Turn] = []
    for item in items:
        mark = digest(item)
        seen[mark] += 1
        turns.append(("item", f"{mark}/{seen[mark]}"))
    return turns


@dataclass(eq=False, slots=True, kw_only=True)
class Fan:
    """A stage that runs once per item, `limit` of them at a time."""

    place: Place
    items: Sequence[Any]
    turns: Sequence[Turn]
    limit: int
    end: End
    next: int = 0
    flying: int = 0
    results: list[Any] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    failure: tuple[int, Outcome] | None = None
    halted: str | None = None
    cancelled: bool = False

    def take(self) -> int | None:
        """The number of the next item that may start."""
        if self.halted or self.flying >= self.limit or self.next >= len(self.items):
            return None
        number = self.next
        self.next += 1
        self.flying += 1
        return number

    def landed(self, number: int, outcome: Outcome, attempts: Sequence[Attempt]) -> None:
        """Item `number` has ended; with `on_error: continue` a failed one is null."""
        self.flying -= 1
        self.attempts += attempts
        self.results[number] = outcome.output if outcome.ok else None
        if outcome.status == "cancelled":
            self.cancelled, self.halted = True, self.halted or "cancelled"
        if outcome.status == "failed" and not self.place.stage.tolerant:
            self.failure = self.failure or (number, outcome)
            self.halted = self.halted or f"item {number} failed"

    @property
    def over(self) -> bool:
        return not self.flying and (self.next >= len(self.items) or self.halted is not None)
