"""Approvals: who decides, what was decided, and since when a gate waits."""

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from flowcraft.runner.outcome import Outcome

KIND = "approve"
WAITS = "waits for a decision"

_FILE = "gates.json"


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


def waiting(path: str, text: str) -> Outcome:
    """The outcome of a gate that nobody has answered yet."""
    return Outcome(path=path, kind=KIND, status="waiting", reason=WAITS, output=text)


def blocked(path: str, kind: str, gate: str) -> Outcome:
    """The outcome of a stage that has not started because a gate waits."""
    return Outcome(path=path, kind=kind, status="waiting", reason=f"waits for '{gate}'")


def how_to_decide(run_id: str, gates: Sequence[str]) -> list[str]:
    """The commands that answer the gates at which a run waits."""
    stages = [f" --stage {path}" for path in gates] if len(gates) > 1 else [""]
    return [f"decide with: flowcraft approve {run_id}{one}, or: flowcraft reject {run_id}{one}" for one in stages]


class Opened:
    """When the gates of a run were first reached; kept in its folder, so that a time limit holds over a pause."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE

    def late(self, path: str, timeout_s: float | None) -> bool:
        """Whether the gate has waited longer than it may."""
        since = self._read().get(path)
        if since is None or timeout_s is None:
            return False
        return (datetime.now(timezone.utc) - datetime.fromisoformat(since)).total_seconds() > timeout_s

    def waiting(self, ended: Container[str]) -> list[str]:
        """The gates that have waited for an answer, without those that have ended."""
        return [path for path in self._read() if path not in ended]

    def waits(self, path: str) -> None:
        """Note that nobody has answered."""
        known = self._read()
        if path not in known:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._file.write_text(json.dumps({**known, path: now}), encoding="utf-8")

    def _read(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found
