"""Reading the ledger: runs, how their stages ended, what was asked; never writes."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from flowcraft.core.errors import UsageError
from flowcraft.core.problems import did_you_mean
from flowcraft.llm.base import LLMResponse, Usage
from flowcraft.runner.outcome import Attempt, Outcome, Totals, sums
from flowcraft.runner.store.database import FILE, Database
from flowcraft.runner.store.ledger import FOLDER
from flowcraft.runner.store.ledger_schema import number_of, of_run
from flowcraft.runner.store.rows import outcome_from, response_from, usage_from

_TURN = re.compile(r"\[\d+\]")

MAYBE_BILLED = "no end is recorded: the request may have been answered and billed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run as it is written; `seconds` are of all its sessions together."""

    number: int
    id: str
    pipeline: str
    file: Path
    file_hash: str
    status: str
    inputs: Mapping[str, Any]
    options: Mapping[str, Any]
    outputs: Mapping[str, Any]
    error: str | None
    hint: str | None
    started: str
    ended: str | None
    seconds: float
    sessions: int
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """How a stage ended; without an `outcome` it is a command whose end nobody has seen."""

    path: str
    kind: str
    status: str
    fingerprint: str | None
    parts_text: str | None
    why_text: str | None
    outcome: Outcome | None

    @property
    def parts(self) -> Mapping[str, str]:
        """The hash of each part of the fingerprint."""
        return _json(self.parts_text) or {}

    @property
    def why(self) -> Mapping[str, Any]:
        """What was decided about the stage, and why."""
        return _json(self.why_text) or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """One attempt at a model; `state` is started, answered or failed."""

    number: int
    id: str
    path: str
    state: str
    settled: bool
    session: int
    event: str
    key: str
    choice: Mapping[str, Any]
    request: Mapping[str, Any]
    reserved: Mapping[str, Decimal]
    started: str
    seconds: float | None
    cost: Decimal | None
    usage: Usage | None
    response: LLMResponse | None
    rejected: str | None
    error: str | None
    retry_after_s: float | None
    ended: str | None

    @property
    def attempt(self) -> Attempt:
        """The call as an attempt of its stage."""
        response = self.response
        return Attempt(
            event=self.event,
            name=self.choice["name"],
            model=response.model if response else self.choice["model"],
            provider=self.choice["provider"],
            tier=self.choice["type"],
            cause=self.choice["cause"],
            source=self.choice["source"],
            seconds=self.seconds or 0.0,
            usage=self.usage,
            cost=self.cost,
            finish_reason=response.finish_reason if response else None,
            error=MAYBE_BILLED if self.state == "started" else self.error,
        )


