"""Which stages are over, and which have surely run, at a spot of the pipeline."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.checking.graph import Graph
from flowcraft.pipeline.expr import Expression
from flowcraft.pipeline.model import Stage
from flowcraft.pipeline.reading.sites import NO_NAMES, Level, Site, Spot

# A stage, by the number in its list.
_Place = tuple[Graph, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A stage, the level it is in, and the number of the stage of that level that names it (None: after all)."""

    graph: Graph
    number: int
    seen_from: int | None

    @property
    def stage(self) -> Stage:
        return self.graph.stages[self.number]

    @property
    def over(self) -> bool:
        return self.seen_from is None or self.at_the_end or self.graph.sees(self.seen_from, self.number)

    @property
    def may_fail(self) -> bool:
        """Whether it may have failed, since the stage that names it only waits for it."""
        return self.seen_from is not None and not self.at_the_end and not self.graph.holds(self.seen_from, self.number)

    @property
    def at_the_end(self) -> bool:
        """Whether it is named under `finally`, where nothing is sure to have run."""
        return self.seen_from is not None and self.seen_from >= len(self.graph.stages)


class Visible:
    """Looks stages up from where they are named: in the same list first, then in the lists around it."""

    def __init__(self, graphs: Sequence[Graph]) -> None:
        self._graphs = {id(graph.level): graph for graph in graphs}
        # By the places of stages: the number of the bit of each, and the bits of those that have run with it.
        self._bits: dict[_Place, int] = {}
        self._surely: dict[_Place, int] = {}

    def find(self, spot: Spot, name: str) -> Found | None:
        """The stage that `name` stands for at the spot."""
        level: Level | None = spot.level
        number = spot.number
        while level is not None:
            graph = self._graphs[id(level)]
            if name in graph.numbers:
                return Found(graph, graph.numbers[name], number)
            number, level = level.number, level.above
        return None

    def names(self, spot: Spot) -> list[str]:
        """The ids that can be looked up at the spot."""
        return [name for graph, _ in self._around(spot) for name in graph.numbers]

    def subject(self, spot: Spot) -> Stage | None:
        """The stage whose candidate is `output`."""
        level = spot.level
        if spot.number is not None:
            return level.stages[spot.number]
        return level.above.stages[level.number] if level.above else None

    def has_run(self, found: Found, spot: Spot, given: frozenset[str], key: str) -> bool:
        """Whether a stage has run if those `given` have: a condition that let one run was true, too."""
        surely = self._named(spot.level, given)
        for graph, number in self._around(spot):
            if number is not None and number < len(graph.stages) and not (graph.level is spot.level and key == "if"):
                surely += self._shown((graph, number))
        wanted = self._bit((found.graph, found.number))
        return any(self._run_with(place) & wanted for place in surely)

    def _run_with(self, start: _Place) -> int:
        """The stages that have run if this one has, itself included, as the bits of an int."""
        path, begun = [start], set()
        while path:
            place = path[-1]
            begun.add(place)
            shown = [] if place in self._surely else self._shown(place)
            if waiting := [other for other in shown if other not in self._surely and other not in begun]:
                path += waiting
                continue
            path.pop()
            if place not in self._surely:
                bits = self._bit(place)
                for other in shown:
                    bits |= self._surely.get(other, 0)
                self._surely[place] = bits
        return self._surely[start]

    def _bit(self, place: _Place) -> int:
        return 1 << self._bits.setdefault(place, len(self._bits))

    def _shown(self, place: _Place) -> list[_Place]:
        """The stages that must have run if the condition of this one holds."""
        graph, number = place
        return self._named(graph.level, shown_by(graph.stages[number].condition))

    def _named(self, level: Level, names: Iterable[str]) -> list[_Place]:
        found = (self.find(Spot(level), name) for name in names)
        return [(one.graph, one.number) for one in found if one]

    def _around(self, spot: Spot) -> Iterator[tuple[Graph, int | None]]:
        level: Level | None = spot.level
        number = spot.number
        while level is not None:
            yield self._graphs[id(level)], number
            number, level = level.number, level.above


def shown_by(condition: Expression | None) -> frozenset[str]:
    """The stages that must have run if the condition holds."""
    try:
        return condition.shows if condition else NO_NAMES
    except ExpressionError:
        return NO_NAMES


def may_be_missing(stage: Stage, field: str, *, may_fail: bool = False) -> str | None:
    """How the stage can come to have no such field, as far as the file shows it."""
    if stage.condition is None and not stage.tolerant and not may_fail:
        return None
    # A failed command keeps what it has printed; a failed item of `foreach` is null, the list is there.
    keeps = stage.kind == "run" and stage.output.format == "text" and stage.each is None
    fails = may_fail or (stage.tolerant and stage.each is None)
    fails = fails and not (keeps and field in ("output", "exit_code", "stderr"))
    ways = [word for word, can in (("be skipped", stage.condition is not None), ("fail", fails)) if can]
    return " or ".join(ways) or None


def literal(site: Site) -> Expression | None:
    """The expression of a site that is the same in every run."""
    return site.item if isinstance(site.item, Expression) and site.item.is_static else None
