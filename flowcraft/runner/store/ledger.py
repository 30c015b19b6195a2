"""What is written down of runs: one commit before a request leaves, one when its answer is there.

How a prompt stage ended is written with the next commit, whatever that is for: should it be lost, the answers it
was made of are not, and judging them again costs nothing. The end of a command is written at once.
"""

import hashlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.runner.outcome import Outcome, RunRecord
from flowcraft.runner.store.database import Database
from flowcraft.runner.store.fingerprint import Fingerprint
from flowcraft.runner.store.ledger_schema import number_of, of_run
from flowcraft.runner.store.rows import amounts_text, outcome_text, request_text, response_text, text_of, usage_text

FOLDER = ".flowcraft"

_NEXT_TURN = "(SELECT ifnull(max(turn), 0) + 1 FROM runs)"

_NEW_STAGE = (
    "INSERT INTO stages"
    " (number, run, path, kind, status, fingerprint, parts, reusable, why, last_call, turn, outcome)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

RAN: Mapping[str, Any] = MappingProxyType({"decision": "ran"})
_RAN_TEXT = text_of(dict(RAN))

Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that begins; `options` is what a resume needs besides the pipeline, `inputs` hold no secret."""

    id: str
    pipeline: str
    file: str
    file_hash: str
    inputs: Mapping[str, Any]
    options: Mapping[str, Any]
    replayed: bool = False


@dataclass(slots=True)
class _Rows:
    """The rows of a run, which nobody else writes: of each path the count of its stage and of its last call."""

    turn: int
    stages: dict[str, int]
    calls: dict[str, int]
    last_stage: int
    last_call: int


class Ledger:
    """The writing side of the database of one workspace; thread-safe. Raises LedgerError."""

    def __init__(self, workspace: Path, *, create: bool = True) -> None:
        self.database = Database(workspace / FOLDER, create=create)
        self._waiting: list[Statement] = []
        self._rows: dict[int, _Rows] = {}
        self._lock = threading.Lock()

    def begin(self, run: NewRun) -> int:
        """Write a new run; returns its number."""
        names = "id, pipeline, file, file_hash, status, inputs, options, started, replayed, turn"
        texts = (run.id, run.pipeline, run.file, run.file_hash, text_of(run.inputs), text_of(run.options), _now())
        sql = f"INSERT INTO runs ({names}) VALUES (?, ?, ?, ?, 'running', ?, ?, ?, ?, {_NEXT_TURN})"
        return self.database.commit([(sql, (*texts, int(run.replayed)))])

    def begin_again(self, run: int, options: Mapping[str, Any], file_hash: str) -> int:
        """The run goes on in another process; returns the number of the session."""
        sql = (
            "UPDATE runs SET status = 'running', sessions = sessions + 1, options = ?, file_hash = ?, error = NULL,"
            f" hint = NULL, turn = {_NEXT_TURN} WHERE number = ?"
        )
        self.database.commit([(sql, (text_of(options), file_hash, run))])
        self._rows.pop(run, None)
        # Nobody else can have begun a session meanwhile: we hold the lock of the run.
        return int(self.database.rows("SELECT sessions FROM runs WHERE number = ?", (run,))[0][0])

    def end(self, run: int, record: RunRecord) -> None:
        """Write how the run has ended."""
        self._commit(
            (
                "UPDATE runs SET status = ?, outputs = ?, error = ?, hint = ?, ended = ?, seconds = seconds + ?"
                " WHERE number = ?",
                (
                    record.status,
                    text_of(dict(record.outputs)),
                    record.error,
                    record.hint,
                    _now(),
                    record.seconds,
                    run,
                ),
            )
        )

    def call_started(
        self, run: int, session: int, path: str, key: str, call: CallStarted, reserved: Mapping[str, Decimal]
    ) -> int:
        """Write that a request is about to leave; it may when this has returned the number of the call."""
        choice = {**call.choice.info(), "because": call.choice.because}
        with self._lock:
            rows = self._rows_of(run)
            rows.last_call = rows.calls[path] = rows.last_call + 1
            number = number_of(run, rows.last_call)
        self._commit(
            (
                "INSERT INTO calls"
                " (number, id, run, path, state, session, event, key, choice, request, reserved, started)"
                " VALUES (?, ?, ?, ?, 'started', ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    call.id,
                    run,
                    path,
                    session,
                    call.event,
                    key,
                    text_of(choice),
                    request_text(call.request),
                    amounts_text(reserved),
                    _now(),
                ),
            )
        )
        return number

    def call_finished(self, number: int, call: CallFinished, cost: Any) -> None:
        """Write what came of the request `number`: answer, usage and cost in one commit."""
        response, error = call.response, call.error
        self._commit(
            (
                "UPDATE calls SET state = ?, seconds = ?, usd = ?, usage = ?, response = ?, error = ?,"
                " retry_after_s = ?, ended = ? WHERE number = ?",
                (
                    "answered" if response else "failed",
                    call.seconds,
                    None if cost is None else str(cost),
                    usage_text(response.usage) if response else None,
                    response_text(response) if response else None,
                    str(error) if error else None,
                    getattr(error, "retry_after_s", None),
                    _now(),
                    number,
                ),
            )
        )

    def rejected(self, number: int, reasons: Iterable[str]) -> None:
        """Note, with the next commit, why the answer to request `number` was not accepted."""
        self._wait(("UPDATE calls SET rejected = ? WHERE number = ?", ("; ".join(reasons), number)))

    def command_started(self, run: int, path: str, kind: str, fingerprint: Fingerprint, why: Mapping[str, Any]) -> None:
        """Write that a command or function is about to be started; it may when this has returned."""
        count, statements = self._stage(run, path, kind, "started", fingerprint, why)
        self._commit(*statements)
        self._rows[run].stages[path] = count

    def command_stopped(self, run: int, path: str) -> None:
        """Note, with the next commit, that a command was stopped with the run; it may have done part of its work."""
        sql = "UPDATE stages SET status = 'interrupted' WHERE number = ? AND status = 'started'"
        self._wait((sql, (self._number_of_stage(run, path),)))

    def options(self, run: int, options: Mapping[str, Any]) -> None:
        """Write what a resume needs besides the pipeline, when it has changed."""
        self._commit(("UPDATE runs SET options = ? WHERE number = ?", (text_of(options), run)))

    def keep(self, run: int, path: str) -> None:
        """Keep, with the next commit, the result of a stage that is about to end once more."""
        sql = "INSERT INTO kept (run, fingerprint, outcome) SELECT run, fingerprint, outcome FROM stages"
        self._wait((f"{sql} WHERE number = ? AND reusable", (self._number_of_stage(run, path),)))

    def stage_ended(
        self,
        run: int,
        outcome: Outcome,
        fingerprint: Fingerprint | None,
        why: Mapping[str, Any],
        *,
        reusable: bool,
        at_once: bool,
    ) -> None:
        """Write how a stage has ended, with the next commit or `at_once`."""
        path = outcome.path
        count, statements = self._stage(
            run, path, outcome.kind, outcome.status, fingerprint, why, outcome, reusable=reusable
        )
        self._wait(*statements)
        self._rows[run].stages[path] = count
        if at_once:
            self.flush()

    def flush(self) -> None:
        """Write what waits for a commit."""
        with self._lock:
            waits = bool(self._waiting)
        if waits:
            self._commit()

    def forget(self, runs: Sequence[int]) -> None:
        """Delete runs with all that belongs to them."""
        self.database.delete(
            (f"DELETE FROM {table} WHERE {where}", (run,))
            for run in runs
            for table, where in (("calls", of_run()), ("stages", of_run()), ("kept", "run = ?"), ("runs", "number = ?"))
        )

    def close(self) -> None:
        self.database.close()

    def _stage(  # noqa: PLR0913 - one parameter per column
        self,
        run: int,
        path: str,
        kind: str,
        status: str,
        fingerprint: Fingerprint | None,
        why: Mapping[str, Any],
        outcome: Outcome | None = None,
        *,
        reusable: bool = False,
    ) -> tuple[int, list[Statement]]:
        """The count of a new row for a stage, and what writes it in place of the one before."""
        with self._lock:
            rows = self._rows_of(run)
            rows.last_stage += 1
            count = rows.last_stage
        before = rows.stages.get(path)
        values = (
            number_of(run, count),
            run,
            path,
            kind,
            status,
            fingerprint.whole if fingerprint else None,
            fingerprint.text if fingerprint else None,
            int(reusable),
            _RAN_TEXT if why is RAN else text_of(why),
            rows.calls.get(path, 0),
            rows.turn,
            outcome_text(outcome) if outcome else None,
        )
        deletion = [] if before is None else [("DELETE FROM stages WHERE number = ?", (number_of(run, before),))]
        return count, [*deletion, (_NEW_STAGE, values)]

    def _number_of_stage(self, run: int, path: str) -> int | None:
        with self._lock:
            count = self._rows_of(run).stages.get(path)
        return None if count is None else number_of(run, count)

    def _rows_of(self, run: int) -> _Rows:
        """What there is of a run; read once in a session, with the lock held."""
        rows = self._rows.get(run)
        if rows is None:
            ask, begin = self.database.rows, number_of(run, 0)
            stages = ask(f"SELECT path, number FROM stages WHERE {of_run()}", (run,))
            calls = ask(f"SELECT path, max(number) AS number FROM calls WHERE {of_run()} GROUP BY path", (run,))
            known = [{row["path"]: row["number"] - begin for row in found} for found in (stages, calls)]
            last = [max(counts.values(), default=0) for counts in known]
            turn = ask("SELECT max(turn) AS turn FROM runs WHERE number = ?", (run,))[0]["turn"] or 0
            rows = self._rows[run] = _Rows(turn, known[0], known[1], last[0], last[1])
        return rows

    def _wait(self, *statements: Statement) -> None:
        with self._lock:
            self._waiting += statements

    def _commit(self, *statements: Statement) -> int:
        """Write what waits and then `statements`; returns the number of the last new row."""
        # The lock is held over the commit, so that nothing waits that is already being written.
        with self._lock:
            number = self.database.commit((*self._waiting, *statements))
            self._waiting.clear()
        return number


def file_hash(file: Path) -> str:
    """The hash of a file's bytes; empty if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _now() -> str:
    """The time in UTC as ISO 8601, to the millisecond."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}+00:00"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
