"""The shape of a pipeline file: the kind of each stage is found first, then only that kind's keys are judged.

So a wrong key is told as what it is, never as "fits none of the alternatives".
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from flowcraft.core.document import Document
from flowcraft.core.problems import Problem, nearest
from flowcraft.core.resources import schema as shipped
from flowcraft.core.schema import check
from flowcraft.core.syntax import cited

KINDS = ("prompt", "run")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def shape(document: Document) -> list[Problem]:
    """All problems of keys and types."""
    root = shipped("pipeline")
    own = [*_kinds(document), *_names(document)]
    found = check(document, [], _outline(), root_schema=root)
    for index, stage in enumerate(stages(document.data)):
        if isinstance(stage, dict):
            definition = root["$defs"][f"{_judged_as(stage)}_stage"]
            found += check(document, ["stages", index], definition, root_schema=root, where=label(stage, index))
        else:
            found += check(document, ["stages", index], {"type": "object"}, where=label(stage, index))
    # Ours say more about the same place.
    places = {(problem.line, problem.column) for problem in own}
    return own + [problem for problem in found if (problem.line, problem.column) not in places]


def stages(data: Any) -> list[Any]:
    """The stages as far as they are there."""
    found = data.get("stages") if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def kind(stage: Mapping[str, Any]) -> str | None:
    """The kind of a stage, if it has one."""
    return next((name for name in KINDS if name in stage), None)


def label(stage: Any, index: int) -> str:
    """A stage as messages call it."""
    name = stage.get("id") if isinstance(stage, dict) else None
    return f"stage {cited(name)}" if isinstance(name, str) and name else f"stage {index + 1}"


def good_name(name: str) -> str:
    """The nearest name that is allowed."""
    found = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
    return (found if found[:1].isalpha() else f"stage_{found}".rstrip("_"))[:64]


@cache
def _outline() -> dict[str, Any]:
    """The schema of the file without that of its stages, which are judged one by one."""
    root = shipped("pipeline")
    plain = {key: value for key, value in root["properties"]["stages"].items() if key != "items"}
    return {**root, "properties": {**root["properties"], "stages": plain}}


def _kinds(document: Document) -> Iterator[Problem]:
    for index, stage in enumerate(stages(document.data)):
        if not isinstance(stage, dict):
            continue
        found = [name for name in KINDS if name in stage]
        if len(found) > 1:
            message = f"{label(stage, index)} has two kinds: {' and '.join(map(cited, found))}"
            place: list[str | int] = ["stages", index, found[1]]
            yield document.problem(place, message, code="FC106", hint="make two stages of it", at="key")
        elif not found and _meant(stage) is None and not _later(stage):
            message = f"{label(stage, index)} does nothing"
            hint = "give it a kind: prompt (asks a model) or run (runs a command)"
            yield document.problem(["stages", index], message, code="FC105", hint=hint)


def _later(stage: Mapping[str, Any]) -> bool:
    return any(key in stage for key in ("python", "approve", "uses", "stages"))


def _meant(stage: Mapping[str, Any]) -> str | None:
    """The kind that a wrong key of a stage stands for."""
    note = shipped("pipeline")["$defs"]["prompt_stage"]
    foreign = note["x-flowcraft"]["foreign"]
    for key in stage:
        if foreign.get(key) in KINDS:
            return str(foreign[key])
        if key not in note["properties"] and (close := nearest(key, [*note["properties"], *KINDS])) in KINDS:
            return close
    return None


def _judged_as(stage: Mapping[str, Any]) -> str:
    return kind(stage) or _meant(stage) or ("run" if "env" in stage or "cwd" in stage else "prompt")


def _names(document: Document) -> Iterator[Problem]:
    """Names with a wrong form, each with a good one."""
    data = document.data if isinstance(document.data, dict) else {}
    places: list[tuple[list[str | int], str, str]] = []
    if isinstance(data.get("name"), str):
        places.append((["name"], data["name"], "value"))
    for index, stage in enumerate(stages(data)):
        if isinstance(stage, dict) and isinstance(stage.get("id"), str):
            places.append((["stages", index, "id"], stage["id"], "value"))
    for key in ("inputs", "outputs"):
        if isinstance(data.get(key), dict):
            places += [([key, name], name, "key") for name in data[key]]
    for place, name, at in places:
        if not _NAME.fullmatch(name):
            message = f"{cited(name)} is not a name: lower-case letters, digits and _ only"
            yield document.problem(place, message, code="FC103", hint=f"write: {good_name(name)}", at=at)
