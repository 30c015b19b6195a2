"""Templates of text and names give the same with and without the engine."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Template, _plain_parts, _template_code
from flowcraft.pipeline.expressions import engine, plain
from flowcraft.pipeline.expressions.work import MAX_TEXT, Work

SCOPE: dict[str, Any] = {
    "inputs": {"name": "Ada ${{ inputs.number }}", "number": 5, "empty": "", "none": None, "list": ["a"], "read": "r"},
    "stages": {"a": {"output": "one\ntwo\n", "items": "x", "ok": True}},
    "glob": "hidden by the function",
    "range": {"of": "text"},
    "true": "a word of the language",
}
NAMES = ["inputs", "stages", "a", "name", "number", "empty", "none", "list", "output", "items", "read", "glob", "range"]
VALUES = st.builds(
    "${{%s%s%s}}".__mod__,
    st.tuples(
        st.sampled_from([" ", "", "- ", "\n", "\u00a0"]),
        st.lists(st.sampled_from([*NAMES, "true", "not", "of", "0"]), min_size=1, max_size=4).map(".".join),
        st.sampled_from([" ", "", " -", " | upper "]),
    ),
)
TEXTS = st.sampled_from(
    [
        " ",
        "a",
        "\n",
        " \n ",
        "{{ x }}",
        "{# x #}",
        "$",
        "ü",
        "${% if true %}yes${% endif %}",
        "\r\n",
        "$${{ inputs.name }}",
    ]
)


def by_engine(source: str) -> str:
    return engine.printed(_template_code(source), SCOPE, None, Work())


@given(st.lists(VALUES | TEXTS, max_size=5).map("".join))
def test_agrees_with_the_engine_wherever_it_answers(source: str) -> None:
    try:
        found = _plain_parts(source)
    except ExpressionError:
        return
    text = None if found is None else plain.filled(found, SCOPE)

    assert text is None or text == by_engine(source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Hello ${{ inputs.name }}!", "Hello Ada ${{ inputs.number }}!"),
        ("${{ stages.a.output }}", "one\ntwo\n"),
        ("${{stages.a.items}}${{ inputs.empty }}\n", "x\n"),
    ],
)
def test_fills_in_texts(source: str, text: str) -> None:
    found = _plain_parts(source)

    assert found is not None
    assert plain.filled(found, SCOPE) == text == by_engine(source)
    assert Template(source).text(SCOPE) == text
    assert Template(source).render(SCOPE) == text


@pytest.mark.parametrize(
    "source",
    [
        "${{ inputs.number }}",
        "${{ inputs.none }}",
        "${{ inputs.list }}",
        "${{ inputs.unknown }}",
        "${{ inputs.name.more }}",
        "${{ nobody }}",
        "${{ glob }}",
        "${{ range.of }}",
        "${{ true }}",
        "${{ inputs.name | upper }}",
        "${{ inputs['name'] }}",
        " ${{- inputs.name }}",
        "${% if inputs.number %}x${% endif %}",
    ],
)
def test_leaves_all_else_to_the_engine(source: str) -> None:
    found = _plain_parts(source)

    assert found is None or plain.filled(found, SCOPE) is None


def test_a_text_that_is_too_long_is_refused_as_ever() -> None:
    long = {"inputs": {"a": "x" * (MAX_TEXT // 2 + 1)}}

    with pytest.raises(ExpressionError, match="longer than"):
        Template("${{ inputs.a }}${{ inputs.a }}").text(long)
