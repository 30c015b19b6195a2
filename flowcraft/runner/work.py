"""What goes to a worker: one stage, ready to be carried out, with every template rendered; all frozen.

What is made for each stage is a named tuple: a frozen dataclass with so many fields takes four times as long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from flowcraft.llm.base import LLMMessage
from flowcraft.llm.routing import Named
from flowcraft.pipeline.model import Check
from flowcraft.pipeline.source import Where
from flowcraft.runner.origins import GIVEN

Turn = tuple[str, int | str]  # round and its number, or item and what tells it apart

_NONE: Mapping[str, Any] = MappingProxyType({})


class Question(NamedTuple):
    """What a prompt stage asks; `model` None leaves the choice to the settings.

    `ladder` are the models to go up to when the `attempts` (answers) of the one before are used up.
    """

    messages: tuple[LLMMessage, ...]
    model: Named | None = None
    ladder: tuple[str, ...] = ()
    attempts: int = 2
    params: Mapping[str, Any] = _NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What a run stage runs: a bash `script`, or `argv` without a shell.

    `env` is added to the allowed part of our own environment. `secrets` are texts that must not come
    out again.
    """

    cwd: Path
    script: str | None = None
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What a python stage calls: `target` is module:function, found from the folder `cwd` on."""

    target: str
    arguments: Mapping[str, Any]
    cwd: Path
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The result of a group or of another pipeline, of which only the checks are left to do."""

    kind: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a result must look like: text, JSON (perhaps held to a schema) or whole files."""

    json: bool = False
    schema: Mapping[str, Any] | None = None
    files: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What must hold for a result: the checks, and the names that they may use.

    `key` stands for all of it in a fingerprint: two contracts with the same key accept the same results. `given`
    are the names of what a person has given, `where` is the place of the stage.
    """

    checks: tuple[Check, ...] = ()
    names: Mapping[str, Any] = field(default_factory=dict, repr=False)
    key: str = ""
    cwd: Path = Path()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    given: frozenset[str] = GIVEN
    where: Where | None = field(default=None, repr=False, compare=False)


_KINDS: Mapping[type, str] = {Question: "prompt", Execution: "run", Invocation: "python"}


class Task(NamedTuple):
    """One stage, ready to be carried out: every template is rendered. `path` names it in the run.

    `reads` are the files it depends on, with their hashes; `writes` are globs. `undo` is where the old contents of
    files are kept until the result is accepted. `cache` None leaves it to the kind. `turns` tell the rounds and items
    apart in which it stands, from the outside in.
    """

    path: str
    stage: str
    work: Question | Execution | Invocation | Judgement
    shape: Shape = Shape()
    contract: Contract = Contract()
    reads: Mapping[str, str] = _NONE
    writes: tuple[str, ...] = ()
    retries: int | None = None
    timeout_s: float | None = None
    save: Path | None = None
    undo: Path | None = None
    cache: bool | None = None
    streamed: bool = False
    turns: tuple[Turn, ...] = ()

    @property
    def kind(self) -> str:
        return self.work.kind if isinstance(self.work, Judgement) else _KINDS[type(self.work)]
