"""FC140: stages that can run at the same time and may write the same file."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from flowcraft.core.document import Document
from flowcraft.core.globs import literal
from flowcraft.core.problems import Problem
from flowcraft.pipeline.checking.alike import Globs, TooMany
from flowcraft.pipeline.checking.graph import Graph, reached
from flowcraft.pipeline.model import Inclusion, Stage
from flowcraft.pipeline.reading.sites import Level

# A stage that writes, and where it is: from the outermost list to its own.
_Chain = tuple[tuple[Level, int], ...]
_Writer = tuple[Stage, _Chain]

_SAVE = ("output", "save")


class _Written(NamedTuple):
    """What is told of a glob: how it stands in the file, and under which key of the stage."""

    path: str
    key: tuple[str, ...]


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
        own = written(stage)
        if (around := _fanned(chain)) is not None and (same := own or _saved_by_all(stage, around)):
            found.append(_of_items(document, stage, chain[-1], around, same))
        beside = ((1 << number) - 1) & ~order.settled(chain)
        try:
            meeting = globs.meeting(tuple(own), beside) if beside else None
        except TooMany:
            return [*found, _problem(document, chain[-1], _first(own), *_TOO_MANY)]
        if meeting:
            first, shared = meeting
            other = writers[first][0]
            message = f"'{other.id}' and '{stage.id}' can run at the same time and both write {own[shared].path}"
            hint = f"make one need the other: needs: [{other.id}]"
            found.append(_problem(document, chain[-1], own[shared], message, hint))
        globs.add(tuple(own))
    return found


def _writers(graphs: Sequence[Graph]) -> Iterator[_Writer]:
    for graph in graphs:
        for number, stage in enumerate(graph.stages):
            if stage.output.save or written(stage):
                chain = [(graph.level, number)]
                while (above := chain[0][0].above) is not None:
                    chain.insert(0, (above, chain[0][0].number))
                yield stage, tuple(chain)


def written(stage: Stage) -> dict[str, _Written]:
    """The globs that a stage may write, with how they are told; of a used pipeline those of all its stages."""
    if isinstance(stage.work, Inclusion):
        inner = [glob for each in stage.work.pipeline.every_stage() for glob in written(each).items()]
        return {glob: one._replace(key=("uses",)) for glob, one in inner}
    found = {glob: _Written(glob, ("writes",)) for glob in stage.writes}
    save = stage.output.save
    if save and save.is_static and save.source:
        found.setdefault(literal(save.source), _Written(save.source, _SAVE))
    return found


def _saved_by_all(stage: Stage, around: Stage) -> dict[str, _Written]:
    """A path under `save` with values that are the same for each item."""
    save = stage.output.save
    each = around.each
    if save is None or save.is_static or each is None:
        return {}
    names = {reference.path[0] for reference in save.references}
    differs = names & {each.name, "index"} if around is stage else names - {"inputs", "run"}
    return {} if differs else {save.source: _Written(save.source, _SAVE)}


def _of_items(
    document: Document, stage: Stage, place: tuple[Level, int], around: Stage, written_: Mapping[str, _Written]
) -> Problem:
    name = around.id if around is stage else f"{around.id}/{stage.id}"
    one = _first(written_)
    message = f"the items of '{name}' can run at the same time and all write {one.path}"
    hint = "one after the other: foreach: {in: ..., parallel: 1}"
    if one.key == _SAVE:
        hint = f"a file for each: save: {_numbered(one.path)}; or {hint}"
    return _problem(document, place, one, message, hint)


def _numbered(path: str) -> str:
    pure = PurePosixPath(path)
    return str(pure.with_name(f"{pure.stem}_${{{{ index }}}}{pure.suffix}")) if pure.name else path


def _first(globs: Mapping[str, _Written]) -> _Written:
    return next(iter(globs.values()))


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


def _problem(document: Document, place: tuple[Level, int], one: _Written, message: str, hint: str) -> Problem:
    level, number = place
    return document.problem([*level.place, number, *one.key], message, code="FC140", hint=hint)
