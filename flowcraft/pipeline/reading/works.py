"""What stages do, by kind, and what must hold for their results: raw data -> values of model.py.

FC112 inputs of a used pipeline     FC124 `output: files` where nothing may be written
FC128 `cache` of a command that does not say what it depends on
"""

from collections.abc import Callable, Mapping
from typing import Any

from flowcraft.core.document import Place
from flowcraft.core.errors import ExpressionError
from flowcraft.core.problems import did_you_mean
from flowcraft.core.schema import check_value
from flowcraft.pipeline.argv import advice, decided_by, uses_in
from flowcraft.pipeline.expr import Script, Template
from flowcraft.pipeline.expressions.references import from_results
from flowcraft.pipeline.model import (
    Approval,
    Check,
    Command,
    Function,
    Inclusion,
    Pipeline,
    Prompt,
    Stage,
    flat,
)
from flowcraft.pipeline.reading.material import Material, Text, mapping, string
from flowcraft.pipeline.reading.sites import Spot

_ATTEMPTS = 2


class Works:
    """Makes the work of stages from the material of one file."""

    nothing = Command()

    def __init__(self, material: Material) -> None:
        self._material = material

    def prompt(
        self,
        text: Text | None,
        system: Text | None,
        models: tuple[Text, ...],
        spot: Spot,
        *,
        params: Mapping[str, Any],
        attempts: int | None,
    ) -> Prompt:
        """A question to a model."""
        placed = self._material.placed
        ladder = (placed(model, "model", spot) for model in models)
        return Prompt(
            text=placed(text, "prompt", spot) or Template(""),
            system=placed(system, "system", spot),
            models=tuple(model for model in ladder if model),
            params=params,
            attempts=_ATTEMPTS if attempts is None else attempts,
        )

    def other(self, kind: str, data: Mapping[str, Any], place: Place, spot: Spot) -> Command | Function | Approval:
        """A command, a function or a gate."""
        if kind == "run":
            return self._command(data, place, spot)
        if kind == "approve":
            text = self._material.text(data.get("approve"), [*place, "approve"])
            return Approval(text=self._material.placed(text, "approve", spot) or Template(""))
        return Function(target=string(data.get("python")), arguments=self._arguments(data, place, spot))

    def inclusion(
        self,
        data: Mapping[str, Any],
        place: Place,
        spot: Spot,
        load: Callable[[str, Place], Pipeline | None],
    ) -> Inclusion | Command:
        """Another pipeline with its inputs."""
        arguments = self._arguments(data, place, spot)
        name = data.get("uses")
        found = load(name, [*place, "uses"]) if isinstance(name, str) and name else None
        if found is None:
            return self.nothing
        self._inputs(found, mapping(data.get("with")), arguments, place)
        return Inclusion(pipeline=found, arguments=arguments)

    def checks(self, data: Mapping[str, Any], place: Place, spot: Spot) -> tuple[Check, ...]:
        """What must hold for the result."""
        listed = data.get("check")
        found = enumerate(listed) if isinstance(listed, list) else ()
        return tuple(self._check(value, [*place, "check", number], spot) for number, value in found)

    def complete(self, stage: Stage, data: Mapping[str, Any], place: Place) -> None:
        """Complain of what does not go together."""
        at = self._material.complaints.at
        if stage.output.format == "files" and stage.kind == "prompt" and "writes" not in data:
            hint = "say where: writes: [src/**]"
            at([*place, "output"], f"'{stage.id}' gives files and may write none", "FC124", hint)
        elif stage.output.format == "files" and stage.kind == "prompt":
            for number, glob in enumerate(data["writes"] if isinstance(data["writes"], list) else ()):
                if isinstance(glob, str):
                    self._material.is_ours(glob, [*place, "writes", number])
        elif stage.output.format == "files":
            hint = "leave it out: writes says which files a command may write"
            at([*place, "output"], "only a prompt stage answers with files", "FC124", hint)
        if data.get("cache") is True and stage.kind in ("run", "python") and not ("reads" in data and "writes" in data):
            hint = "say what it depends on and makes: reads: [...], writes: [...]"
            at([*place, "cache"], f"what '{stage.id}' depends on is not known", "FC128", hint)

    def _command(self, data: Mapping[str, Any], place: Place, spot: Spot) -> Command:
        script, argv = self._program(data, place, "run", spot)
        env = self._environment(data, place, spot)
        cwd = self._material.workspace_path(data.get("cwd"), [*place, "cwd"], "cwd", spot)
        return Command(script=script, argv=argv, env=env, cwd=cwd)

    def _program(
        self, data: Mapping[str, Any], place: Place, key: str, spot: Spot
    ) -> tuple[Script | None, tuple[Template, ...]]:
        run = data.get("run")
        if isinstance(run, str) and run:
            script = Script(run)
            self._material.site(script, [*place, "run"], key, spot)
            return script, ()
        words = enumerate(run) if isinstance(run, list) else ()
        argv = tuple(self._material.template(word, [*place, "run", number], key, spot) for number, word in words)
        if isinstance(run, list) and any("${" in word.source for word in argv):
            self._is_data(argv, [*place, "run"])
        return None, argv

    def _is_data(self, argv: tuple[Template, ...], place: Place) -> None:
        """Complain of values in words that are more than data."""
        told = set()
        for use in uses_in(tuple(word.source for word in argv)):
            for number in use.values:
                word = argv[number]
                if number not in told and (use.kind == "code" or _is_result(word)):
                    told.add(number)
                    self._material.complaints.at([*place, number], use.message, "FC210", advice(use, word.source))

    def _environment(self, data: Mapping[str, Any], place: Place, spot: Spot) -> dict[str, Template]:
        env = {}
        for name, value in mapping(data.get("env")).items():
            env[name] = template = self._material.template(value, [*place, "env", name], "env", spot)
            use = decided_by(name) if "${" in template.source else None
            if use and _is_result(template):
                self._material.complaints.at([*place, "env", name], use.message, "FC210", advice(use, template.source))
        return env

    def _arguments(self, data: Mapping[str, Any], place: Place, spot: Spot) -> dict[str, Any]:
        given = mapping(data.get("with"))
        return {name: self._material.arguments(value, [*place, "with", name], spot) for name, value in given.items()}

    def _inputs(self, used: Pipeline, raw: Mapping[str, Any], arguments: Mapping[str, Any], place: Place) -> None:
        at = self._material.complaints.at
        known = {one.name: one for one in used.inputs}
        for name in raw:
            if name not in known:
                hint = did_you_mean(name, known) or f"'{used.name}' takes no inputs"
                at([*place, "with", name], f"'{used.name}' has no input '{name}'", "FC112", hint, at="key")
            elif all(template.is_static for template in flat(arguments[name])):
                reasons = check_value(raw[name], known[name].schema)
                self._material.complaints.each([*place, "with", name], _of_input(name, reasons), "FC112")
        for one in used.inputs:
            if one.required and one.name not in raw and not (one.secret and one.env):
                about = f" ({one.description})" if one.description else ""
                hint = f"with: {{{one.name}: ...}}"
                message = f"the input '{one.name}'{about} of '{used.name}' is missing"
                at([*place, "with" if raw else "uses"], message, "FC112", hint)

    def _check(self, value: Any, place: Place, spot: Spot) -> Check:
        material = self._material
        line = material.document.position(place)[0]
        if not isinstance(value, dict):
            text = value if isinstance(value, str) else None
            return Check(that=material.expression(text, place, "that", spot), line=line)
        command = None
        if "run" in value:
            script, argv = self._program(value, place, "check", spot)
            command = Command(script=script, argv=argv)
        texts = {}
        for key in ("ask", "model", "say"):
            found = value.get(key)
            texts[key] = (
                material.template(found, [*place, key], key, spot) if isinstance(found, str) and found else None
            )
        if isinstance(value.get("model"), str):
            material.known_model(value["model"], [*place, "model"])
        that = material.expression(value.get("that"), [*place, "that"], "that", spot)
        return Check(that=that, run=command, line=line, **texts)


def _is_result(template: Template) -> bool:
    try:
        return from_results(template.references)
    except ExpressionError:  # told where templates are read
        return False


def _of_input(name: str, reasons: list[str]) -> list[str]:
    return [
        one.replace("the answer", f"'{name}'", 1) if one.startswith("the answer") else f"'{name}': {one}"
        for one in reasons
    ]
