"""What the templates of a run can name: `inputs`, `stages.<id>.*`, `run.*`; plain data, grown by the coordinator."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flowcraft.pipeline.model import Pipeline
from flowcraft.runner.outcome import Outcome, totals


class RunNames(Mapping[str, Any]):
    """`run.id`, `run.dir`, `run.status`; the folder is made when a template first names it."""

    def __init__(self, run_id: str, folder: Path) -> None:
        self.status = "running"
        self._id = run_id
        self._folder = folder

    def __getitem__(self, name: str) -> str:
        if name == "dir":
            self._folder.mkdir(parents=True, exist_ok=True)
            return str(self._folder)
        return {"id": self._id, "status": self.status}[name]

    def __contains__(self, name: object) -> bool:
        return name in ("id", "dir", "status")

    def __iter__(self) -> Iterator[str]:
        return iter(("id", "dir", "status"))

    def __len__(self) -> int:
        return 3


class Names:
    """The names of one run; `private` has the secret inputs, too, and is for `env:` alone."""

    def __init__(self, pipeline: Pipeline, inputs: Mapping[str, Any], run: RunNames) -> None:
        secret = {one.name for one in pipeline.inputs if one.secret}
        self.run = run
        self._stages: dict[str, Any] = {}
        open_inputs = {name: value for name, value in inputs.items() if name not in secret}
        self.public: Mapping[str, Any] = {"inputs": open_inputs, "stages": self._stages, "run": run}
        self.private: Mapping[str, Any] = {**self.public, "inputs": dict(inputs)}

    def add(self, outcome: Outcome) -> None:
        """From now on `stages.<id>` stands for what came of it; a stage without output has no such name."""
        used = totals(outcome.attempts)
        facts = {
            "status": outcome.status,
            "ok": outcome.ok,
            "error": outcome.error,
            "exit_code": outcome.exit_code,
            "stderr": outcome.stderr,
            "seconds": round(outcome.seconds, 3),
            "usd": None if used.cost is None else float(used.cost),
            "tokens": used.tokens,
            "model": outcome.attempts[-1].model if outcome.attempts else None,
            "attempts": len(outcome.attempts),
        }
        self._stages[outcome.path] = {**facts, "output": outcome.output} if outcome.has_output else facts
