"""Raw data -> the values of model.py, as far as the data has the right shape, with all that is wrong on the way.

Knows files, durations, JSON Schemas and other pipelines, but not what names mean.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowcraft.core.document import Document, Place
from flowcraft.pipeline.expr import Template
from flowcraft.pipeline.model import Each, Group, Output, Pipeline, Prompt, Repeat, Stage, Work
from flowcraft.pipeline.reading.declared import Schemas, declared_input
from flowcraft.pipeline.reading.included import Unusable, located
from flowcraft.pipeline.reading.material import Material, Text, mapping, string, whole
from flowcraft.pipeline.reading.shape import KINDS, MAX_NESTING, good_name, kind, stages
from flowcraft.pipeline.reading.sites import Level, Spot
from flowcraft.pipeline.reading.works import Works
from flowcraft.pipeline.source import Source, Where

_TRIED = ("prompt", "run", "python")  # where a timeout is for each try
_TAKEN = ("inputs", "stages", "run", "loop", "output", "index")

Include = Callable[[Path], Pipeline | str | None]
# The value of a key, its place, and the spot of its templates -> a field of Stage.
_Reader = Callable[[Any, Place, Spot], Any]


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What `defaults` says, for every stage that does not say it itself; `fields` of Stage are by kind."""

    params: Mapping[str, Any]
    models: tuple[Text, ...]
    system: Text | None
    attempts: int | None
    fields: Mapping[str, Mapping[str, Any]]


