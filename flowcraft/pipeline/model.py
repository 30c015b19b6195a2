"""A pipeline as a value: what `load` makes from a checked document and the runner carries out.

Everything here is frozen; a template or expression knows its text and its place in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flowcraft.pipeline.expr import Expression, Script, Template


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

    format: Literal["text", "json"] = "text"
    schema: Mapping[str, Any] | None = None
    save: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a prompt stage asks, and which model it names (None: the settings choose)."""

    text: Template
    system: Template | None = None
    model: Template | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a run stage runs: a bash script, or one program with its arguments."""

    script: Script | None = None
    argv: tuple[Template, ...] = ()
    env: Mapping[str, Template] = field(default_factory=dict)
    cwd: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One unit of work; `needs` are the stages it waits for, `timeout_s` is per try in seconds."""

    id: str
    work: Prompt | Command
    description: str = ""
    needs: tuple[str, ...] = ()
    condition: Expression | None = None
    output: Output = Output()
    timeout_s: float | None = None
    line: int = 0

    @property
    def kind(self) -> str:
        return "prompt" if isinstance(self.work, Prompt) else "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A checked pipeline; relative `{file: ...}` references start at `folder`."""

    name: str
    file: Path
    stages: tuple[Stage, ...]
    inputs: tuple[Input, ...] = ()
    outputs: Mapping[str, Template] = field(default_factory=dict)
    description: str = ""

    @property
    def folder(self) -> Path:
        return self.file.parent
