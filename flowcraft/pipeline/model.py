"""A pipeline as a value: what `load` makes from a checked document and the runner carries out.

Everything here is frozen; a template or expression knows its text and its place in the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flowcraft.core.problems import Problem
from flowcraft.pipeline.expr import Expression, Script, Template
from flowcraft.pipeline.source import Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of a pipeline; `schema` is JSON Schema, `env` the variable that may give its value."""

    name: str
    schema: Mapping[str, Any]
    required: bool = True
    default: Any = None
    secret: bool = False
    env: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a stage's result looks like; a `schema` implies JSON, `save` also writes it to a file."""

    format: Literal["text", "json", "files"] = "text"
    schema: Mapping[str, Any] | None = None
    save: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a prompt stage asks, and whom: the models are a ladder (empty: the settings choose).

    `attempts` is how many answers each of them may give.
    """

    text: Template
    system: Template | None = None
    models: tuple[Template, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 2

    @property
    def model(self) -> Template | None:
        """The model that is asked first, if the stage names one."""
        return self.models[0] if self.models else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a run stage runs: a bash script, or one program with its arguments."""

    script: Script | None = None
    argv: tuple[Template, ...] = ()
    env: Mapping[str, Template] = field(default_factory=dict)
    cwd: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """What a python stage calls; `arguments` holds templates at any depth."""

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What a person is asked to approve."""

    text: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """Another pipeline; `arguments` are its inputs and hold templates at any depth."""

    pipeline: "Pipeline"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Several stages that are one to their neighbours."""

    stages: tuple["Stage", ...]


Work = Prompt | Command | Function | Approval | Inclusion | Group

_KINDS: Mapping[type, str] = {
    Prompt: "prompt",
    Command: "run",
    Function: "python",
    Approval: "approve",
    Inclusion: "uses",
    Group: "stages",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What must hold for a result: one of an expression, a command and a question to a model.

    `say` replaces what is said when it does not hold.
    """

    that: Expression | None = None
    run: Command | None = None
    ask: Template | None = None
    model: Template | None = None
    say: Template | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Each:
    """Once per item: of an expression, or of a list in the file (which may hold templates)."""

    items: Expression | tuple[Any, ...]
    name: str = "item"
    most: int = 100
    parallel: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Again until the expression holds, `most` rounds at most."""

    until: Expression
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One unit of work; `needs` are the stages it waits for, `timeout_s` is per try in seconds.

    `tolerant` is `on_error: continue`, `regardless` that it runs whatever came of its needs.
    None where the file says nothing and something else decides.
    """

    id: str
    work: Work
    description: str = ""
    needs: tuple[str, ...] = ()
    condition: Expression | None = None
    each: Each | None = None
    repeat: Repeat | None = None
    checks: tuple[Check, ...] = ()
    output: Output = Output()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    tolerant: bool = False
    regardless: bool = False
    retries: int | None = None
    timeout_s: float | None = None
    budget: Mapping[str, Any] = field(default_factory=dict)
    cache: bool | None = None
    line: int = 0
    where: Where | None = field(default=None, repr=False, compare=False)

    @property
    def kind(self) -> str:
        return _KINDS[type(self.work)]

    @property
    def below(self) -> tuple["Stage", ...]:
        """The stages of a group."""
        return self.work.stages if isinstance(self.work, Group) else ()

    @property
    def loops(self) -> bool:
        """Whether it may run more than once."""
        return self.each is not None or self.repeat is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A checked pipeline; relative `{file: ...}` references start at `folder`. `finals` run at the end.

    `warnings` are what is allowed and probably not meant, in this file and those it uses.
    """

    name: str
    file: Path
    stages: tuple[Stage, ...]
    finals: tuple[Stage, ...] = ()
    inputs: tuple[Input, ...] = ()
    outputs: Mapping[str, Template] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    warnings: tuple[Problem, ...] = ()
    where: Where | None = field(default=None, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        return self.file.parent

    def every_stage(self) -> Iterator[Stage]:
        """All stages of this file, those of groups after their group."""
        waiting = [*reversed(self.finals), *reversed(self.stages)]
        while waiting:
            stage = waiting.pop()
            yield stage
            waiting += reversed(stage.below)


def flat(value: Any) -> Iterator[Template]:
    """The templates in arguments, at any depth."""
    if isinstance(value, Template):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from flat(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from flat(inner)
