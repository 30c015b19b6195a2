"""How large things can be that a run has not made yet: results, items of loops, files; bounds for the ceiling.

A model's answer is bounded by its `max_tokens`, a file by what is there now and what stages of this run may put into
it. What a command or function gives has no bound but that of a template, a megabyte of characters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flowcraft.core.errors import FlowcraftError
from flowcraft.core.globs import overlap
from flowcraft.llm.parts import TextPart
from flowcraft.pipeline.expressions.references import Path
from flowcraft.pipeline.model import Approval, Command, Each, Function, Group, Inclusion, Pipeline, Prompt, Stage
from flowcraft.pipeline.sizes import (
    MAX_BYTES,
    MAX_PATH,
    NUMBER,
    UNBOUNDED,
    Known,
    Size,
    as_part,
    filled_size,
    size_of,
    value_size,
)
from flowcraft.runner.attachments import attached, measured
from flowcraft.runner.names import MAX_ERROR, MAX_MODEL
from flowcraft.runner.workspace import Workspace

MAX_STDERR = 4 * 64 * 1024
MAX_COMMENT = 16 * 1024  # of what a person says at a gate
ANY = ("**",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What holds for the stages of one list: how often it runs, and what its names may hold.

    `values` are inputs that are known, `files` the largest file that the name of a loop may stand for.
    """

    pipeline: Pipeline
    prefix: str = ""
    times: int = 1
    sure: bool = True
    inputs: Mapping[str, Size] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    outer: tuple[Mapping[str, Stage], ...] = ()
    names: Mapping[str, Size] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    retries: int | None = None

    def within(self, stages: Sequence[Stage]) -> "Around":
        """The same for a list of stages inside."""
        return replace(self, outer=({stage.id: stage for stage in stages}, *self.outer))


@dataclass(frozen=True, slots=True)
class Attached:
    """The bytes of the files that follow a prompt, the sizes of images, and what is to be said about them."""

    size: int = 0
    images: tuple[tuple[int, int] | None, ...] = ()
    notes: tuple[str, ...] = ()


