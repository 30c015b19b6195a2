"""What waits for what: unknown and repeated ids, cycles, and which stages are over when one starts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowcraft.core.document import Document
from flowcraft.core.problems import Guesses, Problem
from flowcraft.pipeline.model import Group, Inclusion, Stage
from flowcraft.pipeline.reading.sites import Level


class Graph:
    """The stages of one level and their needs, as numbers; `problems` tells what is wrong with them."""

    def __init__(self, document: Document, level: Level, guesses: Guesses) -> None:
        self.level = level
        self.stages = stages = level.stages
        self.numbers: dict[str, int] = {}
        self.problems: list[Problem] = []
        self._document = document
        self._guesses = guesses
        for number, stage in enumerate(stages):
            if stage.id and self.numbers.setdefault(stage.id, number) != number:
                first = document.position([*level.place, self.numbers[stage.id], "id"])[0]
                self._tell(number, "id", f"the id '{stage.id}' stands twice, first in line {first}", "FC104")
            if stage.id == "finally" and self._at_the_end_too(stage):
                message = "'finally' is where the stages at the end are: 'finally/x' would stand for two stages"
                self._tell(number, "id", message, "FC104", "call this one something else")
        self.needs = list(self._all_needs())
        self._cycle()
        own = [1 << number for number in range(len(stages))]
        self._before = reached(self.needs, own)
        held = [() if stage.regardless else needs for stage, needs in zip(stages, self.needs, strict=True)]
        self._held = reached(held, own) if any(stage.regardless for stage in stages) else self._before

    def sees(self, number: int, other: int) -> bool:
        """Whether stage `other` is over when stage `number` starts."""
        return bool(self._before[number] >> other & 1)

    def holds(self, number: int, other: int) -> bool:
        """Whether stage `number` starts only if stage `other` has not failed."""
        return bool(self._held[number] >> other & 1)

    def _at_the_end_too(self, stage: Stage) -> bool:
        inside = isinstance(stage.work, (Group, Inclusion))
        return inside and list(self.level.place) == ["stages"] and "finally" in self._document.data

    def _stands_above(self, name: str) -> bool:
        main = self._document.data.get("stages")
        return isinstance(main, list) and any(isinstance(raw, dict) and raw.get("id") == name for raw in main)

    def _all_needs(self) -> Iterator[list[int]]:
        above: dict[str, int] = {}  # of two stages with one id the nearer one is meant
        for number, stage in enumerate(self.stages):
            yield list(self._known(number, stage, above))
            above[stage.id] = number

    def _known(self, number: int, stage: Stage, above: Mapping[str, int]) -> Iterator[int]:
        for place, name in enumerate(stage.needs):
            if name in self.numbers:
                yield above.get(name, self.numbers[name])
            elif name:
                hint = self._guesses.did_you_mean(name, lambda: self.numbers.keys() - {stage.id})
                if list(self.level.place) == ["finally"] and self._stands_above(name):
                    hint = "what is under 'finally' runs after all stages: take it out of needs"
                message = f"there is no stage '{name}'"
                self.problems.append(
                    self._document.problem(
                        [*self.level.place, number, "needs", place], message, code="FC110", hint=hint
                    )
                )

    def _cycle(self) -> None:
        """Tell the first cycle, and cut it so that the rest can be judged."""
        state = [0] * len(self.stages)
        for start in range(len(self.stages)):
            path: list[tuple[int, Iterator[int]]] = []
            self._enter(start, state, path)
            while path:
                number, rest = path[-1]
                after = next(rest, None)
                if after is None:
                    state[number] = 2
                    path.pop()
                elif state[after] == 1:
                    self._tell_cycle([step for step, _ in path], after)
                    self.needs[number] = [need for need in self.needs[number] if need != after]
                else:
                    self._enter(after, state, path)

    def _enter(self, number: int, state: list[int], path: list[tuple[int, Iterator[int]]]) -> None:
        if not state[number]:
            state[number] = 1
            path.append((number, iter(list(self.needs[number]))))

    def _tell_cycle(self, path: list[int], back: int) -> None:
        round_ = [*path[path.index(back) :], back]
        names = " -> ".join(self.stages[number].id for number in round_)
        if len(round_) == 2:
            message, hint = f"'{self.stages[back].id}' waits for itself", "take it out of its needs"
        else:
            message, hint = f"these stages wait for each other: {names}", "take one of the needs away"
        # Best shown where needs are written; the others wait for the stage above them.
        written = [number for number in round_[:-1] if self._has_needs(number)]
        self._tell(min(written, default=back), "needs", message, "FC111", hint)

    def _has_needs(self, number: int) -> bool:
        data: Any = self._document.data
        for part in (*self.level.place, number):
            data = data[part]
        return isinstance(data, dict) and "needs" in data

    def _tell(self, number: int, key: str, message: str, code: str, hint: str | None = None) -> None:
        self.problems.append(self._document.problem([*self.level.place, number, key], message, code=code, hint=hint))


def reached(edges: Sequence[Sequence[int]], own: Sequence[int]) -> list[int]:
    """For each number the bits that belong to all others it leads to; `edges` are without cycles.

    Sets as the bits of an int: a thousand stages in a row make half a million members.
    """
    found: list[int | None] = [None] * len(edges)
    for start in range(len(edges)):
        path = [start]
        while path:
            number = path[-1]
            if found[number] is not None:
                path.pop()
                continue
            if waiting := [after for after in edges[number] if found[after] is None]:
                path += waiting
                continue
            bits = 0
            for after in edges[number]:
                bits |= (found[after] or 0) | own[after]
            found[number] = bits
    return [bits or 0 for bits in found]
