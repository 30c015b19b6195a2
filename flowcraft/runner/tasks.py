"""A stage becomes a task: its templates are rendered, once, when it starts; by the coordinator, never a worker."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import EllipsisType

from flowcraft.core.errors import ExpressionError, StageError
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.routing import Named
from flowcraft.pipeline.model import Command, Pipeline, Prompt, Stage
from flowcraft.runner.choices import named_by_stage, stage_model
from flowcraft.runner.commands import private_file
from flowcraft.runner.names import Names
from flowcraft.runner.outcome import Execution, Question, Shape, Task
from flowcraft.runner.workspace import Workspace

SHOWN_CHARACTERS = 80  # of a template that failed


class Renderer:
    """Renders the stages of one run; values too large for an environment go to files in `spilled`."""

    def __init__(
        self, pipeline: Pipeline, names: Names, workspace: Workspace, spilled: Path, *, secrets: tuple[str, ...] = ()
    ) -> None:
        self._pipeline = pipeline
        self._names = names
        self._workspace = workspace
        self._spilled = spilled
        self._secrets = secrets
        self._files = 0

    def wanted(self, stage: Stage) -> bool:
        """Whether the stage's `if` holds. Raises StageError."""
        with self.placed(stage.line):
            return stage.condition is None or stage.condition.condition(self._names.public, self._workspace)

    def task(self, stage: Stage, models: Mapping[str, str], *, streamed: bool) -> Task:
        """The stage with every template rendered. Raises StageError, or UsageError for a path."""
        output = stage.output
        with self.placed(stage.line):
            work = self._question(stage, stage.work, models) if isinstance(stage.work, Prompt) else None
            save = output.save.text(self._names.public, self._workspace) if output.save else None
            return Task(
                path=stage.id,
                stage=stage.id,
                work=work or self._execution(stage.work),  # type: ignore[arg-type]  # not a Prompt, so a Command
                shape=Shape(json=output.format == "json" or output.schema is not None, schema=output.schema),
                timeout_s=stage.timeout_s,
                save=None if save is None else self._workspace.target(save),
                streamed=streamed,
            )

    def outputs(self) -> dict[str, object]:
        """The outputs of the pipeline. Raises StageError."""
        made: dict[str, object] = {}
        for name, template in self._pipeline.outputs.items():
            with self.placed(0, f"output '{name}': "):
                made[name] = template.render(self._names.public, self._workspace)
        return made

    @contextmanager
    def placed(self, line: int, what: str = "") -> Iterator[None]:
        """Say where in the file the template stands that cannot be rendered."""
        try:
            yield
        except ExpressionError as error:
            place = f"{self._pipeline.file}:{line}" if line else str(self._pipeline.file)
            shown = _excerpt(error.expression, error.offset)
            raise StageError(f"{place}: {what}{error.message}, in: {shown}", hint=error.hint) from error

    def _question(self, stage: Stage, prompt: Prompt, models: Mapping[str, str]) -> Question:
        names, files = self._names.public, self._workspace
        text = prompt.text.text(names, files)
        if not text.strip():
            raise StageError(f"the prompt of '{stage.id}' is empty", hint="look at the values it is made of")
        system = prompt.system.text(names, files) if prompt.system else ""
        opening = (LLMMessage("system", system),) if system.strip() else ()
        return Question(
            messages=(*opening, LLMMessage("user", text)), model=self._model(stage, models), params=prompt.params
        )

    def _model(self, stage: Stage, models: Mapping[str, str]) -> Named | None:
        named = stage_model(self._pipeline, stage, models)
        if not isinstance(named, EllipsisType):
            return named
        assert isinstance(stage.work, Prompt)
        assert stage.work.model
        name = stage.work.model.text(self._names.public, self._workspace).strip()
        if not name:
            raise StageError(f"the model of '{stage.id}' is empty", hint="give a fallback: | default('cheap')")
        return named_by_stage(self._pipeline, stage, name)

    def _execution(self, command: Command) -> Execution:
        names, files = self._names.public, self._workspace
        env = {name: value.text(self._names.private, files) for name, value in command.env.items()}
        cwd = files.folder(command.cwd.text(names, files)) if command.cwd else files.root
        script = None
        if command.script is not None:
            script, values = command.script.render(names, files, spill=self._spill)
            env |= values
        argv = tuple(word.text(names, files) for word in command.argv)
        return Execution(cwd=cwd, script=script, argv=argv, env=env, secrets=self._secrets)

    def _spill(self, name: str, text: str) -> str:
        self._files += 1
        return private_file(self._spilled / f"{self._files}-{name}", text)


def _excerpt(text: str, offset: int) -> str:
    # The line of the place, and no more of it than a terminal line holds.
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    line = text[start : end if end >= 0 else len(text)]
    if len(line) > SHOWN_CHARACTERS:
        cut = max(0, offset - start - SHOWN_CHARACTERS // 2)
        line = f"...{line[cut : cut + SHOWN_CHARACTERS]}..."
    return line.strip()
