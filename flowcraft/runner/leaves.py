"""How one task or gate is carried out: what is known of it, what a worker is given, what comes back from there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from flowcraft.core.errors import FlowcraftError
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Choice
from flowcraft.pipeline.model import Approval
from flowcraft.runner.aftermath import Witness
from flowcraft.runner.books import Account
from flowcraft.runner.crew import Crew, Launch
from flowcraft.runner.events import StageStarted
from flowcraft.runner.flow import End, Place
from flowcraft.runner.gates import Ask, Decision, Opened, decided
from flowcraft.runner.minutes import Minutes
from flowcraft.runner.nested import BudgetAccount, Budgets
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.saving import published, saved
from flowcraft.runner.sight import check_question
from flowcraft.runner.store.fingerprint import digest, fingerprint
from flowcraft.runner.tasks import basis, placed
from flowcraft.runner.work import Question, Task

UNDO_LETTERS = 24  # of the hash of a path, as the name of its folder

Value = TypeVar("Value")


@dataclass(slots=True, kw_only=True)
class Leaves:
    """What tasks and gates need of a run; `undo` holds what transactions may have to take back."""

    id: str
    workspace: Witness
    undo: Path
    llm: LLMIntegration
    models: Mapping[str, str]
    minutes: Minutes
    gates: Opened
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    ask: Ask | None = None
    crew: Crew = field(init=False)
    waiting: list[str] = field(default_factory=list)

    def gate(self, place: Place, end: End, work: Approval) -> None:
        """Pass a gate, or wait there."""
        path, session = place.path, self.minutes.session

        def asked() -> str:
            return place.frame.renderer.approval(place.stage, work, place.names)

        try:
            text, files = self.workspace.watched(asked)
        except FlowcraftError as error:
            end(self._known_without(place, error), ())
            return
        known = session.gate(path, text) if session else None
        if session:
            session.looked(path, files, lambda: digest(asked()))
        if known:
            end(known, ())
            return
        self.minutes.tell(StageStarted(path, place.stage.kind))
        if session and self.ask:
            session.aftermath.settle(goes_on=bool(self.crew.flying))
        decision = self.gates.decision(path, text, place.stage.timeout_s, self.decisions, self.ask)
        if decision is None:
            self.waiting.append(path)
            self.minutes.note(self.gates.waits(path, text), place.order)
            return
        if not decision.approved:
            place.frame.reject()
        end(decided(path, decision), ())

    def leaf(self, place: Place, end: End) -> None:
        """Carry out a task, unless its result is known."""
        session = self.minutes.session
        try:
            (task, choice), files = self.workspace.watched(lambda: self._asked(place))
        except FlowcraftError as error:
            kept = self._known_without(place, error)
            end(kept, kept.attempts)
            return
        known = session.known(task, choice, place.frame.ends) if session else None
        if session:
            root = self.workspace.root
            session.looked(place.path, files, lambda: fingerprint(*self._asked(place), root).whole)
        if known:
            known = published(task, known, self.workspace, self._resumed())
            end(known, known.attempts)
            return
        if task.reads and isinstance(task.work, Question):
            check_question(task.stage, task.work, self.llm)
        if session and choice is None:
            session.command_starts(task)
        if self.minutes.listener:
            self.minutes.tell(_start_of(task, choice, session.why_again(task.path) if session else None))
        self.launched(task, place, end)

    def _known_without(self, place: Place, error: FlowcraftError) -> Outcome:
        """The result of what cannot be asked any more, because the run itself has moved a file; else raises `error`."""
        session = self.minutes.session
        known = session.known_without(place.path, error) if session else None
        if known is None:
            raise error
        return known

    def _asked(self, place: Place) -> tuple[Task, Choice | None]:
        """The task of a stage with all that it finds now, and its model."""
        stage = place.stage
        undo = self.undo / digest(place.path)[:UNDO_LETTERS] if stage.output.format == "files" else None
        streamed = self.minutes.listener is not None
        task = place.frame.renderer.task(stage, place.path, place.names, self.models, streamed=streamed, undo=undo)
        task = task._replace(turns=place.turns) if place.turns else task
        if not isinstance(task.work, Question):
            return task, None
        with placed(stage, "model"):
            return task, self.llm.choose(task.stage, task.work.model)

    def launched(self, task: Task, place: Place, end: End) -> None:
        """Give a task to a worker."""
        account: Account | None = None
        budgets, session = place.limits.budgets, self.minutes.session
        if session:
            session.aftermath.works()
            account = session.account(task, Budgets(session.budget, budgets) if budgets else None)
        elif budgets:
            account = BudgetAccount(Budgets(None, budgets), self.llm)
        self.crew.launch(Launch(task, end, place.limits.scope, account))

    def landed(self, launch: Launch, outcome: Outcome) -> None:
        """Take in how a task has ended; what it gave is in its place before anything that depends on it starts."""
        if not self.crew.over(launch):
            return
        if launch.task.save and outcome.ok:
            outcome = saved(launch.task.save, outcome, self.workspace, self._resumed())
        launch.end(outcome, outcome.attempts)

    def found(self, key: str, expression: Any, names: Mapping[str, Any], look: Callable[[], Value]) -> Value:
        """What an `expression` gives, or gave before the run itself has changed the files that it looks at."""
        session = self.minutes.session
        if session is None:
            return look()
        return session.aftermath.found(key, lambda: basis(expression, names), self.workspace, look)

    def _resumed(self) -> str | None:
        return self.id if self.minutes.session and self.minutes.session.resumed else None


def _start_of(task: Task, choice: Choice | None, again: str | None) -> StageStarted:
    if choice is None:
        return StageStarted(task.path, task.kind, again=again)
    return StageStarted(task.path, task.kind, choice.model.name, choice.tier, choice.because, again)
