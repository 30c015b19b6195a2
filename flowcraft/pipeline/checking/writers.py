"""FC140: stages that can run at the same time and may write the same file."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from flowcraft.core.document import Document
from flowcraft.core.problems import Problem
from flowcraft.pipeline.checking.alike import Globs, TooMany
from flowcraft.pipeline.checking.graph import Graph, reached
from flowcraft.pipeline.model import Inclusion, Stage
from flowcraft.pipeline.reading.sites import Level

# A stage that writes, and where it is: from the outermost list to its own.
_Chain = tuple[tuple[Level, int], ...]
_Writer = tuple[Stage, _Chain]

_TOO_MANY = (
    "so many globs of stages that can run at the same time are alike that it takes too long to compare them",
    "let each begin with a folder of its own, such as docs/a/**, or make the stages need each other",
)


def conflicts(document: Document, graphs: Sequence[Graph]) -> list[Problem]:
    """The problems of all levels of a file."""
    writers = list(_writers(graphs))
    order = _Order(graphs, writers)
    globs = Globs()
    found = []
    for number, (stage, chain) in enumerate(writers):
        if (around := _fanned(chain)) is not None:
            glob = written(stage)[0]
            name = around.id if around is stage else f"{around.id}/{stage.id}"
            message = f"the items of '{name}' can run at the same time and all write {glob}"
            hint = "one after the other: foreach: {in: ..., parallel: 1}"
            found.append(_problem(document, chain[-1], message, hint))
        beside = ((1 << number) - 1) & ~order.settled(chain)
        try:
            meeting = globs.meeting(written(stage), beside) if beside else None
        except TooMany:
            return [*found, _problem(document, chain[-1], *_TOO_MANY)]
        if meeting:
            first, shared = meeting
            other = writers[first][0]
            message = f"'{other.id}' and '{stage.id}' can run at the same time and both write {shared}"
            hint = f"make one need the other: needs: [{other.id}]"
            found.append(_problem(document, chain[-1], message, hint))
        globs.add(written(stage))
    return found


def _writers(graphs: Sequence[Graph]) -> Iterator[_Writer]:
    for graph in graphs:
        for number, stage in enumerate(graph.stages):
            if written(stage):
                chain = [(graph.level, number)]
                while (above := chain[0][0].above) is not None:
                    chain.insert(0, (above, chain[0][0].number))
                yield stage, tuple(chain)


def written(stage: Stage) -> tuple[str, ...]:
    """The globs that a stage may write; of a used pipeline those of all its stages."""
    if not isinstance(stage.work, Inclusion):
        return stage.writes
    return tuple(dict.fromkeys(glob for inner in stage.work.pipeline.every_stage() for glob in written(inner)))


class _Order:
    """Which writers surely do not run at the same time; sets of writers are the bits of an int."""

    def __init__(self, graphs: Sequence[Graph], writers: Sequence[_Writer]) -> None:
        inside: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for number, (_, chain) in enumerate(writers):
            for level, at in chain:
                inside[id(level)][at] |= 1 << number
        self._settled = {id(graph.level): _apart(graph, inside[id(graph.level)]) for graph in graphs if writers}

    def settled(self, chain: _Chain) -> int:
        """The writers before and after this one."""
        bits = 0
        for level, number in chain:
            bits |= self._settled[id(level)][number]
        return bits


def _apart(graph: Graph, inside: dict[int, int]) -> list[int]:
    """For each stage the writers in those before and after it; `inside` are the writers in each.

    One more entry is for what stands under `finally`, which runs last.
    """
    size = len(graph.stages)
    own = [inside.get(number, 0) for number in range(size)]
    after: list[list[int]] = [[] for _ in range(size)]
    for number, needs in enumerate(graph.needs):
        for need in needs:
            after[need].append(number)
    apart = [before | later for before, later in zip(reached(graph.needs, own), reached(after, own), strict=True)]
    everyone = 0
    for bits in own:
        everyone |= bits
    return [*apart, everyone]


def _fanned(chain: _Chain) -> Stage | None:
    """The stage of the chain that runs for several items at once."""
    for level, number in chain:
        stage = level.stages[number] if number < len(level.stages) else None
        if stage and stage.each and stage.each.parallel != 1:
            return stage
    return None


def _problem(document: Document, place: tuple[Level, int], message: str, hint: str) -> Problem:
    level, number = place
    key = "uses" if isinstance(level.stages[number].work, Inclusion) else "writes"
    return document.problem([*level.place, number, key], message, code="FC140", hint=hint)
