"""One process at work on one run: what it writes down, what it knows from before, and why each stage runs again.

The coordinator asks here before it starts a task, and tells here how it ended. Three things save a call: the stage
has ended in this run (`resume`), the same question was answered in another run (cache), the user said so (`--from`).
"""

import logging
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from flowcraft.core.errors import FlowcraftError, LedgerError, StageError
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Choice
from flowcraft.pipeline.model import Pipeline
from flowcraft.runner.accounts import Account, OpenRun
from flowcraft.runner.aftermath import Aftermath
from flowcraft.runner.allowance import Allowance
from flowcraft.runner.budget import AskMore, Budget, limits
from flowcraft.runner.leftovers import end_programs
from flowcraft.runner.nested import Budgets
from flowcraft.runner.outcome import Outcome, RunRecord, Totals
from flowcraft.runner.selection import Selection
from flowcraft.runner.sharing import Sharing
from flowcraft.runner.store.fingerprint import Fingerprint, differing, digest, fingerprint
from flowcraft.runner.store.ledger import FOLDER, RAN, Ledger, NewRun, file_hash
from flowcraft.runner.store.records import CallRow, Records, StageRow
from flowcraft.runner.store.runlock import RunLock
from flowcraft.runner.work import Task

# commands that do not run again by themselves: the status of their row -> what may have happened
_UNSURE = {
    "started": "was started before, and nobody has seen its end: it may have done its work",
    "interrupted": "was stopped while it ran: it may have done part of its work",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Durable:
    """How a run is kept: `resume` goes on with that run; the others are the options of the same names.

    `fresh` holds stages, or "*" for all. `rerun_unknown` lets a command run again that may have done its work;
    else `ask_again` is asked, with the reason. `replayed` says that the answers are from a recording: other runs do
    not use the results. `options` are stored for a later resume. `ask` may raise a limit that is reached.
    """

    resume: str | None = None
    fresh: Collection[str] = ()
    start_at: str | None = None
    only: str | None = None
    budget: Mapping[str, Any] = field(default_factory=dict)
    rerun_unknown: bool = False
    ask_again: Callable[[str], bool] | None = None
    replayed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    ask: AskMore | None = None


class CheckMoney(Protocol):
    """Raises UsageError for a model without a known price, if money is `limited`."""

    def __call__(self, *, limited: bool) -> None: ...


class Session:
    """Made by `open_session`; everything but the accounts is used by the coordinator alone."""

    def __init__(self, root: Path, ledger: Ledger, pipeline: Pipeline, llm: LLMIntegration, durable: Durable) -> None:
        self.ledger = ledger
        self.resumed = durable.resume is not None
        self.selection = Selection(pipeline, durable.start_at, durable.only)
        self.budget = Budget({})
        self.run_id = ""
        self._records = Records(ledger.database)
        self._sharing = Sharing(llm)
        self._root, self._pipeline, self._llm, self._durable = root, pipeline, llm, durable
        self._file = str(pipeline.file.resolve())
        self._run, self._number = 0, 1
        self._before: Mapping[str, StageRow] = {}
        self._earlier: Mapping[str, list[CallRow]] = {}
        self._prints: dict[str, Fingerprint] = {}
        self._worked: set[str] = set()
        self._choices: dict[str, Choice | None] = {}
        self._cacheable: dict[str, bool] = {}
        self._why: dict[str, Mapping[str, Any]] = {}
        self._refused: set[str] = set()

    @property
    def folder(self) -> Path:
        """Files of this run that nobody else needs."""
        return self._root / FOLDER / "runs" / self.run_id

    def spilled(self) -> Path:
        """A folder for values too large for an environment; gone when the session ends."""
        place = self.folder / "spilled"
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(f"{place} cannot be made: {error.strerror}", hint="check folder and disk") from error
        return place

    def begin(self, inputs: Mapping[str, Any], check_money: CheckMoney) -> RunLock:
        """Write the run, or go on with it; returns its lock. Raises LedgerError, or UsageError before it writes."""
        durable = self._durable
        self.selection.check(durable.fresh)
        row = self._records.run(durable.resume) if durable.resume is not None else None
        self.run_id = row.id if row else new_id()
        self.aftermath = Aftermath(self.folder)
        lock = RunLock(self._root / FOLDER, self.run_id)
        try:
            before = row.options if row else {}
            given = {**before.get("budget", {}), **{unit: str(value) for unit, value in durable.budget.items()}}
            limit = {**limits(self._llm.settings.llm.budget), **limits(self._pipeline.budget), **limits(given)}
            options = {**durable.options, "budget": given}
            if "stage_budgets" in before:
                options["stage_budgets"] = before["stage_budgets"]
            check_money(limited="usd" in limit)
            if row:
                self._before = self._records.stages(row.number)
            self._take_over()
            self._run = self._gone_on(row.number, options) if row else self._begun(inputs, options)
            self.allowance = Allowance(self._run, self.ledger, options, durable.ask, resumed=self.resumed)
            self.budget = self.allowance.whole(limit)
        except BaseException:
            lock.release()
            raise
        return lock

    def settled(self, path: str, kind: str) -> Outcome | None:
        """The end of a stage that is not even looked at: another run's result, or one nobody asked for."""
        if self.selection.unwanted(path):
            reason = f"not asked for (--only {self.selection.only})"
            return Outcome(path=path, kind=kind, status="skipped", reason=reason, resumed=path in self._before)
        return self.selection.taken.get(path)

    def known(self, task: Task, choice: Choice | None, ended: str | None = None) -> Outcome | None:
        """The result of this task if it is known, because nothing that it depends on has changed.

        A command at the end of what stands at `ended` runs again if anything there has: it may have something to tidy.
        """
        mark = fingerprint(task, choice, self._root)
        self._choices[task.path] = choice
        self._cacheable[task.path] = self._sharing.allowed(task, choice)
        self._prints[task.path] = mark
        if self._asked_anew(task.stage, task.path):
            self._decided(task.path, "ran", reason="it was asked for anew")
            return None
        before = self._before.get(task.path)
        if before and before.outcome and self._holds(before, mark):
            if choice is not None or ended is None or not self._has_gone_on(ended):
                return self._taken(before.outcome, before)
            self._decided(task.path, "ran", reason="what it ends has gone on")
            return None
        if self.resumed:
            self._worked.add(task.path)
        if before is not None and before.status != "skipped":
            self._decided(task.path, "ran", reason=_again(before, mark))
        found = self._reusable(task.path, mark) if self._cacheable[task.path] else None
        if found is None:
            return None
        return self._cached(task.path, *found)

    def _reusable(self, path: str, mark: Fingerprint) -> tuple[Outcome, str] | None:
        found = self._records.reusable(mark.whole, path, self._run)
        if found is None and mark.bare:
            found = self._records.reusable(mark.bare, path, only_there=True)
        return found

    def _has_gone_on(self, ended: str) -> bool:
        last = f"{ended}finally/"
        return any(path.startswith(ended) and not path.startswith(last) for path in self._worked)

    def why_again(self, path: str) -> str | None:
        """Why a stage of a resumed run runs again, if it had been worked on before."""
        reason = self._why.get(path, {}).get("reason")
        return str(reason) if reason and self.resumed else None

    def gate(self, path: str, text: str) -> Outcome | None:
        """What a person has decided in an earlier session, if the question was the same."""
        mark = self._prints[path] = Fingerprint(digest(text), {"approve": digest(text)})
        before = self._before.get(path)
        if before and before.outcome and self._holds(before, mark):
            return self._taken(before.outcome, before)
        return None

    def known_without(self, path: str, error: FlowcraftError) -> Outcome | None:
        """The result of a stage that cannot even be asked any more, if that is because of what the run itself did."""
        before = self._before.get(path)
        if before and before.outcome and self._holds(before, Fingerprint(digest(str(error)), {})):
            return self._taken(before.outcome, before)
        return None

    def looked(self, path: str, files: frozenset[str], again: Callable[[], str]) -> None:
        """Note at which files a stage or gate has looked whose result is known or about to be made."""
        self.aftermath.looked(path, self._prints[path].whole, files, again)

    def _holds(self, before: StageRow, mark: Fingerprint) -> bool:
        """Whether what it depends on is what it was; what the run itself has changed since is no edit."""
        if before.status != "succeeded" or before.fingerprint is None:
            return False
        same = before.fingerprint in (mark.whole, mark.bare)
        return same or self.aftermath.is_own(before.path, before.fingerprint, mark.whole)

    def _taken(self, outcome: Outcome, before: StageRow) -> Outcome:
        self._prints[before.path] = Fingerprint(before.fingerprint or "", {}, before.parts_text or "")
        return replace(outcome, resumed=True)

    def succeeded(self) -> set[str]:
        """The paths that earlier sessions have brought to their end."""
        return {path for path, row in self._before.items() if row.status == "succeeded"}

    def account(self, task: Task, budget: Budgets | None = None) -> Account:
        """What keeps the books of one task; `budget` holds that of the run and more."""
        return Account(
            OpenRun(self._run, self._number, self.run_id),
            task.path,
            ledger=self.ledger,
            llm=self._llm,
            budget=budget or self.budget,
            earlier=self._earlier.get(task.path, ()),
        )

    def command_starts(self, task: Task) -> None:
        """Write that a command is about to be started; raises StageError if it may have done its work before."""
        path, before, durable = task.path, self._before.get(task.path), self._durable
        if before and before.status in _UNSURE and not durable.rerun_unknown:
            reason = f"'{path}' {_UNSURE[before.status]}"
            if not durable.ask_again or not durable.ask_again(reason):
                self._refused.add(path)
                hint = f"look, and if it can run again: flowcraft resume {self.run_id} --on-unknown rerun"
                raise StageError(reason, hint=hint)
        self._keep(path)
        self.ledger.command_started(self._run, path, task.kind, self._prints[path], self._why.get(path, {}))

    def ended(self, outcome: Outcome) -> None:
        """Write how a stage has ended; commands at once, the others with the next commit."""
        if outcome.status == "cancelled" and outcome.kind in ("run", "python"):
            self.ledger.command_stopped(self._run, outcome.path)
        if outcome.resumed or outcome.status == "cancelled" or outcome.path in self._refused:
            return
        self._keep(outcome.path)
        self.aftermath.changed([*outcome.written, *([outcome.saved] if outcome.saved else ())])
        self.ledger.stage_ended(
            self._run,
            outcome,
            self._prints.get(outcome.path),
            self._why.get(outcome.path, RAN),
            reusable=not self._durable.replayed
            and self._cacheable.get(outcome.path, False)
            and self._sharing.is_whole(outcome, self._choices.get(outcome.path)),
            at_once=outcome.kind in ("run", "python", "approve") and outcome.status != "skipped",
        )

    def _keep(self, path: str) -> None:
        """Let an earlier result of the stage outlive its next end: the edit may be undone."""
        if path in self._before:
            self.ledger.keep(self._run, path)

    def used(self) -> Totals | None:
        """What all sessions have used; None if this is the first one, which knows."""
        return self._records.used(self._run) if self.resumed else None

    def finish(self, record: RunRecord) -> None:
        """Write how the run has ended."""
        self.ledger.end(self._run, record)

    def _begun(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> int:
        run = NewRun(
            id=self.run_id,
            pipeline=self._pipeline.name,
            file=self._file,
            file_hash=file_hash(self._pipeline.file),
            inputs=inputs,
            options=options,
            replayed=self._durable.replayed,
        )
        return self.ledger.begin(run)

    def _gone_on(self, number: int, options: Mapping[str, Any]) -> int:
        end_programs(self.run_id)
        shutil.rmtree(self.folder / "spilled", ignore_errors=True)
        self._earlier = self._records.attempts(number, set() if self._durable.fresh else self.succeeded())
        self._number = self.ledger.begin_again(number, options, file_hash(self._pipeline.file))
        return number

    def _take_over(self) -> None:
        """The results that `--from` and `--only` build on."""
        paths = self.selection.reused()
        others = {} if self.resumed else self._records.latest(self._file, paths, replayed=self._durable.replayed)
        for path in paths:
            if self.resumed:
                row = self._before.get(path)
                if row and row.outcome and row.outcome.ok:
                    self.selection.taken[path] = replace(row.outcome, resumed=True)
            elif path in others and (outcome := others[path][0].outcome):
                known, run_id = others[path]
                self._prints[path] = Fingerprint(known.fingerprint or "", known.parts)
                self.selection.taken[path] = self._cached(path, outcome, run_id)
        self.selection.check_complete()

    def _cached(self, path: str, outcome: Outcome, run_id: str) -> Outcome:
        costs = [attempt.cost for attempt in outcome.attempts]
        saved = None if any(cost is None for cost in costs) else sum((cost for cost in costs if cost), Decimal(0))
        self._decided(path, "cached", run=run_id, saved_usd=saved)
        attempts = tuple(attempt._replace(cached=True) for attempt in outcome.attempts)
        origin = outcome.cached_from or run_id
        fresh = replace(outcome, path=path, attempts=attempts, saved=None, seconds=0.0)
        return replace(fresh, cached_from=origin, saved_usd=saved)

    def _decided(self, path: str, decision: str, **facts: Any) -> None:
        self._why[path] = {"decision": decision, **facts}

    def _asked_anew(self, stage: str, path: str) -> bool:
        if not self._durable.fresh and not self.selection.limited:
            return False
        top = re.split(r"[\[/]", path, maxsplit=1)[0]
        named = {"*", stage, top}
        return not named.isdisjoint(self._durable.fresh) or self.selection.anew(top)


@contextmanager
def open_session(
    root: Path,
    pipeline: Pipeline,
    inputs: Mapping[str, Any],
    llm: LLMIntegration,
    durable: Durable,
    check_money: CheckMoney,
) -> Iterator[Session]:
    """A session of a run in the workspace `root`; its lock is free again when the block ends.

    `check_money` may refuse the models where the run has a limit in money.
    Raises UsageError, and then nothing is written.
    """
    ledger = Ledger(root, create=durable.resume is None)
    lock = None
    try:
        session = Session(root, ledger, pipeline, llm, durable)
        lock = session.begin(inputs, check_money)
        yield session
    except BaseException:
        if lock:  # torn off (a second Ctrl-C, a full disk): the workers that would end their programs may not get to it
            end_programs(session.run_id, grace_s=0)
        raise
    finally:
        with suppress(Exception):
            ledger.flush()  # what could be written was; an error has been raised where it happened
        ledger.close()
        if lock:
            shutil.rmtree(session.folder / "spilled", ignore_errors=True)
            with suppress(OSError):  # `run.dir` of the templates, if anything is in it
                session.folder.rmdir()
            lock.release()


def unsure(outcome: Outcome) -> bool:
    """Whether it is a command that may have done its work, and so does not run again by itself."""
    stopped = outcome.status == "cancelled" and outcome.kind in ("run", "python")
    return stopped or (outcome.error or "").endswith(tuple(_UNSURE.values()))


def new_id() -> str:
    """A name for a run, in the order of time."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _again(before: StageRow, mark: Fingerprint) -> str:
    if before.status == "succeeded":
        return f"changed since it ran: {', '.join(differing(mark.parts, before.parts)) or 'the way FlowCraft asks'}"
    known = {"failed": "it had failed", "interrupted": "it was stopped while it ran"}
    return known.get(before.status, "it had not come to its end")
