"""Raw data -> the values of model.py, as far as the data has the right shape, with all that is wrong on the way.

Knows files, durations, JSON Schemas and other pipelines, but not what names mean.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowcraft.core.document import Document
from flowcraft.pipeline.expr import Template
from flowcraft.pipeline.model import Each, Output, Pipeline, Repeat, Stage
from flowcraft.pipeline.reading.declared import declared_input, declared_schema
from flowcraft.pipeline.reading.included import Unusable, located
from flowcraft.pipeline.reading.material import Material, Place, Text, mapping, string, whole
from flowcraft.pipeline.reading.shape import MAX_NESTING, good_name, kind, stages
from flowcraft.pipeline.reading.sites import Level, Spot
from flowcraft.pipeline.reading.works import Works

Include = Callable[[Path], Pipeline | str | None]


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What `defaults` says, for every stage that does not say it itself."""

    params: Mapping[str, Any]
    models: tuple[Text, ...] = ()
    system: Text | None = None
    attempts: int | None = None
    retries: int | None = None
    timeout_s: float | None = None
    cache: bool | None = None


class Builder:
    """Builds one pipeline; `material` has the sites and complaints, `levels` every list of stages.

    `include` loads another pipeline; it gives None if that has problems of its own, text if it cannot be used.
    """

    def __init__(self, document: Document, path: Path, models: Collection[str] | None, include: Include) -> None:
        self.material = Material(document, path, models)
        self.levels: list[Level] = []
        self._works = Works(self.material)
        self._include = include
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
            budget=material.budget(data, []),
            description=string(data.get("description")),
        )

    def _read_defaults(self) -> _Defaults:
        data, place, material = mapping(self._data.get("defaults")), ["defaults"], self.material
        cache = data.get("cache")
        return _Defaults(
            params=material.params(data),
            models=material.models(data, list(place)),
            system=material.text(data, list(place), "system"),
            attempts=whole(data.get("attempts")),
            retries=whole(data.get("retry")),
            timeout_s=material.duration(data, list(place)),
            cache=cache if isinstance(cache, bool) else None,
        )

    def _listed(self, data: Mapping[str, Any], level: Level, names: frozenset[str], depth: int) -> tuple[Stage, ...]:
        """The stages of one list; `names` are those that the loops around it give."""
        self.levels.append(level)
        for number, raw in enumerate(stages(data, str(level.place[-1]))):
            above = level.stages[-1] if level.stages else None
            level.stages.append(Stage(id="", work=self._works.nothing))  # its own number, for the spots in it
            level.stages[number] = self._stage(mapping(raw), Spot(level, number, names), above, depth)
        return tuple(level.stages)

    def _stage(self, data: Mapping[str, Any], outer: Spot, above: Stage | None, depth: int) -> Stage:
        place = [*outer.level.place, outer.number or 0]
        material, default = self.material, self._defaults
        each = self._each(data, place, outer)
        own = outer.names | ({each.name, "index"} if each else set())
        spot = replace(outer, names=own | ({"loop"} if "repeat" in data else set()))
        of = kind(data) or "prompt"
        needs = data.get("needs")
        named = tuple(name for name in needs if isinstance(name, str)) if isinstance(needs, list) else None
        if named is None:
            named = (above.id,) if above else ()
        stage = Stage(
            id=string(data.get("id")),
            work=self._works.nothing,
            description=string(data.get("description")),
            needs=named,
            condition=material.expression(data.get("if"), [*place, "if"], "if", outer),
            each=each,
            output=self._output(data, place, spot),
            reads=material.globs(data, place, "reads"),
            writes=material.globs(data, place, "writes"),
            tolerant=data.get("on_error") == "continue",
            retries=_first(whole(data.get("retry")), default.retries),
            timeout_s=material.duration(data, place)
            or (default.timeout_s if of in ("prompt", "run", "python") else None),
            budget=material.budget(data, place),
            cache=_first(data.get("cache") if isinstance(data.get("cache"), bool) else None, default.cache),
            line=material.document.position(place)[0],
        )
        outer.level.stages[outer.number or 0] = stage
        return self._with_work(stage, data, place, spot, depth)

    def _with_work(self, stage: Stage, data: Mapping[str, Any], place: Place, spot: Spot, depth: int) -> Stage:
        of = kind(data)
        judging = spot
        if of == "stages":
            level = Level([*place, "stages"], spot.level, spot.number or 0)
            inner = self._listed(data, level, spot.names, depth + 1) if depth < MAX_NESTING else ()
            work: Any = self._works.group(inner)
            judging = Spot(level, None, spot.names)
        elif of == "uses":
            work = self._works.inclusion(data, place, spot, self._pipeline_at)
        elif of == "prompt" or of is None:
            work = self._prompt(data, place, spot)
        else:
            work = self._works.other(of, data, place, spot)
        judging = replace(judging, names=judging.names | {"output"})
        stage = replace(
            stage,
            work=work,
            repeat=self._repeat(data, place, judging),
            checks=self._works.checks(data, place, judging),
        )
        self._works.complete(stage, data, place)
        return stage

    def _prompt(self, data: Mapping[str, Any], place: Place, spot: Spot) -> Any:
        default, material = self._defaults, self.material
        return self._works.prompt(
            material.text(data, place, "prompt"),
            material.text(data, place, "system") or default.system,
            material.models(data, place) or default.models,
            spot,
            params={**default.params, **material.params(data)},
            attempts=_first(whole(data.get("attempts")), default.attempts),
        )

    def _each(self, data: Mapping[str, Any], place: Place, spot: Spot) -> Each | None:
        value = data.get("foreach")
        where = [*place, "foreach"]
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
            name=name if isinstance(name, str) else "item",
            most=100 if most is None else most,
            parallel=whole(details.get("parallel")),
        )

    def _repeat(self, data: Mapping[str, Any], place: Place, spot: Spot) -> Repeat | None:
        value = mapping(data.get("repeat"))
        until = self.material.expression(value.get("until"), [*place, "repeat", "until"], "until", spot)
        return Repeat(until=until, most=whole(value.get("max")) or 1) if until else None

    def _output(self, data: Mapping[str, Any], place: Place, spot: Spot) -> Output:
        value, where = data.get("output"), [*place, "output"]
        if value in ("json", "files"):
            return Output(format=value)
        if not isinstance(value, dict):
            return Output()
        save = value.get("save")
        template: Template | None = self.material.workspace_path(save, [*where, "save"], "save", spot)
        if "schema" not in value:
            return Output(save=template)
        folder, complaints = self.material.path.parent, self.material.complaints
        schema = declared_schema(value["schema"], [*where, "schema"], folder, complaints)
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


_TRIED = ("prompt", "run", "python")  # where a timeout is for each try
_TAKEN = ("inputs", "stages", "run", "loop", "output", "index")


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value