class Measures:
    """Measures for one run; `output` gives the tokens of a prompt stage's answer at most."""

    def __init__(self, workspace: Workspace, output: Callable[[Stage, "Around"], int]) -> None:
        self._workspace = workspace
        self._output = output
        self._written: list[tuple[Sequence[str], int]] = []
        self._changed: list[tuple[str, Sequence[str]]] = []
        self._attached: dict[tuple[str, ...], Attached] = {}

    def writers(self, stages: Sequence[Stage], around: Around) -> None:
        """Note which files the stages may make larger."""
        around = around.within(stages)
        for stage in stages:
            inner = self.inside(stage, around)
            if isinstance(stage.work, Prompt) and stage.output.format == "files":
                # Twice: line ends may become those of the file that was there.
                self._written.append((stage.writes, 2 * inner.times * self._output(stage, inner)))
            elif stage.writes:
                self._changed.append((stage.id, stage.writes))
            if stage.output.save is not None:
                self._saved(stage, inner)
            if isinstance(stage.work, Inclusion):
                below = self.entered(stage, stage.work, inner)
                self.writers([*stage.work.pipeline.stages, *stage.work.pipeline.finals], below)
            self.writers(stage.below, inner)

    def _saved(self, stage: Stage, around: Around) -> None:
        save = stage.output.save
        assert save
        place, times = ((save.source,), 1) if save.is_static else (ANY, around.times)
        if isinstance(stage.work, Prompt):
            self._written.append((place, times * (self.candidate(stage, around).printed + 1)))
        else:
            self._changed.append((stage.id, place))

    def inside(self, stage: Stage, around: Around) -> Around:
        """What holds inside of a stage's loops."""
        times, names, files = around.times, dict(around.names), dict(around.files)
        if stage.each:
            size, count, largest = self._items(stage.each, around)
            times *= count
            names |= {stage.each.name: size, "index": Size(NUMBER)}
            files[stage.each.name] = largest
        if stage.repeat:
            times *= stage.repeat.most
            names["loop"] = Size(NUMBER)
        sure = around.sure and stage.condition is None and stage.each is None
        return replace(around, times=times, sure=sure, names=names, files=files)

    def entered(self, stage: Stage, work: Inclusion, around: Around) -> Around:
        """What holds in a used pipeline."""
        used, known = work.pipeline, self.known(around)
        given = {name: filled_size(value, known) for name, value in work.arguments.items()}
        rest = {one.name: _input_size(one.default) for one in used.inputs if one.name not in given}
        retries = around.retries if stage.retries is None else stage.retries
        inner = replace(around, pipeline=used, prefix=f"{around.prefix}{stage.id}/", inputs={**rest, **given})
        return replace(inner, outer=(), names={}, files={}, values={}, retries=retries)

    def known(self, around: Around, unknown: list[str] | None = None) -> Known:
        """What is known of sizes where a template stands; files that may be of any size are added to `unknown`."""

        def file(path: str | Path | None) -> int:
            size = self._file(path, around)
            if unknown is not None and size >= MAX_BYTES and isinstance(path, str):
                unknown.append(path)
            return size

        return Known(lambda path: self._named(path, around), file, around.names)

    def attached(self, stage: Stage) -> Attached:
        """The files that follow a prompt."""
        if stage.reads not in self._attached:
            self._attached[stage.reads] = self._measured(stage.reads)
        return self._attached[stage.reads]

    def _measured(self, reads: Sequence[str]) -> Attached:
        notes = []
        total, images = 0, []
        try:
            files = measured(self._workspace, reads)
            images = [file.pixels for file in files if file.is_image]
            parts = attached("", self._workspace, [file.path for file in files])
            texts = [parts] if isinstance(parts, str) else [part.text for part in parts if isinstance(part, TextPart)]
            total = sum(len(text.encode("utf-8", "replace")) for text in texts)
        except (OSError, FlowcraftError) as error:
            notes.append(f"files cannot be measured: {error}")
        changed = [name for name, globs in self._changed if _meet(globs, reads)]
        notes += [f"files that '{name}' writes are counted as they are now" for name in dict.fromkeys(changed)]
        return Attached(total + self._growth(reads), tuple(images), tuple(notes))

    def _growth(self, globs: Sequence[str]) -> int:
        # With each new file come its path and its fences.
        return sum(3 * size + 2 * MAX_PATH for written, size in self._written if _meet(written, globs))

    def result(self, stage: Stage, around: Around, path: Path = ()) -> Size:
        """The output of a stage, or the part of it that a path names."""
        if stage.each is None:
            return self._one(stage, around, path)
        if path and isinstance(path[0], int):
            return self._one(stage, around, path[1:])
        one = self.candidate(stage, around)
        count = self._items(stage.each, around)[1]
        return Size(min((as_part(one) + 2) * count + 2, MAX_BYTES), True)

    def candidate(self, stage: Stage, around: Around) -> Size:
        """What is held to the checks of a stage: its result for one item."""
        return self._one(stage, around, ())

    def _one(self, stage: Stage, around: Around, path: Path) -> Size:
        work = stage.work
        if isinstance(work, Prompt):
            return self._answer(stage, self._output(stage, around), path)
        if isinstance(work, Group):
            return self._together(work.stages, self.inside(stage, around).within(work.stages), path)
        if isinstance(work, Inclusion):
            below = self.entered(stage, work, self.inside(stage, around)).within(work.pipeline.stages)
            outputs, known = work.pipeline.outputs, self.known(below)
            if path and path[0] in outputs:
                return size_of(outputs[str(path[0])], known)
            return filled_size(outputs, known)
        if isinstance(work, Approval):
            return Size(MAX_COMMENT, True)
        assert isinstance(work, (Command, Function))
        return Size(MAX_BYTES, isinstance(work, Function) or stage.output.format == "json")

    def _answer(self, stage: Stage, tokens: int, path: Path) -> Size:
        tokens = min(tokens + 4, MAX_BYTES)
        if stage.output.format == "files" and path[:1] != ("text",):
            # The whole answer as JSON text, and the paths in it once more.
            return Size(min(8 * tokens + 128, MAX_BYTES))
        return Size(tokens, stage.output.format == "json")

    def _together(self, stages: Sequence[Stage], around: Around, path: Path) -> Size:
        if path:
            child = next((stage for stage in stages if stage.id == path[0]), None)
            return self.result(child, around, path[1:]) if child else UNBOUNDED
        total = sum(as_part(self.result(stage, around)) + len(stage.id) + 6 for stage in stages)
        return Size(min(total + 2, MAX_BYTES), True)

    def _named(self, path: Path, around: Around) -> Size:
        if path[0] == "inputs" and len(path) > 1:
            return around.inputs.get(str(path[1]), UNBOUNDED)
        if path[0] == "run":
            return Size(MAX_PATH)
        found = None
        if path[0] == "stages" and len(path) > 2:
            found = next((stages[str(path[1])] for stages in around.outer if path[1] in stages), None)
        if found is None:
            return UNBOUNDED
        fixed = {"error": MAX_ERROR, "stderr": MAX_STDERR, "model": MAX_MODEL}
        field_ = str(path[2])
        return self.result(found, around, path[3:]) if field_ == "output" else Size(fixed.get(field_, NUMBER))

    def _items(self, each: Each, around: Around) -> tuple[Size, int, int]:
        """The size of an item, how many there are, and the largest file that one may name."""
        known = self.known(around)
        if isinstance(each.items, tuple):
            sizes = [filled_size(item, known) for item in each.items]
            size = Size(max((one.most for one in sizes), default=0), any(one.structured for one in sizes))
            return size, min(len(each.items), each.most), MAX_BYTES
        found = self._evaluated(each, around)
        if found is None:
            whole = size_of(each.items, known)
            return Size(whole.most, True), each.most, MAX_BYTES
        size = Size(max((value_size(item).most for item in found), default=0), True)
        if "glob" not in each.items.source and "read" not in each.items.source:
            return size, min(len(found), each.most), MAX_BYTES
        # More files may be there when the stage starts.
        files = [self._file(item, around) if isinstance(item, str) else MAX_BYTES for item in found]
        files += [min(made, MAX_BYTES) for _, made in self._written]
        return Size(max(size.most, MAX_PATH), size.structured), each.most, max(files, default=MAX_BYTES)

    def _evaluated(self, each: Each, around: Around) -> list[Any] | None:
        assert not isinstance(each.items, tuple)
        if any(reference.path[0] != "inputs" for reference in each.items.references):
            return None
        try:
            found = each.items.value({"inputs": around.values}, self._workspace)
        except (OSError, FlowcraftError):
            return None
        return found if isinstance(found, list) else None

    def _file(self, path: str | Path | None, around: Around) -> int:
        if isinstance(path, tuple) and len(path) == 1 and path[0] in around.files:
            return around.files[str(path[0])]
        if isinstance(path, tuple) and path[0] == "inputs" and len(path) == 2:
            path = around.values.get(str(path[1]))
        if not isinstance(path, str):
            return MAX_BYTES
        try:
            place = self._workspace.inside(path)
            names = (place.relative_to(self._workspace.root).as_posix(),)
            made = [size for written, size in self._written if _meet(written, names)]
            if place.exists():
                return min(place.stat().st_size + sum(made), MAX_BYTES)
        except (OSError, FlowcraftError):
            return MAX_BYTES
        # It is there when the stage starts, or that fails: what this run makes of it is known, but for commands.
        by_commands = any(_meet(globs, names) for _, globs in self._changed)
        return min(sum(made), MAX_BYTES) if made and not by_commands else MAX_BYTES


def _meet(some: Sequence[str], others: Sequence[str]) -> bool:
    return any(overlap(one, other) for one in some for other in others)


def _input_size(value: Any) -> Size:
    return value_size("" if value is None else value)