class Builder:
    """Builds one pipeline; `material` has the sites and complaints, `levels` every list of stages.

    `include` loads another pipeline; it gives None if that has problems of its own, text if it cannot be used.
    """

    def __init__(self, document: Document, path: Path, models: Collection[str] | None, include: Include) -> None:
        self.material = Material(document, path, models)
        self.levels: list[Level] = []
        self._works = Works(self.material)
        self._schemas = Schemas(path.parent, self.material.complaints)
        self._readers = self._every_reader()
        self._include = include
        self._source = Source(document, self.material.named_texts)
        self._data: dict[str, Any] = mapping(document.data)
        self._defaults = self._read_defaults()

    def pipeline(self) -> Pipeline:
        """The pipeline; only to be used if there are no problems."""
        data, material = self._data, self.material
        name = data.get("name")
        inputs = tuple(
            declared_input(name, one, material.complaints) for name, one in mapping(data.get("inputs")).items()
        )
        main = Level(["stages"])
        built = self._listed(data, main, frozenset(), 0)
        finals = self._listed(data, Level(["finally"], main, len(built)), frozenset(), 0)
        outputs = {
            name: material.template(value, ["outputs", name], "outputs", Spot(main))
            for name, value in mapping(data.get("outputs")).items()
        }
        return Pipeline(
            name=name if isinstance(name, str) else good_name(material.path.stem),
            file=material.path,
            stages=built,
            finals=finals,
            inputs=inputs,
            outputs=outputs,
            budget=material.budget(data.get("budget"), ["budget"]),
            description=string(data.get("description")),
            where=Where(self._source),
        )

    def _read_defaults(self) -> _Defaults:
        data, material = mapping(self._data.get("defaults")), self.material
        fields = {"retries": whole(data.get("retry")), "cache": _boolean(data.get("cache"))}
        tried = {**fields, "timeout_s": material.duration(data.get("timeout"), ["defaults", "timeout"])}
        return _Defaults(
            params=material.params(data.get("params")),
            models=material.models(data.get("model"), ["defaults", "model"]),
            system=material.text(data.get("system"), ["defaults", "system"]),
            attempts=whole(data.get("attempts")),
            fields={kind: tried if kind in _TRIED else fields for kind in KINDS},
        )

    def _listed(self, data: Mapping[str, Any], level: Level, names: frozenset[str], depth: int) -> tuple[Stage, ...]:
        """The stages of one list; `names` are those that the loops around it give."""
        self.levels.append(level)
        for number, raw in enumerate(stages(data, str(level.place[-1]))):
            level.stages.append(self._stage(mapping(raw), Spot(level, number, names), number, depth))
        return tuple(level.stages)

    def _stage(self, data: Mapping[str, Any], outer: Spot, number: int, depth: int) -> Stage:
        place = [*outer.level.place, number]
        each = self._each(data["foreach"], [*place, "foreach"], outer) if "foreach" in data else None
        spot = outer.knowing(_item(data["foreach"]), "index") if "foreach" in data else outer
        if "repeat" in data:
            spot = spot.knowing("loop")
        of = kind(data) or "prompt"
        details = self._details(data, place, spot, outer)
        work, judging = self._work(of, data, place, spot, depth)
        stage = Stage(
            id=string(data.get("id")),
            work=work,
            needs=_needs(data, outer.level.stages),
            regardless=outer.level.place == ["finally"] and not isinstance(data.get("needs"), list),
            each=each,
            line=self.material.document.position(place)[0],
            where=Where(self._source, tuple(place)),
            **{**self._defaults.fields[of], **details},
            **(self._judged(data, place, judging) if "repeat" in data or "check" in data else {}),
        )
        self._works.complete(stage, data, place)
        return stage

    def _details(self, data: Mapping[str, Any], place: Place, spot: Spot, outer: Spot) -> dict[str, Any]:
        """The fields of Stage that do not depend on its kind, as far as the file names them."""
        found: dict[str, Any] = {}
        for key, value in data.items():
            if key in self._readers:
                field, read = self._readers[key]
                found[field] = read(value, [*place, key], outer if key == "if" else spot)
        return found

    def _every_reader(self) -> dict[str, tuple[str, _Reader]]:
        """How the keys of a stage become its fields."""
        material = self.material
        return {
            "description": ("description", lambda value, _place, _spot: string(value)),
            "if": ("condition", lambda value, place, spot: material.expression(value, place, "if", spot)),
            "output": ("output", self._output),
            "reads": ("reads", lambda value, place, _spot: material.globs(value, place)),
            "writes": ("writes", lambda value, place, _spot: material.globs(value, place)),
            "on_error": ("tolerant", lambda value, _place, _spot: value == "continue"),
            "retry": ("retries", lambda value, _place, _spot: whole(value)),
            "timeout": ("timeout_s", lambda value, place, _spot: material.duration(value, place)),
            "budget": ("budget", lambda value, place, _spot: material.budget(value, place)),
            "cache": ("cache", lambda value, _place, _spot: _boolean(value)),
        }

    def _work(self, of: str, data: Mapping[str, Any], place: Place, spot: Spot, depth: int) -> tuple[Work, Spot]:
        """What a stage does, and where the result of it is judged."""
        if of == "prompt":
            return self._prompt(data, place, spot), spot
        if of == "stages":
            level = Level([*place, "stages"], spot.level, spot.number or 0)
            inner = self._listed(data, level, spot.names, depth + 1) if depth < MAX_NESTING else ()
            return Group(stages=inner), Spot(level, None, spot.names)
        if of == "uses":
            return self._works.inclusion(data, place, spot, self._pipeline_at), spot
        return self._works.other(of, data, place, spot), spot

    def _judged(self, data: Mapping[str, Any], place: Place, spot: Spot) -> dict[str, Any]:
        """What must hold for a result."""
        judging = spot.knowing("output")
        repeat = self._repeat(data.get("repeat"), [*place, "repeat"], judging)
        return {"repeat": repeat, "checks": self._works.checks(data, place, judging)}

    def _prompt(self, data: Mapping[str, Any], place: Place, spot: Spot) -> Prompt:
        default, material = self._defaults, self.material
        return self._works.prompt(
            material.text(data.get("prompt"), [*place, "prompt"]),
            material.text(data["system"], [*place, "system"]) if "system" in data else default.system,
            material.models(data["model"], [*place, "model"]) if "model" in data else default.models,
            spot,
            params={**default.params, **material.params(data["params"])} if "params" in data else default.params,
            attempts=whole(data["attempts"]) if "attempts" in data else default.attempts,
        )

    def _each(self, value: Any, where: Place, spot: Spot) -> Each | None:
        details = value if isinstance(value, dict) else {}
        if isinstance(value, dict):
            value, where = value.get("in"), [*where, "in"]
        if isinstance(value, str) and value:
            items: Any = self.material.expression(value, where, "foreach", spot)
        elif isinstance(value, list):
            items = self.material.arguments(value, where, spot)
        else:
            return None
        name, most = details.get("as"), whole(details.get("max"))
        if name in _TAKEN:
            self.material.complaints.at([*where[:-1], "as"], f"'{name}' has a meaning already", "FC126", "as: path")
        return Each(
            items=items,
            name=_item(details),
            most=100 if most is None else most,
            parallel=whole(details.get("parallel")),
        )

    def _repeat(self, data: Any, place: Place, spot: Spot) -> Repeat | None:
        value = mapping(data)
        until = self.material.expression(value.get("until"), [*place, "until"], "until", spot)
        return Repeat(until=until, most=whole(value.get("max")) or 1) if until else None

    def _output(self, value: Any, where: Place, spot: Spot) -> Output:
        if value in ("json", "files"):
            return Output(format=value)
        if not isinstance(value, dict):
            return Output()
        save = value.get("save")
        template: Template | None = self.material.workspace_path(save, [*where, "save"], "save", spot)
        if isinstance(save, str):
            self.material.is_ours(save, [*where, "save"])
        if "schema" not in value:
            return Output(save=template)
        schema = self._schemas.read(value["schema"], [*where, "schema"])
        return Output(format="json", schema=schema, save=template)

    def _pipeline_at(self, name: str, place: Place) -> Pipeline | None:
        try:
            found = located(self.material.path.parent, name)
        except Unusable as error:
            self.material.complaints.at(place, str(error), error.code, error.hint)
            return None
        used = self._include(found)
        if isinstance(used, str):
            hint = "a pipeline cannot use itself: repeat is for loops"
            self.material.complaints.at(place, used, "FC111", hint)
            return None
        return used


def _item(loop: Any) -> str:
    """The name of an item, also where the loop itself is wrong."""
    name = loop.get("as") if isinstance(loop, dict) else None
    return name if isinstance(name, str) else "item"


def _needs(data: Mapping[str, Any], above: Sequence[Stage]) -> tuple[str, ...]:
    needs = data.get("needs")
    if isinstance(needs, list):
        return tuple(name for name in needs if isinstance(name, str))
    return (above[-1].id,) if above else ()


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
