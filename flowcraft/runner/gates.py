"""Approvals: who decides, what was decided, and since when a gate waits with which question."""

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flowcraft.runner.outcome import Outcome
from flowcraft.runner.store.fingerprint import digest

KIND = "approve"
WAITS = "waits for a decision"
CHANGED = "the question has changed since it was shown"

FILE = "gates.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person has said to a gate."""

    approved: bool
    comment: str = ""
    by: str = ""


# Asks a person, with the path of the gate, its text and its time limit; None: there is nobody to ask now.
Ask = Callable[[str, str, float | None], Decision | None]


def decided(path: str, decision: Decision) -> Outcome:
    """The outcome of a gate; one that was rejected has failed, but keeps what was said."""
    output = {"approved": decision.approved, "comment": decision.comment, "by": decision.by}
    if decision.approved:
        return Outcome(path=path, kind=KIND, status="succeeded", output=output)
    by = f" by {decision.by}" if decision.by else ""
    comment = f": {decision.comment}" if decision.comment else ""
    return Outcome(path=path, kind=KIND, status="failed", output=output, error=f"rejected{by}{comment}")


def blocked(path: str, kind: str, gate: str) -> Outcome:
    """The outcome of a stage that has not started because a gate waits."""
    return Outcome(path=path, kind=kind, status="waiting", reason=f"waits for '{gate}'")


def how_to_decide(run_id: str, gates: Sequence[str]) -> list[str]:
    """The commands that answer the gates at which a run waits."""
    stages = [f" --stage {path}" for path in gates] if len(gates) > 1 else [""]
    return [f"decide with: flowcraft approve {run_id}{one}, or: flowcraft reject {run_id}{one}" for one in stages]


class Opened:
    """The gates of a run that were reached; kept in its folder, so that a time limit holds over a pause.

    Of each there is the time when its question was first shown, and the hash of that question: a decision is about
    what was shown. Pauses of early versions kept the time alone; theirs are decided as they are.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def decision(
        self, path: str, text: str, limit_s: float | None, given: Mapping[str, Decision], ask: Ask | None
    ) -> Decision | None:
        """What was decided about this very question, before or now; None: nobody has answered."""
        changed = self.changed(path, text)
        if not changed and path in given:
            return given[path]
        if not changed and self._late(path, limit_s):
            return Decision(approved=False, comment=f"nobody has answered within {limit_s:.0f} s")
        return ask(path, f"({CHANGED})\n{text}" if changed else text, limit_s) if ask else None

    def changed(self, path: str, text: str) -> bool:
        """Whether the gate has waited with another question."""
        asked = self._read().get(path, {}).get("asked")
        return asked is not None and asked != digest(text)

    def waiting(self, ended: Container[str]) -> list[str]:
        """The gates that have waited for an answer, without those that have ended."""
        return [path for path in self._read() if path not in ended]

    def waits(self, path: str, text: str) -> Outcome:
        """Note that nobody has answered this question; returns the outcome of the gate for now."""
        known, asked, reason = self._read(), digest(text), WAITS
        before = known.get(path, {})
        if self.changed(path, text):
            before, reason = {}, f"{WAITS}: {CHANGED}"
        if before.get("asked") != asked:
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._file.parent.mkdir(parents=True, exist_ok=True)
            note = {**known, path: {"since": now, **before, "asked": asked}}
            self._file.write_text(json.dumps(note), encoding="utf-8")
        return Outcome(path=path, kind=KIND, status="waiting", reason=reason, output=text)

    def _late(self, path: str, timeout_s: float | None) -> bool:
        since = self._read().get(path, {}).get("since")
        if since is None or timeout_s is None:
            return False
        return (datetime.now(timezone.utc) - datetime.fromisoformat(since)).total_seconds() > timeout_s

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {path: {"since": one} if isinstance(one, str) else one for path, one in found.items()}
