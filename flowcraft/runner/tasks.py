"""A stage becomes a task: its templates are rendered, once, when it starts; by the coordinator, never a worker."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any

from flowcraft.core.errors import ExpressionError, StageError, UsageError
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.parts import Part
from flowcraft.llm.routing import Named
from flowcraft.pipeline.expr import Expression, Template
from flowcraft.pipeline.expressions.data import field_of, is_defined, kind_of
from flowcraft.pipeline.expressions.references import Reference
from flowcraft.pipeline.model import (
    Approval,
    Check,
    Command,
    Each,
    Function,
    Inclusion,
    Output,
    Pipeline,
    Prompt,
    Stage,
)
from flowcraft.pipeline.source import Where
from flowcraft.runner.attachments import attached
from flowcraft.runner.checks import key_of
from flowcraft.runner.choices import named_by_stage, stage_model
from flowcraft.runner.commands import arguments, private_file, variables
from flowcraft.runner.files import read_by
from flowcraft.runner.names import Names
from flowcraft.runner.origins import is_given
from flowcraft.runner.store.fingerprint import digest
from flowcraft.runner.using import entered, fitting
from flowcraft.runner.work import Contract, Execution, Invocation, Judgement, Question, Shape, Task
from flowcraft.runner.workspace import Workspace

SHORTEST_MADE = 8  # of a text that is taken for secret because it is made of one: `true` tells nothing
_TEXT = Shape()


@dataclass(slots=True)
class _Placed:
    """A block whose errors get their place in the file; a generator would take twice as long.

    Without `keys` only those of an expression, else also those that what stands under the keys is to blame for.
    """

    where: Where | None
    keys: tuple[str, ...] = ()
    about: str = ""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        known = ExpressionError if not self.keys else (UsageError, StageError)
        if self.where is not None and isinstance(error, known):
            raise self.where.failure(error, *self.keys, about=self.about) from error


def placed(stage: Stage, *keys: str) -> _Placed:
    """A block in which an error gets the place of the expression that has failed, or of these keys of the stage."""
    return _Placed(stage.where, keys)


class Renderer:
    """Renders the stages of one pipeline; values too large for an environment go to files in `spilled`."""

    def __init__(
        self,
        pipeline: Pipeline,
        workspace: Workspace,
        spilled: Path,
        *,
        secrets: tuple[str, ...] = (),
        numbers: Iterator[int] | None = None,
        retries: int | None = None,
    ) -> None:
        self.workspace = workspace
        self._retries = retries
        self._pipeline = pipeline
        self._spilled = spilled
        self._secrets = secrets
        self._numbers = numbers or count(1)
        self._no_checks = Contract(cwd=workspace.root, secrets=secrets)

    def used(self, pipeline: Pipeline, secrets: tuple[str, ...], retries: int | None = None) -> "Renderer":
        """The renderer for a pipeline that this one uses; `retries` are for its stages that do not say."""
        return Renderer(
            pipeline,
            self.workspace,
            self._spilled,
            secrets=(*self._secrets, *secrets),
            numbers=self._numbers,
            retries=self._retries if retries is None else retries,
        )

    def wanted(self, stage: Stage, names: Names) -> bool:
        """Whether the stage's `if` holds. Raises StageError."""
        if stage.condition is None:
            return True
        with placed(stage):
            return stage.condition.condition(names.public, self.workspace)

    def done(self, stage: Stage, names: Names, output: Any) -> bool:
        """Whether the stage's `until` holds. Raises StageError."""
        assert stage.repeat
        with placed(stage):
            return stage.repeat.until.condition({**names.public, "output": output}, self.workspace)

    def items(self, stage: Stage, each: Each, names: Names) -> list[Any]:
        """What the stage runs over. Raises StageError."""
        with placed(stage, "foreach", "in"):
            if isinstance(each.items, Expression):
                found = each.items.value(names.public, self.workspace)
            else:
                found = self._filled(each.items, names.public)
            if not isinstance(found, list):
                raise StageError(f"'foreach' of '{stage.id}' goes over a list, and this is {kind_of(found)}")
            if len(found) > each.most:
                hint = f"narrow it down, or allow more: foreach: {{in: ..., max: {len(found)}}}"
                said = f"'{stage.id}' has {len(found)} items, at most {each.most} are allowed"
                raise StageError(f"FC302: {said}", hint=hint)
        return found

    def entered(self, stage: Stage, work: Inclusion, names: Names, path: str) -> dict[str, Any]:
        """The inputs of a used pipeline; only a secret input may be given a secret. Raises StageError."""
        secret = {one.name for one in work.pipeline.inputs if one.secret}
        given = {}
        for name, value in work.arguments.items():
            with placed(stage, "with", name):
                given[name] = self._filled(value, names.private if name in secret else names.public)
                fitting(work.pipeline, name, given[name], path)
        with placed(stage, "with" if given else "uses"):
            return entered(work.pipeline, given, path)

    def approval(self, stage: Stage, approval: Approval, names: Names) -> str:
        """What a person is asked. Raises StageError."""
        with placed(stage):
            return approval.text.text(names.public, self.workspace)

    def task(
        self, stage: Stage, path: str, names: Names, models: Mapping[str, str], *, streamed: bool, undo: Path | None
    ) -> Task:
        """The stage with every template rendered. Raises StageError, or UsageError for a path."""
        output = stage.output
        with placed(stage):
            reads = self._reads(stage)
            return Task(
                path=path,
                stage=stage.id,
                work=self._work(stage, names, models, list(reads)),
                shape=_shape(output),
                contract=self._contract(stage, names),
                reads=reads,
                writes=stage.writes,
                retries=self._retries if stage.retries is None else stage.retries,
                timeout_s=stage.timeout_s,
                save=self._saved(stage, output.save, names) if output.save else None,
                undo=undo,
                cache=stage.cache,
                streamed=streamed,
            )

    def judgement(self, stage: Stage, path: str, names: Names, value: Any) -> Task:
        """The checks of a group or a used pipeline, for its result."""
        work = Judgement(kind=stage.kind, value=value)
        retries = self._retries if stage.retries is None else stage.retries
        return Task(path=path, stage=stage.id, work=work, contract=self._contract(stage, names), retries=retries)

    def outputs(self, names: Names) -> dict[str, object]:
        """The outputs of the pipeline. Raises StageError."""
        made: dict[str, object] = {}
        for name, template in self._pipeline.outputs.items():
            with _Placed(self._pipeline.where, ("outputs", name), f"output '{name}': "):
                made[name] = template.render(names.public, self.workspace)
        return made

    def _reads(self, stage: Stage) -> dict[str, str]:
        if not stage.reads:
            return {}
        with placed(stage, "reads"):
            return read_by(stage.id, self.workspace, stage.reads)

    def _saved(self, stage: Stage, save: Template, names: Names) -> Path:
        with placed(stage, "output", "save"):
            return self.workspace.target(save.text(names.public, self.workspace))

    def _work(
        self, stage: Stage, names: Names, models: Mapping[str, str], reads: Sequence[str]
    ) -> Question | Execution | Invocation:
        if isinstance(stage.work, Prompt):
            return self._question(stage, stage.work, names, models, reads)
        if isinstance(stage.work, Function):
            arguments = self._filled(stage.work.arguments, names.public)
            return Invocation(
                target=stage.work.target, arguments=arguments, cwd=self.workspace.root, secrets=self._secrets
            )
        assert isinstance(stage.work, Command)
        return self._execution(stage, stage.work, names)

    def _question(
        self, stage: Stage, prompt: Prompt, names: Names, models: Mapping[str, str], reads: Sequence[str]
    ) -> Question:
        content = self._prompt(stage, prompt.text.text(names.public, self.workspace), reads)
        system = prompt.system.text(names.public, self.workspace) if prompt.system else ""
        opening = (LLMMessage("system", system),) if system.strip() else ()
        higher = () if stage.id in models else prompt.models[1:]
        return Question(
            messages=(*opening, LLMMessage("user", content)),
            model=self._named(stage, names, models),
            ladder=tuple([self._model(stage, one, names) for one in higher]),
            attempts=prompt.attempts,
            params=prompt.params,
        )

    def _prompt(self, stage: Stage, text: str, reads: Sequence[str]) -> str | tuple[Part, ...]:
        if not text.strip():
            with placed(stage, "prompt"):
                raise StageError(f"the prompt of '{stage.id}' is empty", hint="look at the values it is made of")
        if not reads:
            return text
        with placed(stage, "reads"):
            return attached(text, self.workspace, reads)

    def _named(self, stage: Stage, names: Names, models: Mapping[str, str]) -> Named | None:
        named = stage_model(self._pipeline, stage, models)
        if not isinstance(named, EllipsisType):
            return named
        assert isinstance(stage.work, Prompt)
        assert stage.work.model
        return named_by_stage(self._pipeline, stage, self._model(stage, stage.work.model, names))

    def _model(self, stage: Stage, template: Template, names: Names) -> str:
        with placed(stage, "model"):
            name = template.text(names.public, self.workspace).strip()
            if not name:
                raise StageError(f"the model of '{stage.id}' is empty", hint="give a fallback: | default('cheap')")
        return name

    def _execution(self, stage: Stage, command: Command, names: Names) -> Execution:
        public, files = names.public, self.workspace
        variables(command.env, names.given)
        secret = [name for name, value in command.env.items() if self._is_secret(value)]
        env = {
            name: _of_secret(name, value, names.private, files) if name in secret else value.text(public, files)
            for name, value in command.env.items()
        }
        made = [env[name] for name in secret if len(env[name]) >= SHORTEST_MADE]
        cwd = files.root
        if command.cwd:
            with placed(stage, "cwd"):
                cwd = files.folder(command.cwd.text(public, files))
        script = None
        if command.script is not None:
            script, values = command.script.render(
                public, files, spill=self._spill, given=partial(is_given, given=names.given)
            )
            env |= values
        argv = arguments(command.argv, public, files, names.given)
        return Execution(cwd=cwd, script=script, argv=argv, env=env, secrets=(*self._secrets, *made))

    def _is_secret(self, value: Template) -> bool:
        """Whether a secret input is part of the value."""
        secret = {("inputs", one.name) for one in self._pipeline.inputs if one.secret}
        return bool(secret) and any(reference.path[:2] in secret for reference in value.references)

    def _contract(self, stage: Stage, names: Names) -> Contract:
        if not stage.checks:
            return self._no_checks
        root = self.workspace.root
        seen = {reference.path for check in stage.checks for reference in _references(check)}
        known = names.public["stages"]
        # A worker gets a copy of what it may name: the coordinator goes on adding to the original.
        stages = {
            str(path[1]): known[path[1]] for path in seen if path[0] == "stages" and path[1:2] and path[1] in known
        }
        own = {**names.public, "stages": stages}
        values = {".".join(map(str, path)): _value(own, path) for path in sorted(seen, key=str) if path[0] != "output"}
        return Contract(
            checks=stage.checks,
            names=own,
            key=key_of(stage.checks, values),
            cwd=root,
            secrets=self._secrets,
            given=names.given,
            where=stage.where,
        )

    def _filled(self, value: Any, names: Mapping[str, Any]) -> Any:
        if isinstance(value, Template):
            return value.render(names, self.workspace)
        if isinstance(value, Mapping):
            return {name: self._filled(inner, names) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._filled(inner, names) for inner in value]
        return value

    def _spill(self, name: str, text: str) -> str:
        return private_file(self._spilled / f"{next(self._numbers)}-{name}", text)


def basis(expression: Any, names: Mapping[str, Any]) -> str:
    """The hash of an expression (or of data with templates) and of all but files that it depends on."""
    values = {str(one): _value(names, one.path) for one in getattr(expression, "references", ())}
    return digest([repr(expression), values])


def _of_secret(name: str, value: Template, private: Mapping[str, Any], files: Workspace) -> str:
    try:
        return value.text(private, files)
    except ExpressionError as error:
        failure = ExpressionError(
            f"'{name}' cannot be made of its secret",
            expression=error.expression,
            offset=error.offset,
            code=error.code,
            hint="the reason is not shown, it may quote the secret; see what the same does with an ordinary input",
        )
    raise failure  # not above: the error that quotes it would be its context


def _shape(output: Output) -> Shape:
    if output.format == "text" and output.schema is None:
        return _TEXT
    json = output.format == "json" or output.schema is not None
    return Shape(json=json, schema=output.schema, files=output.format == "files")


def _references(check: Check) -> Iterator[Reference]:
    command = check.run or Command()
    parts = (check.that, check.ask, check.model, check.say, command.script, *command.argv)
    for part in parts:
        if part is not None:
            yield from part.references


def _value(names: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        names = field_of(names, part)
    return names if is_defined(names) else None
