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
        assert name == "final_stage"
        return

    assert slow.is_valid(value) is quick


def test_a_keyword_that_is_not_known_is_no_verdict() -> None:
    with pytest.raises(Unknown, match="oneOf"):
        Quick({}).judge({"oneOf": []})
