"""What is written down of runs: one commit before a request leaves, one when its answer is there.

How a prompt stage ended is written with the next commit, whatever that is for: should it be lost, the answers it
was made of are not, and judging them again costs nothing. The end of a command is written at once.
"""

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.runner.outcome import Outcome, RunRecord
from flowcraft.runner.store.database import Database
from flowcraft.runner.store.fingerprint import Fingerprint
from flowcraft.runner.store.rows import outcome_text, request_data, response_text, text_of, usage_data

FOLDER = ".flowcraft"


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


class Ledger:
    """The writing side of the database of one workspace; thread-safe. Raises LedgerError."""

    def __init__(self, workspace: Path, *, create: bool = True) -> None:
        self.database = Database(workspace / FOLDER, create=create)
        self._waiting: list[tuple[str, Sequence[Any]]] = []
        self._last_calls: dict[tuple[int, str], int] = {}  # of stages that have not ended
        self._lock = threading.Lock()

    def begin(self, run: NewRun) -> int:
        """Write a new run; returns its number."""
        names = "id, pipeline, file, file_hash, status, inputs, options, started, replayed"
        texts = (run.id, run.pipeline, run.file, run.file_hash, text_of(run.inputs), text_of(run.options), _now())
        sql = f"INSERT INTO runs ({names}) VALUES (?, ?, ?, ?, 'running', ?, ?, ?, ?)"
        return self.database.commit([(sql, (*texts, int(run.replayed)))])

    def begin_again(self, run: int, options: Mapping[str, Any], file_hash: str) -> int:
        """The run goes on in another process; returns the number of the session."""
        sql = (
            "UPDATE runs SET status = 'running', sessions = sessions + 1, options = ?, file_hash = ?, error = NULL,"
            " hint = NULL WHERE number = ?"
        )
        self.database.commit([(sql, (text_of(options), file_hash, run))])
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
        self, run: int, session: int, path: str, key: str, call: CallStarted, reserved: Mapping[str, Any]
    ) -> int:
        """Write that a request is about to leave; it may when this has returned the number of the call."""
        choice = {**call.choice.info(), "because": call.choice.because}
        number = self._last_calls[run, path] = self._commit(
            (
                "INSERT INTO calls (id, run, path, state, session, event, key, choice, request, reserved, started)"
                " VALUES (?, ?, ?, 'started', ?, ?, ?, ?, ?, ?, ?)",
                (
                    call.id,
                    run,
                    path,
                    session,
                    call.event,
                    key,
                    text_of(choice),
                    text_of(request_data(call.request)),
                    text_of(reserved),
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
                    text_of(usage_data(response.usage)) if response else None,
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
        self._commit(_stage_row(run, path, kind, "started", fingerprint, why))

    def command_stopped(self, run: int, path: str) -> None:
        """Note, with the next commit, that a command was stopped with the run; it may have done part of its work."""
        sql = "UPDATE stages SET status = 'interrupted' WHERE run = ? AND path = ? AND status = 'started'"
        self._wait((sql, (run, path)))

    def options(self, run: int, options: Mapping[str, Any]) -> None:
        """Write what a resume needs besides the pipeline, when it has changed."""
        self._commit(("UPDATE runs SET options = ? WHERE number = ?", (text_of(options), run)))

    def keep(self, run: int, path: str) -> None:
        """Keep, with the next commit, the result of a stage that is about to end once more."""
        sql = "INSERT INTO kept (run, fingerprint, outcome) SELECT run, fingerprint, outcome FROM stages"
        self._wait((f"{sql} WHERE run = ? AND path = ? AND reusable", (run, path)))

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
        kind, status, last_call = outcome.kind, outcome.status, self._last_calls.pop((run, outcome.path), None)
        self._wait(_stage_row(run, outcome.path, kind, status, fingerprint, why, outcome, last_call, reusable=reusable))
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
        self.database.commit([("DELETE FROM runs WHERE number = ?", (number,)) for number in runs])

    def close(self) -> None:
        self.database.close()

    def _wait(self, *statements: tuple[str, Sequence[Any]]) -> None:
        with self._lock:
            self._waiting += statements

    def _commit(self, *statements: tuple[str, Sequence[Any]]) -> int:
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


def _stage_row(  # noqa: PLR0913 - one parameter per column
    run: int,
    path: str,
    kind: str,
    status: str,
    fingerprint: Fingerprint | None,
    why: Mapping[str, Any],
    outcome: Outcome | None = None,
    last_call: int | None = None,
    *,
    reusable: bool = False,
) -> tuple[str, Sequence[Any]]:
    return (
        "REPLACE INTO stages (run, path, kind, status, fingerprint, parts, reusable, why, outcome, last_call)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?,"
        " coalesce(?, (SELECT max(number) FROM calls WHERE run = ? AND path = ?), 0))",
        (
            run,
            path,
            kind,
            status,
            fingerprint.whole if fingerprint else None,
            fingerprint.text if fingerprint else None,
            int(reusable),
            text_of(why),
            outcome_text(outcome) if outcome else None,
            last_call,  # None: no call of this session, perhaps one of an earlier one
            run,
            path,
        ),
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