class Records:
    """The reading side of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self, limit: int = -1) -> list[RunRow]:
        """The runs, the latest first."""
        return [_run(row) for row in self._database.rows("SELECT * FROM runs ORDER BY number DESC LIMIT ?", (limit,))]

    def run(self, wanted: str | None = None) -> RunRow:
        """The run with this id, or whose id ends or begins so; the latest without one. Raises UsageError."""
        ids = [str(row["id"]) for row in self._database.rows("SELECT id FROM runs ORDER BY number DESC")]
        if not ids:
            raise UsageError("there are no runs here yet", hint="flowcraft run PIPELINE")
        fitting = [one for one in ids if wanted in (None, one)] or [
            one for one in ids if wanted and (one.startswith(wanted) or one.endswith(wanted))
        ]
        if not fitting:
            near = did_you_mean(wanted or "", ids)
            raise UsageError(f"there is no run '{wanted}'", hint=near or "flowcraft runs  lists them")
        if wanted is not None and len(fitting) > 1:
            raise UsageError(f"'{wanted}' is the beginning of {len(fitting)} runs", hint=f"the latest is {fitting[0]}")
        return _run(self._database.rows("SELECT * FROM runs WHERE id = ?", (fitting[0],))[0])

    def stages(self, run: int) -> dict[str, StageRow]:
        """The ended stages of a run by path, in the order of their ends."""
        rows = self._database.rows(f"SELECT * FROM stages WHERE {of_run()} ORDER BY number", (run,))
        return {row["path"]: _stage(row) for row in rows}

    def calls(self, run: int, path: str | None = None) -> list[CallRow]:
        """The calls of a run, or of one of its stages, in the order they left."""
        where, values = (of_run(), (run,)) if path is None else (f"{of_run()} AND path = ?2", (run, path))
        rows = self._database.rows(f"SELECT * FROM calls WHERE {where} ORDER BY number", values)
        settled = self._settled(run)
        return [_call(row, settled) for row in rows]

    def attempts(self, run: int, done: set[str]) -> dict[str, list[CallRow]]:
        """The calls of the stages that are not `done`; nothing is read of the others."""
        settled = self._settled(run)
        found: dict[str, list[CallRow]] = {}
        for row in self._database.rows(f"SELECT number, path FROM calls WHERE {of_run()} ORDER BY number", (run,)):
            if row["path"] not in done:
                whole = self._database.rows("SELECT * FROM calls WHERE number = ?", (row["number"],))
                found.setdefault(row["path"], []).append(_call(whole[0], settled))
        return found

    def _settled(self, run: int) -> Mapping[str, int]:
        """The number of the last call that belongs to the end of each stage."""
        rows = self._database.rows(f"SELECT path, last_call FROM stages WHERE {of_run()}", (run,))
        return {row["path"]: number_of(run, row["last_call"]) for row in rows}

    def spent(self, run: int, stage: str | None = None) -> dict[str, Decimal]:
        """What a run has used by now, in each unit; calls without a reported end count as reserved.

        With the path of a `stage` what it and all inside of it have used, its time being that of its calls.
        """
        sums = {unit: Decimal(0) for unit in ("usd", "tokens", "credits", "calls", "time")}
        sql = f"SELECT usd, usage, reserved, state, seconds FROM calls WHERE {of_run()}"
        values: tuple[Any, ...] = (run,)
        if stage is not None:
            sql += " AND (path = ?2 OR substr(path, 1, ?3) IN (?4, ?5))"
            values = (run, stage, len(stage) + 1, f"{stage}/", f"{stage}[")
        for row in self._database.rows(sql, values):
            usage, reserved = usage_from(_json(row["usage"])), _json(row["reserved"]) or {}
            known = usage and usage.prompt_tokens is not None and usage.completion_tokens is not None
            sums["calls"] += 1
            sums["usd"] += Decimal(row["usd"] or reserved.get("usd", 0))
            tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0) if usage else 0
            free = row["state"] == "failed" and row["usd"] == "0"  # refused before anything was read
            sums["tokens"] += 0 if free else Decimal(tokens if known else reserved.get("tokens", 0))
            sums["credits"] += usage.credits or 0 if usage else 0
            sums["time"] += Decimal(str(row["seconds"] or 0))
        if stage is not None:
            return sums
        seconds = self._database.rows("SELECT seconds FROM runs WHERE number = ?", (run,))
        return sums | {"time": Decimal(str(seconds[0]["seconds"]))}

    def used(self, run: int) -> Totals:
        """What a run has really used by now."""
        rows = self._database.rows(f"SELECT usd, usage FROM calls WHERE {of_run()}", (run,))
        return sums((None if usd is None else Decimal(usd), usage_from(_json(usage))) for usd, usage in rows)

    def reusable(
        self, fingerprint: str, path: str, run: int = 0, *, only_there: bool = False
    ) -> tuple[Outcome, str] | None:
        """An accepted result with this fingerprint for the stage at `path`, and the run it was made in.

        It is the latest of this stage, in whatever round or item, else that of another stage, but none of another
        stage of the same `run`: that asks for itself. With `only_there` it is one from the very same path.
        """
        # Asked for every stage, and mostly there is none: that costs a third of the query below.
        if not self._database.rows(
            "SELECT 1 FROM stages WHERE fingerprint = ?1 AND reusable"
            " UNION ALL SELECT 1 FROM kept WHERE fingerprint = ?1 LIMIT 1",
            (fingerprint,),
        ):
            return None
        rows = self._database.rows(
            "SELECT found.outcome, found.run, runs.id FROM"
            " (SELECT run, outcome, turn, number FROM stages WHERE fingerprint = ?1 AND reusable"
            " UNION ALL SELECT run, outcome, 0, 0 FROM kept WHERE fingerprint = ?1) AS found"
            " JOIN runs ON runs.number = found.run ORDER BY found.turn DESC, found.number DESC, found.run DESC",
            (fingerprint,),
        )
        other = None
        for row in rows:
            outcome = outcome_from(row["outcome"])
            if outcome.path == path or (not only_there and _stage_of(outcome.path) == _stage_of(path)):
                return outcome, row["id"]
            if other is None and not only_there and row["run"] != run:
                other = outcome, row["id"]
        return other

    def latest(
        self, file: str, paths: Collection[str], *, before: int | None = None, replayed: bool = True
    ) -> dict[str, tuple[StageRow, str]]:
        """The latest success of each of these stages in a run of the same file, and the id of its run.

        Only runs that began before the run `before` count, and without `replayed` none whose answers are from a
        recording.
        """
        runs = self._database.rows(
            "SELECT number, id, turn FROM runs WHERE file = ? AND number < ifnull(?, number + 1) AND replayed <= ?"
            " ORDER BY turn DESC",
            (file, before, int(replayed)),
        )
        wanted = set(paths)
        found: dict[str, tuple[int, int, str]] = {}  # the turn, the number and the run of each
        for run in runs:
            if len(found) == len(wanted) and run["turn"] <= min((turn for turn, _, _ in found.values()), default=0):
                break  # older sessions have nothing later
            sql = f"SELECT path, turn, number FROM stages WHERE {of_run()} AND status = 'succeeded'"
            for row in self._database.rows(sql, (run["number"],)):
                one = (row["turn"], row["number"], run["id"])
                if row["path"] in wanted and one > found.get(row["path"], (-1, 0, "")):
                    found[row["path"]] = one
        return {path: (self._stage_at(number), run_id) for path, (_, number, run_id) in found.items()}

    def _stage_at(self, number: int) -> StageRow:
        return _stage(self._database.rows("SELECT * FROM stages WHERE number = ?", (number,))[0])


@contextmanager
def open_records(workspace: Path) -> Iterator[tuple[Records, Database]]:
    """The records of a workspace; raises LedgerError if there are none."""
    with _readable(workspace / FOLDER) as folder:
        database = Database(folder, create=False)
        try:
            yield Records(database), database
        finally:
            database.close()


@contextmanager
def _readable(folder: Path) -> Iterator[Path]:
    """The folder of a database, or a copy of it: SQLite reads a log only where it can write beside it."""
    files = [folder / name for name in (FILE, f"{FILE}-wal")]
    if os.access(folder, os.W_OK) or not os.access(files[0], os.R_OK):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="flowcraft-") as copy:
        for file in files:
            if file.exists():
                shutil.copyfile(file, Path(copy) / file.name)
        yield Path(copy)


def _stage_of(path: str) -> str:
    return _TURN.sub("", path)


def _run(row: Any) -> RunRow:
    data = {name: row[name] for name in row.keys() if name != "turn"}  # noqa: SIM118 - a row is no mapping
    parsed = {name: _json(data[name]) or {} for name in ("inputs", "options", "outputs")}
    return RunRow(**data | parsed | {"file": Path(data["file"]), "replayed": bool(data["replayed"])})


def _stage(row: Any) -> StageRow:
    return StageRow(
        path=row["path"],
        kind=row["kind"],
        status=row["status"],
        fingerprint=row["fingerprint"],
        parts_text=row["parts"],
        why_text=row["why"],
        outcome=outcome_from(row["outcome"]) if row["outcome"] else None,
    )


def _call(row: Any, settled: Mapping[str, int]) -> CallRow:
    return CallRow(
        number=row["number"],
        id=row["id"],
        path=row["path"],
        state=row["state"],
        settled=row["number"] <= settled.get(row["path"], 0),
        session=row["session"],
        event=row["event"],
        key=row["key"],
        choice=_json(row["choice"]),
        request=_json(row["request"]),
        reserved={unit: Decimal(amount) for unit, amount in _json(row["reserved"]).items()},
        started=row["started"],
        seconds=row["seconds"],
        cost=None if row["usd"] is None else Decimal(row["usd"]),
        usage=usage_from(_json(row["usage"])),
        response=response_from(row["response"]) if row["response"] else None,
        rejected=row["rejected"],
        error=row["error"],
        retry_after_s=row["retry_after_s"],
        ended=row["ended"],
    )


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
