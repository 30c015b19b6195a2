"""Raw data -> the values of model.py, as far as the data has the right shape, with all that is wrong on the way.

What has a wrong shape is left out here: shape.py has told it. Knows files, durations and JSON Schemas,
but not what names mean.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowcraft.core.document import Document
from flowcraft.core.problems import did_you_mean
from flowcraft.pipeline.complaints import Complaints
from flowcraft.pipeline.declared import declared_input, declared_schema
from flowcraft.pipeline.expr import Expression, Script, Template
from flowcraft.pipeline.included import TextFile, Unusable, escapes, located, read
from flowcraft.pipeline.model import Command, Output, Pipeline, Prompt, Stage
from flowcraft.pipeline.shape import good_name, kind, stages
from flowcraft.pipeline.sites import Site

_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)
_TIERS = ("cheap", "expensive")

Place = list[str | int]


@dataclass(frozen=True, slots=True)
class _Text:
    """A template and where it came from."""

    template: Template
    path: Place
    file: TextFile | None = None


class Builder:
    """Builds one pipeline; `complaints` and `sites` grow on the way."""

    def __init__(self, document: Document, path: Path, models: Collection[str] | None) -> None:
        self.document = document
        self.complaints = Complaints(document)
        self.sites: list[Site] = []
        self._path = path
        self._models = models
        self._files: dict[str, TextFile | None] = {}
        self._data: dict[str, Any] = document.data if isinstance(document.data, dict) else {}
        self._defaults = _map(self._data.get("defaults"))

    def pipeline(self) -> Pipeline:
        """The pipeline; only to be used if there are no problems."""
        name = self._data.get("name")
        default_params = self._params(self._defaults)
        default_timeout = self._duration(self._defaults, ["defaults"])
        default_system = self._text(self._defaults, ["defaults"], "system")
        default_model = self._model(self._defaults, ["defaults"])
        built: list[Stage] = []
        for index, data in enumerate(stages(self._data)):
            data = _map(data)
            timeout_s = self._duration(data, ["stages", index]) or default_timeout
            if kind(data) == "run":
                work: Prompt | Command = self._command(data, index)
            else:
                system = self._text(data, ["stages", index], "system") or default_system
                model = self._model(data, ["stages", index]) or default_model
                work = self._prompt(data, index, system, model, {**default_params, **self._params(data)})
            built.append(self._stage(data, index, work, timeout_s, built[-1] if built else None))
        return Pipeline(
            name=name if isinstance(name, str) else good_name(self._path.stem),
            file=self._path,
            stages=tuple(built),
            inputs=tuple(
                declared_input(name, data, self.complaints) for name, data in _map(self._data.get("inputs")).items()
            ),
            outputs=self._outputs(),
            description=_string(self._data.get("description")),
        )

    def _stage(
        self, data: Mapping[str, Any], index: int, work: Prompt | Command, timeout_s: float | None, above: Stage | None
    ) -> Stage:
        needs = data.get("needs")
        if isinstance(needs, list):
            named = tuple(name for name in needs if isinstance(name, str))
        else:
            named = (above.id,) if above else ()
        return Stage(
            id=_string(data.get("id")),
            work=work,
            description=_string(data.get("description")),
            needs=named,
            condition=self._condition(data, index),
            output=self._output(data, index),
            timeout_s=timeout_s,
            line=self.document.position(["stages", index])[0],
        )

    def _condition(self, data: Mapping[str, Any], index: int) -> Expression | None:
        value = data.get("if")
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str) or not value:
            return None
        expression = Expression(value)
        self.sites.append(Site(expression, self.document, ["stages", index, "if"], "if", index))
        return expression

    def _prompt(
        self,
        data: Mapping[str, Any],
        index: int,
        system: "_Text | None",
        model: "_Text | None",
        params: Mapping[str, Any],
    ) -> Prompt:
        prompt = self._text(data, ["stages", index], "prompt")
        for key, text in (("prompt", prompt), ("system", system), ("model", model)):
            if text:
                self.sites.append(Site(text.template, self.document, text.path, key, index, text.file))
        return Prompt(
            text=prompt.template if prompt else Template(""),
            system=system.template if system else None,
            model=model.template if model else None,
            params=params,
        )

    def _command(self, data: Mapping[str, Any], index: int) -> Command:
        place: Place = ["stages", index]
        run, cwd = data.get("run"), data.get("cwd")
        script = Script(run) if isinstance(run, str) else None
        if script:
            self.sites.append(Site(script, self.document, [*place, "run"], "run", index))
        words = run if isinstance(run, list) else []
        argv = tuple(self._template(word, [*place, "run", number], "run", index) for number, word in enumerate(words))
        env = {
            name: self._template(value, [*place, "env", name], "env", index)
            for name, value in _map(data.get("env")).items()
        }
        folder = self._workspace_path(cwd, [*place, "cwd"], "cwd", index) if isinstance(cwd, str) else None
        return Command(script=script, argv=argv, env=env, cwd=folder)

    def _output(self, data: Mapping[str, Any], index: int) -> Output:
        value = data.get("output")
        place: Place = ["stages", index, "output"]
        if not isinstance(value, dict):
            return Output(format="json" if value == "json" else "text")
        save = value.get("save")
        template = self._workspace_path(save, [*place, "save"], "save", index) if isinstance(save, str) else None
        if "schema" not in value:
            return Output(save=template)
        schema = declared_schema(value["schema"], [*place, "schema"], self._path.parent, self.complaints)
        return Output(format="json", schema=schema, save=template)

    def _outputs(self) -> Mapping[str, Template]:
        return {
            name: self._template(value, ["outputs", name], "outputs", None)
            for name, value in _map(self._data.get("outputs")).items()
        }

    def _text(self, data: Mapping[str, Any], place: Place, key: str) -> "_Text | None":
        value = data.get(key)
        if isinstance(value, str) and value:
            return _Text(Template(value), [*place, key])
        if not isinstance(value, dict) or not isinstance(value.get("file"), str):
            return None
        path = [*place, key, "file"]
        file = self._file(value["file"], path)
        return _Text(Template(file.text), path, file) if file else None

    def _file(self, name: str, place: Place) -> TextFile | None:
        try:
            if name not in self._files:
                self._files[name] = read(located(self._path.parent, name), name)
        except Unusable as error:
            self.complaints.at(place, str(error), error.code, error.hint)
            return None
        return self._files[name]

    def _model(self, data: Mapping[str, Any], place: Place) -> "_Text | None":
        name = data.get("model")
        if not isinstance(name, str) or not name:
            return None
        known = self._models
        fixed = "${" not in name and name not in _TIERS and "/" not in name
        if fixed and known is not None and name not in known:
            self.complaints.at(
                [*place, "model"], f"there is no model '{name}'", "FC129", did_you_mean(name, [*known, *_TIERS])
            )
        return _Text(Template(name), [*place, "model"])

    def _params(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {name.removeprefix("x-"): value for name, value in _map(data.get("params")).items()}

    def _duration(self, data: Mapping[str, Any], place: Place) -> float | None:
        value = data.get("timeout")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
        if match is None:
            return None
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        found = hours * 3600 + minutes * 60 + seconds
        if not found:
            self.complaints.at(
                [*place, "timeout"], f"{value} is no time at all", "FC120", "leave timeout out for the default"
            )
        return float(found)

    def _template(self, value: Any, place: Place, key: str, index: int | None) -> Template:
        template = Template(_string(value) if isinstance(value, str) else _literal(value))
        self.sites.append(Site(template, self.document, place, key, index))
        return template

    def _workspace_path(self, value: str, place: Place, key: str, index: int) -> Template:
        if "${" not in value and escapes(value):
            hint = "use a path relative to the workspace, without '..'"
            self.complaints.at(place, f"{value} leaves the workspace", "FC131", hint)
        return self._template(value, place, key, index)


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _literal(value: Any) -> str:
    """A number or boolean as a template that keeps its type."""
    if isinstance(value, bool):
        return f"${{{{ {str(value).lower()} }}}}"
    return f"${{{{ {value} }}}}" if isinstance(value, (int, float)) else ""
