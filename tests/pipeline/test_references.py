"""Which names templates use, where, and what is known there."""

import pytest

from flowcraft.pipeline.expr import Expression, Script, Template


def used(template: str) -> list[str]:
    return [str(reference) for reference in Template(template).references]


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("none", []),
        ("${{ stages.a.output.risk }}", ["stages.a.output.risk"]),
        ("${{ stages['a']['output'][0].x }}", ["stages.a.output.0.x"]),
        ("${{ inputs.a ~ inputs.b | default(inputs.c) }}", ["inputs.a", "inputs.b", "inputs.c"]),
        ("${{ stages[inputs.x].output }}", ["stages", "inputs.x"]),
        ("${% for s in inputs.l if s.ok %}${{ s.x }} ${{ loop.index }} ${{ t }}${% endfor %}", ["inputs.l", "t"]),
        ("${% for s in a %}${% endfor %}${{ s }}", ["a", "s"]),
        ("${{ read(inputs.path) }} ${{ {'k': v} }} ${{ 'stages.x' }}", ["inputs.path", "v"]),
        ("${{ inputs.rows | map(attribute='id') | select('in', inputs.ids) }}", ["inputs.rows", "inputs.ids"]),
    ],
)
def test_a_template_uses_these_names(template: str, names: list[str]) -> None:
    assert used(template) == names


def test_a_reference_knows_its_place_and_how_it_is_written() -> None:
    (reference,) = Template("ab ${{ ( stages . a['output'].risk | upper ) }}").references

    assert (reference.offset, reference.text) == (9, "stages . a['output'].risk")


@pytest.mark.parametrize(
    ("template", "optional"),
    [
        ("${{ x.y }}", False),
        ("${{ x.y | default('') }}", True),
        ("${{ (x.y) | default('') | upper }}", True),
        ("${{ x.y | upper | default('') }}", False),
        ("${{ x.y is defined }}", True),
    ],
)
def test_a_fallback_makes_a_reference_optional(template: str, optional: bool) -> None:
    assert Template(template).references[0].optional is optional


@pytest.mark.parametrize(
    ("template", "given"),
    [
        ("${{ stages.a.output if stages.a.ok else '' }}", {"a"}),
        ("${{ '' if not stages.a.ok else stages.a.output }}", {"a"}),
        ("${{ stages.a.ok and stages.a.output }}", {"a"}),
        ("${{ stages.a.ok or stages.a.output }}", set()),
        ("${% if stages.a.ok and stages.b.ok %}${{ stages.a.output }}${% endif %}", {"a", "b"}),
        ("${% if stages.a.ok or stages.b.ok %}${{ stages.a.output }}${% endif %}", set()),
        ("${% if stages.b.ok %}${% else %}${{ stages.a.output }}${% endif %}", set()),
        ("${% if not stages.b.ok %}${% elif x %}${{ stages.a.output }}${% endif %}", {"b"}),
        ("${% if stages.a.output is defined %}${{ stages.a.output }}${% endif %}", {"a"}),
        ("${% for x in l if stages.a.ok %}${{ stages.a.output }}${% endfor %}", {"a"}),
    ],
)
def test_a_condition_tells_which_stages_have_run(template: str, given: set[str]) -> None:
    (reference,) = (r for r in Template(template).references if str(r) == "stages.a.output" and not r.optional)

    assert reference.given == given


@pytest.mark.parametrize(
    ("expression", "literals"),
    [
        ("stages.a.output == 'BUG'", ["BUG"]),
        ("'BUG' != stages.a.output | trim | lower", ["BUG"]),
        ("stages.a.output in ['x', 'y']", ["x"]),
        ("'x' in stages.a.output", []),
        ("stages.a.output | length == 3", []),
        ("stages.a.output.risk == 'low'", ["low"]),
    ],
)
def test_comparisons_with_literal_text_are_found(expression: str, literals: list[str]) -> None:
    assert [comparison.literal for comparison in Expression(expression).comparisons] == literals


def test_a_script_uses_the_names_of_its_values() -> None:
    script = Script("echo ${{ inputs.b }} ${X} ${{ inputs.a }}")

    assert [str(reference) for reference in script.references] == ["inputs.b", "inputs.a"]
    assert script.references[1].offset == script.source.index("inputs.a")
