"""Templates of text and names give the same with and without the engine."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Expression, Template, _pieces, _plain_parts, _template_code
from flowcraft.pipeline.expressions import engine, plain, uses
from flowcraft.pipeline.expressions.lexer import MAX_TOKENS, bare
from flowcraft.pipeline.expressions.references import facts
from flowcraft.pipeline.expressions.syntax import expression_tree, template_tree
from flowcraft.pipeline.expressions.work import MAX_TEXT, Work

SCOPE: dict[str, Any] = {
    "inputs": {
        "name": "Ada ${{ inputs.number }}",
        "number": 5,
        "below": -(1 << 63),
        "large": 10**5000,
        "empty": "",
        "none": None,
        "list": ["a"],
        "read": "r",
    },
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
        ("number ${{ inputs.number }}", "number 5"),
        ("${{ inputs.number }}${{ inputs.below }}", f"5-{1 << 63}"),
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
        "${{ inputs.large }} is too large",
        "${{ stages.a.ok }}",
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


def test_a_number_alone_stays_one_where_types_are_kept() -> None:
    template = Template("${{ inputs.number }}")

    assert template.render(SCOPE) == 5
    assert template.text(SCOPE) == "5"


def test_a_text_that_is_too_long_is_refused_as_ever() -> None:
    long = {"inputs": {"a": "x" * (MAX_TEXT // 2 + 1)}}

    with pytest.raises(ExpressionError, match="longer than"):
        Template("${{ inputs.a }}${{ inputs.a }}").text(long)


PATHS = ["stages.a.ok", "stages.b.ok", "stages.a.output", "stages.b.output.risk", "inputs.x", "item", "output", "none"]
OPERANDS = st.sampled_from(
    [*PATHS, "'low'", '"low"', "''", "'a b'", "5", "0.5", "-1", "true", "false", "x[0]", "(item)"]
)
FILTERED = st.tuples(
    OPERANDS,
    st.sampled_from(
        [
            "",
            "",
            "",
            " | length",
            "|trim",
            " | lower | upper",
            " | default",
            " | no",
            "|default('| x')",
            " | join(', ', 5)|default()",
        ]
    ),
)
COMPARED = st.lists(FILTERED.map("".join), min_size=1, max_size=2).flatmap(
    lambda sides: st.sampled_from([" == ", "!=", " > ", "<=", " in ", " is "]).map(lambda sign: sign.join(sides))
)
CONDITIONS = st.lists(st.tuples(st.sampled_from(["", "", "not ", "not"]), COMPARED).map("".join), max_size=4).flatmap(
    lambda parts: st.sampled_from([" and ", " or ", "and", " and\n", " or\u00a0", ""]).map(
        lambda word: word.join(parts)
    )
)


@given(CONDITIONS, st.sampled_from(["", " ", "\n", " and stages.a.ok", " or not stages.b.ok", "${{"]))
def test_what_a_condition_uses_is_told_as_with_a_tree(condition: str, end: str) -> None:
    source = condition + end
    found = uses.condition_facts(source)

    assert found is None or found == facts(source, expression_tree(source, bare(source)))


@pytest.mark.parametrize(
    "condition",
    [
        "stages.a.ok",
        " not stages.a.ok ",
        "stages.a.output.risk != 'low' and stages.b.ok",
        "output | length > 5",
        "'low' == stages.a.output | trim or 3 <= inputs.x",
        "true",
        "item == 'low'",
    ],
)
def test_plain_conditions_need_no_tree(condition: str) -> None:
    assert uses.condition_facts(condition) == facts(condition, expression_tree(condition, bare(condition)))


@given(
    st.lists(
        VALUES
        | TEXTS
        | FILTERED.map("".join).map("${{ %s }}".__mod__)
        | st.sampled_from(["${{ -5 }}", "${{ 0.5 }}", "${{true}}", "${{ no\u00a0}}"]),
        max_size=5,
    )
)
def test_what_a_template_uses_is_told_as_with_a_tree(parts: list[str]) -> None:
    source = "".join(parts)
    found = uses.template_facts(source)

    assert found is None or found == facts(source, template_tree(source, list(_pieces(source))))


STATEMENTS = st.one_of(
    st.sampled_from(
        ["${% endfor %}", "${% endif %}", "${%- else -%}", "${%else%}", "${% elif inputs.x %}", "${% end %}"]
    ),
    FILTERED.map("".join).flatmap(
        lambda listed: st.sampled_from(["one", "item", "stages", "loop", "a.b", "none", "not"]).map(
            lambda name: f"${{% for {name} in {listed} %}}"
        )
    ),
    CONDITIONS.map("${%% if %s %%}".__mod__),
    CONDITIONS.map("${%%if %s-%%}".__mod__),
)


@settings(max_examples=300)
@given(
    st.recursive(
        st.lists(
            VALUES
            | STATEMENTS
            | FILTERED.map("".join).map("${{ %s }}".__mod__)
            | st.sampled_from(["${{ one }}", "${{ loop.index }}", "${{ stages.a.output }}", "text "]),
            max_size=3,
        ).map("".join),
        lambda inner: st.one_of(
            st.tuples(STATEMENTS, inner, st.sampled_from(["${% endfor %}", "${% endif %}"])).map("".join),
            st.tuples(CONDITIONS, inner, inner).map(
                lambda part: f"${{% if {part[0]} %}}{part[1]}${{% else %}}{part[2]}${{% endif %}}"
            ),
        ),
        max_leaves=5,
    )
)
def test_what_a_template_with_statements_uses_is_told_as_with_a_tree(source: str) -> None:
    found = uses.template_facts(source)

    assert found is None or found == facts(source, template_tree(source, list(_pieces(source))))


@pytest.mark.parametrize(
    "source",
    [
        "${% for one in stages.a.output.items %}\n- ${{ one.name }} ${{ loop.index }}\n${% endfor %}",
        "${% if stages.a.ok and a != 'b' %}${{ stages.a.output }}${%- else -%}${{ stages.b.output }}${% endif %}",
        "${% for a in inputs.l | sort %}${% if a == 'x' %}${{ a }}${{ inputs.y }}${% endif %}${% endfor %}${{ b }}",
        "${% if stages.a.ok %}${% for b in stages.a.output.l %}${{ stages.a.output.m }}${% endfor %}${% endif %}",
    ],
)
def test_plain_statements_need_no_tree(source: str) -> None:
    assert uses.template_facts(source) == facts(source, template_tree(source, list(_pieces(source))))


@pytest.mark.parametrize(
    "source",
    [
        "${% if not stages.a.ok %}x${% else %}${{ stages.a.output }}${% endif %}",
        "${% if a %}x${% elif b %}y${% endif %}",
        "${% for a, b in c %}x${% endfor %}",
        "${% for a in b if a %}x${% endfor %}",
        "${% for a in b %}x${% else %}y${% endfor %}",
        "${% for a in b %}x${% endif %}",
        "${% if a %}x",
        "${% if a | nothing %}x${% endif %}",
        "${% if a %}" * 11 + "${% endif %}" * 11,
    ],
)
def test_statements_that_need_a_tree_are_left_to_it(source: str) -> None:
    assert uses.template_facts(source) is None


@pytest.mark.parametrize("value", ["${{ inputs.x\u00a0}}", "${{ a }}" * (MAX_TOKENS + 1), "${{ a" + ".a" * 100 + " }}"])
def test_what_the_engine_would_refuse_is_refused_when_it_is_read(value: str) -> None:
    with pytest.raises(ExpressionError):
        _ = Template(value).references


@pytest.mark.parametrize("condition", [" and ".join(["a"] * 3000), f"a | join({','.join(['1'] * 3000)})"])
def test_a_condition_of_very_many_words_is_refused_when_it_is_read(condition: str) -> None:
    with pytest.raises(ExpressionError):
        _ = Expression(condition).references
