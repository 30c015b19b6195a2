"""Which stages a run is about: all of them, those from one on (`--from`), or a single one (`--only`)."""

from collections.abc import Iterable

from flowcraft.core.errors import UsageError
from flowcraft.core.problems import did_you_mean
from flowcraft.pipeline.model import Pipeline
from flowcraft.runner.outcome import Outcome


class Selection:
    """The stages of `pipeline` that are run anew, those taken from before, those left out.

    `taken` is filled with the results of earlier runs for the stages that `reused` names.
    """

    def __init__(self, pipeline: Pipeline, start_at: str | None, only: str | None) -> None:
        self.only = only
        self.taken: dict[str, Outcome] = {}
        self._pipeline = pipeline
        self._start_at = start_at
        self._needs = {stage.id: stage.needs for stage in pipeline.stages}
        self._after = self._downstream(start_at) if start_at else set()
        self._below = self._upstream(only) if only else set()

    def check(self, others: Iterable[str] = ()) -> None:
        """Raise UsageError for a stage that the pipeline does not have, or two options that exclude each other."""
        for name in (self._start_at, self.only, *others):
            if name is not None and name != "*" and name not in self._needs:
                hint = did_you_mean(name, self._needs)
                raise UsageError(f"pipeline '{self._pipeline.name}' has no stage '{name}'", hint=hint)
        if self._start_at and self.only:
            raise UsageError("--from and --only exclude each other", hint="use one of them")

    def anew(self, stage: str) -> bool:
        """Whether nothing known may stand in for this stage."""
        return stage in self._after or stage == self.only

    @property
    def limited(self) -> bool:
        """Whether there are such stages."""
        return self._start_at is not None or self.only is not None

    def unwanted(self, stage: str) -> bool:
        """Whether the stage is not run, and its result not needed."""
        return self.only is not None and stage != self.only and stage not in self._below

    def reused(self) -> list[str]:
        """The stages whose results are taken from before."""
        if self.only:
            return [stage for stage in self._needs if stage in self._below]
        return [stage for stage in self._needs if self._start_at and stage not in self._after]

    def check_complete(self) -> None:
        """Raise UsageError if `--only` builds on a result that is not there."""
        missing = [stage for stage in self._needs if stage in self._below and stage not in self.taken]
        if missing:
            raise UsageError(
                f"'{self.only}' needs '{missing[0]}', of which there is no result yet",
                hint=f"run the pipeline up to it first, or: --from {missing[0]}",
            )

    def _downstream(self, start: str) -> set[str]:
        found, size = {start}, 0
        while size != len(found):
            size = len(found)
            found |= {stage for stage, needs in self._needs.items() if found.intersection(needs)}
        return found

    def _upstream(self, start: str) -> set[str]:
        found: set[str] = set()
        wanted = list(self._needs.get(start, ()))
        while wanted:
            stage = wanted.pop()
            if stage not in found:
                found.add(stage)
                wanted += self._needs.get(stage, ())
        return found
