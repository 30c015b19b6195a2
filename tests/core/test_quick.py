"""The quick judge gives the verdict of jsonschema, for every shape that the schemas of ours can meet."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry

from flowcraft.core.judging.quick import Quick, Unknown
from flowcraft.core.resources import schema

ROOT = schema("pipeline")
QUICK = Quick(ROOT)
KEYS = sorted(
    {key for name in ("prompt", "run", "stages", "uses") for key in ROOT["$defs"][f"{name}_stage"]["properties"]}
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 30)
    | st.floats(0, 3)
    | st.sampled_from(["a", "5m", "soon", "", "json", "1.5M"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KEYS, "in", "max", "until", "usd", "time", "file", "schema", "x-a"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ROOT["$defs"])), VALUES)
def test_it_agrees_with_jsonschema(name: str, value: Any) -> None:
    definition = ROOT["$defs"][name]
    slow = Draft202012Validator({**definition, "$defs": ROOT["$defs"]}, registry=Registry())
    try:
        quick = QUICK.judge(definition)(value)
    except Unknown:
        assert name in ("stage", "new_stage", "final_stage", "stages_stage")  # shape.py leaves out the stages inside
        return

    assert slow.is_valid(value) is quick


@pytest.mark.parametrize("value", [1, 1.0, True, "1", None, [1]])
@pytest.mark.parametrize("schema", [{"const": 1}, {"enum": [1, "a"]}, {"enum": [True]}, {"const": 0.0}])
def test_it_takes_for_equal_what_jsonschema_does(schema: dict[str, Any], value: Any) -> None:
    assert Quick(schema).judge(schema)(value) is Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": []},
        {"pattern": r"^\d+$"},
        {"patternProperties": {"^a$|^b$": True}},
        {"enum": [[1]]},
        {"const": {"a": 1}},
    ],
)
def test_what_it_cannot_judge_like_jsonschema_is_no_verdict(schema: dict[str, Any]) -> None:
    with pytest.raises(Unknown):
        Quick({}).judge(schema)


def test_schemas_that_refer_to_one_without_a_verdict_have_none_either() -> None:
    one: dict[str, Any] = {"properties": {"b": {"$ref": "#/$defs/other"}, "c": {"oneOf": []}}}
    other: dict[str, Any] = {"properties": {"a": {"$ref": "#/$defs/one"}}}
    quick = Quick({"$defs": {"one": one, "other": other}})
    for definition in (one, other, other["properties"]["a"]):
        with pytest.raises(Unknown):
            quick.judge(definition)
