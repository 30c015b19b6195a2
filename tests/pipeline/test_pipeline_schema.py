"""schemas/pipeline.schema.json: a schema for editors that gives the verdict of the loader."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry

from flowcraft.core import document
from flowcraft.core.errors import PipelineError
from flowcraft.core.resources import schema
from flowcraft.pipeline.reading.declared import TYPES
from flowcraft.pipeline.reading.shape import KINDS, shape

HERE = Path(__file__).parent
SCHEMA = schema("pipeline")
FILES = sorted([*(HERE / "errors").glob("*.yaml"), *(HERE / "examples").glob("*.yaml")])

SHAPES = [
    {"stages": [{"id": "a", "prompt": "x"}]},
    {"stages": [{"id": "a", "prompt": "x", "x-note": 1}], "x-more": {}},
    {"stages": []},
    {"stages": {}},
    {"stages": None},
    {},
    {"stages": ["a"]},
    {"stages": [{}]},
    {"stages": [{"id": "a"}]},
    {"stages": [{"prompt": "x"}]},
    {"stages": [{"id": "a", "prompt": "x", "run": "y"}]},
    {"stages": [{"id": "a", "prompt": "x", "cwd": "y"}]},
    {"stages": [{"id": "a", "run": "x", "model": "cheap"}]},
    {"stages": [{"id": "a", "run": "x", "system": "s"}]},
    {"stages": [{"id": "a", "run": ["x", 3, True]}]},
    {"stages": [{"id": "a", "run": []}]},
    {"stages": [{"id": "a", "run": [["x"]]}]},
    {"stages": [{"id": "a", "run": ""}]},
    {"stages": [{"id": "a", "prompt": {"file": "x"}}]},
    {"stages": [{"id": "a", "prompt": {"fil": "x"}}]},
    {"stages": [{"id": "a", "prompt": {}}]},
    {"stages": [{"id": "a", "prompt": 3}]},
    {"stages": [{"id": "A", "prompt": "x"}]},
    {"stages": [{"id": 3, "prompt": "x"}]},
    {"stages": [{"id": "a", "prompt": "x", "needs": "b"}]},
    {"stages": [{"id": "a", "prompt": "x", "needs": ["b", "b"]}]},
    {"stages": [{"id": "a", "prompt": "x", "if": 3}]},
    {"stages": [{"id": "a", "prompt": "x", "if": True}]},
    {"stages": [{"id": "a", "prompt": "x", "output": "files"}]},
    {"stages": [{"id": "a", "prompt": "x", "output": {}}]},
    {"stages": [{"id": "a", "prompt": "x", "output": {"schema": {"type": "object"}}}]},
    {"stages": [{"id": "a", "prompt": "x", "output": {"schema": {"file": 3}}}]},
    {"stages": [{"id": "a", "prompt": "x", "output": {"schema": {"file": "x"}, "save": "y"}}]},
    {"stages": [{"id": "a", "prompt": "x", "output": {"schema": "x"}}]},
    {"stages": [{"id": "a", "prompt": "x", "output": {"save": 3}}]},
    {"stages": [{"id": "a", "prompt": "x", "timeout": "5m"}]},
    {"stages": [{"id": "a", "prompt": "x", "timeout": 0}]},
    {"stages": [{"id": "a", "prompt": "x", "timeout": "5"}]},
    {"stages": [{"id": "a", "prompt": "x", "timeout": ""}]},
    {"stages": [{"id": "a", "prompt": "x", "model": ["cheap"]}]},
    {"stages": [{"id": "a", "prompt": "x", "params": {"temperature": 3}}]},
    {"stages": [{"id": "a", "prompt": "x", "params": {"x-any": 3}}]},
    {"stages": [{"id": "a", "prompt": "x", "params": {"any": 3}}]},
    {"stages": [{"id": "a", "prompt": "x", "foreach": [1]}]},
    {"stages": [{"id": "a", "run": "x", "env": {"A": "b", "B": 1}}]},
    {"stages": [{"id": "a", "run": "x", "env": {"A-B": "b"}}]},
    {"stages": [{"id": "a", "run": "x"}], "inputs": {"a": "string", "b": {"type": "integer", "default": 1}}},
    {"stages": [{"id": "a", "run": "x"}], "inputs": {"a": "text"}},
    {"stages": [{"id": "a", "run": "x"}], "inputs": {"A": "string"}},
    {"stages": [{"id": "a", "run": "x"}], "inputs": {"a": {"type": ["string", "nul"]}}},
    {"stages": [{"id": "a", "run": "x"}], "inputs": {"a": {"secret": "yes"}}},
    {"stages": [{"id": "a", "run": "x"}], "inputs": ["a"]},
    {"stages": [{"id": "a", "run": "x"}], "outputs": {"a": 1, "b": "${{ x }}"}},
    {"stages": [{"id": "a", "run": "x"}], "outputs": {"a": []}},
    {"stages": [{"id": "a", "run": "x"}], "defaults": {"timeout": 5, "model": "cheap"}},
    {"stages": [{"id": "a", "run": "x"}], "defaults": {"needs": []}},
    {"stages": [{"id": "a", "run": "x"}], "name": "Bad Name"},
    {"stages": [{"id": "a", "run": "x"}], "flowcraft": 2},
    {"stages": [{"id": "a", "run": "x"}], "flowcraft": True},
    {"stages": [{"id": "a", "run": "x"}], "steps": []},
]


def parts(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All schemas of keys, with their names."""
    if isinstance(value, dict):
        for key, inner in value.get("properties", {}).items():
            yield f"{name}.{key}", inner
        for key, inner in value.items():
            if key not in ("examples", "default", "x-flowcraft"):
                yield from parts(inner, f"{name}.{key}")


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    reference = part.get("$ref", "").removeprefix("#/$defs/")
    return {**SCHEMA["$defs"][reference], **part} if reference else part


