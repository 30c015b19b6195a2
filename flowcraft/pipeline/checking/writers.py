"""FC140: stages that can run at the same time and may write the same file."""

from collections.abc import Iterator, Sequence

from flowcraft.core.document import Document
from flowcraft.core.problems import Problem
from flowcraft.pipeline.checking.globs import overlap
from flowcraft.pipeline.checking.graph import Graph
from flowcraft.pipeline.model import Stage
from flowcraft.pipeline.reading.sites import Level

_Writer = tuple[Stage, tuple[tuple[Level, int], ...]]


def conflicts(document: Document, graphs: Sequence[Graph]) -> list[Problem]:
    """The problems of all levels of a file."""
    by_level = {id(graph.level): graph for graph in graphs}
    writers = list(_writers(graphs))
    found = []
    for number, (stage, chain) in enumerate(writers):
        if (around := _fanned(chain)) is not None:
            glob = stage.writes[0]
            name = around.id if around is stage else f"{around.id}/{stage.id}"
            message = f"the items of '{name}' can run at the same time and all write {glob}"
            hint = "one after the other: foreach: {in: ..., parallel: 1}"
            found.append(_problem(document, chain[-1], message, hint))
        for other, others in writers[:number]:
            shared = _shared(stage, other)
            if shared and _together(by_level, chain, others):
                message = f"'{other.id}' and '{stage.id}' can run at the same time and both write {shared}"
                hint = f"make one need the other: needs: [{other.id}]"
                found.append(_problem(document, chain[-1], message, hint))
                break
    return found


def _writers(graphs: Sequence[Graph]) -> Iterator[_Writer]:
    for graph in graphs:
        for number, stage in enumerate(graph.stages):
            if stage.writes:
                chain = [(graph.level, number)]
                while (above := chain[0][0].above) is not None:
                    chain.insert(0, (above, chain[0][0].number))
                yield stage, tuple(chain)


def _shared(one: Stage, other: Stage) -> str | None:
    return next((glob for glob in one.writes if any(overlap(glob, second) for second in other.writes)), None)


def _fanned(chain: Sequence[tuple[Level, int]]) -> Stage | None:
    """The stage of the chain that runs for several items at once."""
    for level, number in chain:
        stage = level.stages[number] if number < len(level.stages) else None
        if stage and stage.each and stage.each.parallel != 1:
            return stage
    return None


def _together(graphs: dict[int, Graph], one: Sequence[tuple[Level, int]], other: Sequence[tuple[Level, int]]) -> bool:
    """Whether nothing makes one of the two wait for the other."""
    for (level, number), (second, second_number) in zip(one, other, strict=False):
        if level is not second:
            return False
        if number != second_number:
            if max(number, second_number) >= len(level.stages):  # what stands under `finally` runs last
                return False
            graph = graphs[id(level)]
            return not graph.sees(number, second_number) and not graph.sees(second_number, number)
    return False


def _problem(document: Document, place: tuple[Level, int], message: str, hint: str) -> Problem:
    level, number = place
    return document.problem([*level.place, number, "writes"], message, code="FC140", hint=hint)
