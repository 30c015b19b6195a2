"""Templates that want time, memory or Python: refused, with bounded work."""

import tracemalloc

import pytest

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Template
from flowcraft.pipeline.expressions.work import MAX_ITERATIONS, MAX_TEXT

BIG = "x" * 1_000_000
SCOPE = {"inputs": {"big": BIG, "l": list(range(100)), "s": "abc", "deep": [[1] * 1000] * 100, "f": print}}

EXPRESSIONS = [
    "'a' * 10 ** 9",
    "[0] * 10 ** 8",
    "'%1000000000d' % 1",
    "9 ** 64 ** 9",
    "2 ** 62 * 2 ** 62",
    "'a' | center(100000000)",
    "inputs.l | join(inputs.big)",
    "inputs.big | replace('x', inputs.big)",
    "inputs.big | indent(1000000)",
    "inputs.big ~ inputs.big",
    "inputs.big + inputs.big",
    "[inputs.big, inputs.big] | join | length",
    "range(10 ** 9) | list",
    "range(10000) | map('string') | map('indent', 1000, true) | list",
    "'9' * 5000 | int",
    "lipsum(n=10000)",
    "(" * 3000 + "1" + ")" * 3000,
    "[" * 3000,
    "not " * 3000 + "true",
    "-" * 3000 + "1",
    "1" + " + 1" * 1500,
    "x" + ".a" * 1500,
    "1 " + "if true else 1 " * 1000,
    "inputs.l.append(1)",
    "inputs.f()",
    "inputs.f",
    "inputs.s.__class__.__mro__",
    "''['__class__']",
    "inputs.s | attr('__class__')",
    "inputs.l | map(attribute='__class__') | list | first",
    "self.__init__.__globals__",
    "cycler.__init__.__globals__.os",
    "inputs.s.format(1)",
    "'{0.__class__}'.format(1)",
    "namespace(a=1)",
    "config.items()",
    "range.__globals__",
    "(range)(3) ~ joiner()",
]

TEMPLATES = [
    "${% for i in range(10000) %}${% for j in range(10000) %}x${% endfor %}${% endfor %}",
    "${% for i in range(9999) %}${{ inputs.big }}${% endfor %}",
    "${% for i in range(9999) %}${{ inputs.big | wordcount }}${% endfor %}",
    "${% for i in range(9999) %}${% if 'y' in inputs.big %}a${% endif %}${% endfor %}",
    "${% for i in range(9999) %}${% if inputs.deep == inputs.deep %}a${% endif %}${% endfor %}",
    "${% for i in range(9999) %}${{ inputs.deep | tojson | length }}${% endfor %}",
    "${% for i in range(9999) %}${{ inputs.deep | sort | length }}${% endfor %}",
    "${% for i in range(9999) %}${{ inputs.big[1:] | length }}${% endfor %}",
    "${% macro a() %}${{ a() }}${% endmacro %}${{ a() }}",
    "${% include '/etc/passwd' %}",
    "${% import 'os' as os %}",
    "${% set x = 1 %}",
    "${% call f() %}${% endcall %}",
    "${% for a in inputs.l recursive %}${{ loop(a) }}${% endfor %}",
    "${% for x in [1] %}" * 30 + "${% endfor %}" * 30,
    "${% if true %}" * 1000,
    "${% if a %}" + "${% elif a %}" * 900 + "${% endif %}",
    "${{ 1 }}" * 100_000,
    "${{" * 10_000,
]


@pytest.mark.parametrize("template", [f"${{{{ {text} }}}}" for text in EXPRESSIONS] + TEMPLATES, ids=range(57))
def test_a_hostile_template_is_refused_within_64_mib(template: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ExpressionError):
            Template(template).render(SCOPE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("${% for i in range(101) %}${% for j in range(100) %}${% endfor %}${% endfor %}", "its loops more than 10000"),
        ("${{ inputs.big }}${{ inputs.big }}", "the text becomes longer than 1048576"),
        ("${% for i in range(99) %}${{ inputs.big | length }}${% endfor %}", "handles too much data"),
    ],
)
def test_each_bound_is_told(template: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        Template(template).text(SCOPE)


def test_work_up_to_the_bounds_is_done() -> None:
    loops = "${% for i in range(100) %}${% for j in range(98) %}x${% endfor %}${% endfor %}"

    assert len(Template(loops).text({})) == 9800 < MAX_ITERATIONS
    assert Template("a${{ inputs.big }}").text(SCOPE) == "a" + BIG
    assert len(BIG) < MAX_TEXT


def test_a_value_that_is_nested_too_deep_is_an_expression_error() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]

    with pytest.raises(ExpressionError, match="nested too deep|circular|recursion|too much"):
        Template("a ${{ v }}").text({"v": value})


@pytest.mark.parametrize(
    "expression",
    [
        "1" + " | string" * 50,
        "1" + " + 1" * 50,
        "-" * 50 + "1",
        "1 if true else " * 50 + "1",
        "(" * 40 + "1" + " == 1)" * 40,
        "1 | default(" * 40 + "1" + ")" * 40,
        "[" * 40 + "1" + "]" * 40,
    ],
)
def test_what_is_just_not_too_deep_is_evaluated(expression: str) -> None:
    assert Template(f"${{{{ {expression} }}}}").render({}) is not None