def valid(data: Any) -> bool:
    return bool(Draft202012Validator(SCHEMA, registry=Registry()).is_valid(data))


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_every_key_is_described_for_editors() -> None:
    for name, part in parts(SCHEMA):
        assert resolved(part).get("description", "").endswith("."), name
        assert resolved(part).get("examples") or name.endswith(".default"), name


def test_every_example_of_it_is_valid() -> None:
    for name, part in parts(SCHEMA):
        validator = Draft202012Validator({**part, "$defs": SCHEMA["$defs"]}, registry=Registry())
        for example in resolved(part).get("examples", []):
            assert validator.is_valid(example), (name, example)


def test_each_kind_has_a_definition_of_its_own() -> None:
    for kind in KINDS:
        assert kind in SCHEMA["$defs"][f"{kind}_stage"]["properties"]


def test_a_stage_without_a_kind_is_wrong_and_offered_all_of_them() -> None:
    # yaml-language-server takes the keys that it completes from the branch that a stage is in.
    assert set(KINDS) < set(SCHEMA["$defs"]["new_stage"]["properties"])
    for kind in KINDS:
        assert {"required": [kind]} in SCHEMA["$defs"]["new_stage"]["anyOf"]
    assert not valid({"flowcraft": 1, "stages": [{"id": "a"}]})


def test_foreign_and_later_names_are_no_keys() -> None:
    for name in ("prompt_stage", "run_stage", "defaults", "params", "output"):
        definition = SCHEMA["$defs"][name]
        note = definition["x-flowcraft"]
        others = [*note.get("foreign", ()), *note.get("later", ()), *note.get("elsewhere", ())]
        assert set(others).isdisjoint(definition["properties"]), name
        assert len(others) == len(set(others)), name


def test_the_types_of_inputs_are_those_that_are_checked() -> None:
    assert sorted(SCHEMA["$defs"]["type_name"]["enum"]) == sorted(TYPES)


@pytest.mark.parametrize("data", SHAPES, ids=lambda data: json.dumps(data)[:60])
def test_schema_and_loader_agree_on_a_shape(data: dict[str, Any]) -> None:
    data = {"flowcraft": 1, **data}
    found = shape(document.parse(json.dumps(data), "p.yaml"))

    assert valid(data) is (not found), found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_schema_and_loader_agree_on_a_file(file: Path) -> None:
    try:
        found = document.load(file, error=PipelineError)
    except PipelineError:
        return

    assert valid(found.data) is (not shape(found))


def test_both_verdicts_occur() -> None:
    verdicts = [valid({"flowcraft": 1, **data}) for data in SHAPES]

    assert 12 < sum(verdicts) < len(verdicts) - 30
