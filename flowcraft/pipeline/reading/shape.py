"""The shape of a pipeline file: the kind of each stage is found first, then only that kind's keys are judged.

So a wrong key is told as what it is, never as "fits none of the alternatives". Stages of groups are judged
like those of the file.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from flowcraft.core.document import Document, Place
from flowcraft.core.judging.quick import Judge, Quick
from flowcraft.core.problems import Problem, nearest
from flowcraft.core.reading.syntax import cited
from flowcraft.core.resources import schema as shipped
from flowcraft.core.schema import check

KINDS = ("prompt", "run", "python", "approve", "uses", "stages")
FINAL_KINDS = ("prompt", "run", "python")
MAX_NESTING = 8  # groups in groups
_LISTS = ("stages", "finally")  # where stages stand

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NESTED_NOTE = "a stage at the end is one of prompt, run and python: put it under 'stages'"


def shape(document: Document) -> list[Problem]:
    """All problems of keys and types."""
    root = shipped("pipeline")
    data = document.data
    if isinstance(data, dict) and "llm" in data and not data.keys() & {"flowcraft", "stages"}:
        hint = "name a pipeline; settings are ./settings.yaml, or are named by --settings"
        return [document.problem([], "these are settings, not a pipeline", code="FC003", hint=hint)]
    wrong = [(place, stage) for place, stage in every_stage(data) if not _fits(stage) or _misplaced(stage, place)]
    own = [*_kinds(document, wrong), *_names(document, wrong)]
    found = [] if _judge("file")(data) else check(document, [], _definition("file"), root_schema=root)
    for place, stage in wrong:
        definition = _definition(_judged_as(stage)) if isinstance(stage, dict) else {"type": "object"}
        found += check(document, place, definition, root_schema=root, where=label(stage, place))
    # Ours say more about the same place.
    places = {(problem.line, problem.column) for problem in own}
    return own + [problem for problem in found if (problem.line, problem.column) not in places]


def stages(data: Any, key: str = "stages") -> list[Any]:
    """The stages as far as they are there."""
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def every_stage(data: Any) -> Iterator[tuple[Place, Any]]:
    """All stages of a file with their places, those of groups after their group."""
    for key in _LISTS:
        yield from _below(data, [], key, 0)


def _below(data: Any, place: Place, key: str, depth: int) -> Iterator[tuple[Place, Any]]:
    for index, stage in enumerate(stages(data, key)):
        here = [*place, key, index]
        yield here, stage
        if depth < MAX_NESTING and isinstance(stage, dict) and "stages" in stage:
            yield from _below(stage, here, "stages", depth + 1)


def kind(stage: Mapping[str, Any]) -> str | None:
    """The kind of a stage, if it has one."""
    for name in KINDS:
        if name in stage:
            return name
    return None


def label(stage: Any, place: Place) -> str:
    """A stage as messages call it."""
    name = stage.get("id") if isinstance(stage, dict) else None
    return f"stage {cited(name)}" if isinstance(name, str) and name else f"stage {int(place[-1]) + 1}"


def good_name(name: str) -> str:
    """The nearest name that is allowed."""
    found = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
    return (found if found[:1].isalpha() else f"stage_{found}".rstrip("_"))[:64]


def _fits(stage: Any) -> bool:
    """Whether there is nothing to say about a stage: it has one kind, and its keys and name are right."""
    of = kind(stage) if isinstance(stage, dict) else None
    return of is not None and _judge(of)(stage)


def _misplaced(stage: Any, place: Place) -> bool:
    """Whether a stage cannot stand where it does."""
    if len(place) == 2:
        return place[0] == "finally" and kind(stage) not in FINAL_KINDS
    return len(place) >= 2 * MAX_NESTING and "stages" in stage


@cache
def _definition(name: str) -> dict[str, Any]:
    """The schema of a kind, or of the file, without the stages in it, which are judged one by one."""
    root = shipped("pipeline")
    found = dict(root if name == "file" else root["$defs"][f"{name}_stage"])
    inner = {key: _without_items(found["properties"][key]) for key in _LISTS if key in found["properties"]}
    found["properties"] = {**found["properties"], **inner}
    if name != "file":  # foreign names are known to all kinds
        note = found["x-flowcraft"]
        foreign = {**root["$defs"]["stage"]["x-flowcraft"]["foreign"], **note.get("foreign", {})}
        found["x-flowcraft"] = {**note, "foreign": foreign}
    return found


@cache
def _judge(name: str) -> Judge:
    """Judges quickly by a definition; what it refuses jsonschema explains."""
    return Quick(shipped("pipeline")).judge(_definition(name))


def _without_items(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "items"}


def _kinds(document: Document, listed: list[tuple[Place, Any]]) -> Iterator[Problem]:
    for place, stage in listed:
        if not isinstance(stage, dict):
            continue
        found = [name for name in KINDS if name in stage]
        name = label(stage, place)
        if len(found) > 1:
            message = f"{name} has two kinds: {' and '.join(map(cited, found))}"
            yield document.problem([*place, found[1]], message, code="FC106", hint="make two stages of it", at="key")
        elif not found and _meant(stage) is None:
            hint = "give it a kind: prompt (asks a model), run (runs a command), python, approve, uses or stages"
            yield document.problem(place, f"{name} does nothing", code="FC105", hint=hint)
        elif found and place[0] == "finally" and found[0] not in FINAL_KINDS and len(place) == 2:
            message = f"{cited(found[0])} cannot be used in {name}"
            yield document.problem([*place, found[0]], message, code="FC107", hint=_NESTED_NOTE, at="key")
        elif "stages" in found and len(place) >= 2 * MAX_NESTING:
            message = f"{name} is nested deeper than {MAX_NESTING} groups"
            yield document.problem(place, message, code="FC002", hint="put the inner stages into a pipeline: uses")


def _meant(stage: Mapping[str, Any]) -> str | None:
    """The kind that a wrong key of a stage stands for."""
    known = _definition("prompt")
    foreign = known["x-flowcraft"]["foreign"]
    for key in stage:
        if foreign.get(key) in KINDS:
            return str(foreign[key])
        if key not in known["properties"] and key not in _all_keys():
            close = nearest(key, [*known["properties"], *KINDS])
            if close in KINDS:
                return close
    return None


@cache
def _all_keys() -> frozenset[str]:
    defs = shipped("pipeline")["$defs"]
    return frozenset(key for kind in KINDS for key in defs[f"{kind}_stage"]["properties"])


def _judged_as(stage: Mapping[str, Any]) -> str:
    return kind(stage) or _meant(stage) or ("run" if "env" in stage or "cwd" in stage else "prompt")


def _names(document: Document, listed: list[tuple[Place, Any]]) -> Iterator[Problem]:
    """Names with a wrong form, each with a good one."""
    data = document.data if isinstance(document.data, dict) else {}
    places: list[tuple[Place, str, str]] = []
    if isinstance(data.get("name"), str):
        places.append((["name"], data["name"], "value"))
    for place, stage in listed:
        if isinstance(stage, dict) and isinstance(stage.get("id"), str):
            places.append(([*place, "id"], stage["id"], "value"))
    for key in ("inputs", "outputs"):
        if isinstance(data.get(key), dict):
            places += [([key, name], name, "key") for name in data[key]]
    for where, name, at in places:
        if not _NAME.fullmatch(name):
            message = f"{cited(name)} is not a name: lower-case letters, digits and _ only"
            yield document.problem(where, message, code="FC103", hint=f"write: {good_name(name)}", at=at)
