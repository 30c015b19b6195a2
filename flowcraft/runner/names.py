"""What the templates of a run can name: `inputs`, `stages.<id>.*`, `run.*`; plain data, grown by the coordinator."""

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowcraft.pipeline.model import Each, Pipeline
from flowcraft.runner.origins import GIVEN, given_items
from flowcraft.runner.outcome import Attempt, Outcome, totals

MAX_ERROR, MAX_MODEL = 64 * 1024, 1024  # characters of an error and of a model's name, as templates see them


class RunNames(Mapping[str, Any]):
    """`run.id`, `run.dir`, `run.status`; the folder is made when a template first names it."""

    def __init__(self, run_id: str, folder: Path) -> None:
        self.status = "running"
        self._id = run_id
        self._folder = folder

    def ending(self, status: str) -> "RunNames":
        """The same run with another status."""
        made = RunNames(self._id, self._folder)
        made.status = status
        return made

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


class Names(NamedTuple):
    """The names of one list of stages; `private` has the secret inputs, too, and is for `env:` alone.

    `given` are those of what a person has given.
    """

    run: RunNames
    stages: MutableMapping[str, Any]
    public: Mapping[str, Any]
    private: Mapping[str, Any]
    given: frozenset[str] = GIVEN

    def __repr__(self) -> str:
        return "<names of templates, not shown: secrets are among them>"

    @classmethod
    def of(cls, pipeline: Pipeline, inputs: Mapping[str, Any], run: RunNames, given: frozenset[str] = GIVEN) -> "Names":
        """The names of a pipeline that is about to run with these inputs."""
        secret = {one.name for one in pipeline.inputs if one.secret}
        open_inputs = {name: value for name, value in inputs.items() if name not in secret}
        stages: dict[str, Any] = {}
        public = {"inputs": open_inputs, "stages": stages, "run": run}
        return cls(run, stages, public, {**public, "inputs": dict(inputs)}, given)

    def inside(self, local: Mapping[str, Any]) -> "Names":
        """The same names with those of a loop besides."""
        return self._replace(public={**self.public, **local}, private={**self.private, **local})

    def looping(self, each: Each) -> "Names":
        """The same names for what runs once per item."""
        return self._replace(given=given_items(each, self.given))

    def below(self) -> "Names":
        """The names for the stages of a group: its own stages first, then those around it."""
        own: dict[str, Any] = {"stages": ChainMap({}, self.stages)}
        return self.inside(own)._replace(stages=own["stages"])

    def ending(self, status: str) -> "Names":
        """The names for the stages at the end of a pipeline that has ended like this."""
        run = self.run.ending(status)
        return self.below().inside({"run": run})._replace(run=run)

    def add(self, name: str, outcome: Outcome, attempts: Sequence[Attempt]) -> None:
        """From now on `stages.<name>` stands for what came of it; a stage without output has no such name.

        `attempts` are all that were made for it, those of the stages in it included.
        """
        used = totals(attempts)
        asked = [attempt for attempt in attempts if attempt.event != "check"]
        facts = {
            "status": outcome.status,
            "ok": outcome.ok,
            "error": outcome.error and outcome.error[:MAX_ERROR],
            "exit_code": outcome.exit_code,
            "stderr": outcome.stderr,
            "seconds": round(outcome.seconds, 3),
            "usd": None if used.cost is None else float(used.cost),
            "tokens": used.tokens,
            "model": asked[-1].model[:MAX_MODEL] if asked else None,
            "attempts": len(asked),
            "iterations": outcome.iterations,
        }
        if outcome.has_output:
            facts["output"] = outcome.output
        self.stages[name] = facts
