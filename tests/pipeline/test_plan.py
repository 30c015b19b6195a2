"""The order of the stages, and the values of the inputs of a run."""

from pathlib import Path
from typing import Any

import pytest

from flowcraft.core.errors import UsageError
from flowcraft.pipeline.load import load
from flowcraft.pipeline.model import Input, Pipeline
from flowcraft.pipeline.plan import bind, order

PIPELINE = Pipeline(
    name="p",
    file=Path("p.yaml"),
    stages=(),
    inputs=(
        Input(name="request", schema={"type": "string"}, description="what to do"),
        Input(name="count", schema={"type": "integer", "minimum": 1}, required=False, default=3),
        Input(name="flag", schema={"type": "boolean"}, required=False, default=False),
        Input(name="tags", schema={"type": "array"}, required=False, default=[]),
        Input(name="either", schema={"type": ["string", "integer"]}, required=False),
        Input(name="token", schema={"type": "string", "maxLength": 9}, required=False, secret=True, env="TOKEN"),
    ),
)


def bound(**given: Any) -> dict[str, Any]:
    return bind(PIPELINE, {"request": "x", **given}, {})


def refusal(given: dict[str, object], env: dict[str, str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as error:
        bind(PIPELINE, given, env or {})
    return error.value


def test_stages_run_in_levels() -> None:
    pipeline = load(Path(__file__).parent / "examples" / "change.yaml")

    levels = [[stage.id for stage in level] for level in order(pipeline.stages)]

    assert levels == [
        ["requirements_analysis"],
        ["architecture_design"],
        ["coding"],
        ["security_review", "style_review"],
        ["publish"],
        ["log"],
    ]


def test_inputs_that_are_not_given_have_their_defaults() -> None:
    assert bound() == {"request": "x", "count": 3, "flag": False, "tags": [], "either": None, "token": None}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "7", 7),
        ("flag", "true", True),
        ("tags", '["a", 1]', ["a", 1]),
        ("request", "3", "3"),
        ("either", "3", "3"),
        ("count", 7, 7),
    ],
)
def test_text_of_the_command_line_becomes_the_declared_type(name: str, text: object, value: object) -> None:
    assert bound(**{name: text})[name] == value


def test_a_variable_gives_a_value_that_is_not_given() -> None:
    assert bind(PIPELINE, {"request": "x"}, {"TOKEN": "t"})["token"] == "t"
    assert bind(PIPELINE, {"request": "x", "token": "mine"}, {"TOKEN": "t"})["token"] == "mine"


def test_all_that_is_wrong_is_told_at_once() -> None:
    error = refusal({"count": "0", "flag": "yes", "tagz": "[]"})

    assert error.message.split("\n") == [
        "there is no input 'tagz': did you mean 'tags'?",
        "input 'request' (what to do) is missing: -i request=...",
        "input 'count' is 0, at least 1 is wanted",
        "input 'flag' is 'yes', true or false is wanted",
    ]
    assert error.hint is not None
    assert error.hint.startswith("inputs of 'p': request (string), count (integer, optional)")


def test_the_value_of_a_secret_is_not_told() -> None:
    error = refusal({"request": "x"}, {"TOKEN": "hunter2-hunter2"})

    assert error.message == "the secret input 'token' does not fit its schema"


def test_a_missing_input_names_its_variable() -> None:
    pipeline = Pipeline(
        name="p", file=Path("p"), stages=(), inputs=(Input(name="t", schema={"type": "string"}, env="T"),)
    )

    with pytest.raises(UsageError, match=r"input 't' is missing: -i t=\.\.\., or set T"):
        bind(pipeline, {}, {})
