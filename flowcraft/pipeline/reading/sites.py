"""Where each template and expression of a pipeline stands, and how a problem with it is marked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flowcraft.core.document import Document
from flowcraft.core.errors import ExpressionError
from flowcraft.core.problems import Problem
from flowcraft.pipeline.expr import Expression, Script, Template
from flowcraft.pipeline.model import Stage
from flowcraft.pipeline.reading.included import TextFile
from flowcraft.pipeline.source import occurrence, word_at

NO_NAMES: frozenset[str] = frozenset()


@dataclass(eq=False, slots=True)
class Level:
    """One list of stages, at `place` in the file; in a group `above` is the list with the group, its `number` in it."""

    place: Sequence[str | int]
    above: "Level | None" = None
    number: int = 0
    stages: list[Stage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where in the order of the stages something is: in stage `number` of a level (None: after all of them).

    `names` are those that loops around it give.
    """

    level: Level
    number: int | None = None
    names: frozenset[str] = NO_NAMES

    def knowing(self, *names: str) -> "Spot":
        """The spot inside a loop that gives more names."""
        return Spot(self.level, self.number, self.names.union(names))


@dataclass(frozen=True, slots=True)
class Site:
    """A template at a place of the file, what it is for (`key`), and the spot where it is rendered."""

    item: Expression | Template | Script
    document: Document
    path: Sequence[str | int]
    spot: Spot
    key: str
    file: TextFile | None = None

    def problem(
        self,
        message: str,
        *,
        code: str,
        hint: str | None = None,
        offset: int = 0,
        text: str = "",
        severity: str = "error",
    ) -> Problem:
        """A problem with the part of the template that is `text`, at `offset`."""
        if self.file:
            return self.file.problem(offset, len(text), message, code=code, hint=hint, severity=severity)
        before = occurrence(self.item.source, offset, text)
        return self.document.problem(
            self.path, message, code=code, hint=hint, snippet=text or None, occurrence=before, severity=severity
        )

    def failure(self, error: ExpressionError) -> Problem:
        """An expression that cannot be read, as a problem."""
        text = word_at(error.expression, error.offset)
        return self.problem(error.message, code=error.code, hint=error.hint, offset=error.offset, text=text)
