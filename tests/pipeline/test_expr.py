"""Expressions and templates: what they give, and what they say when they cannot."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.errors import ExpressionError, UsageError
from flowcraft.pipeline.expr import Expression, Script, Template

SCOPE: dict[str, Any] = {
    "inputs": {
        "name": "Ada",
        "count": 3,
        "price": 1.5,
        "yes": True,
        "nothing": None,
        "tags": ["b", "a", "b"],
        "map": {"items": "own", "keys": 1, "x-y": 2},
        "rows": [{"id": 2, "ok": True, "t": {"n": 1}}, {"id": 1, "ok": False, "t": {"n": 2}}],
        "text": "one two\nthree\n",
    },
    "stages": {"a": {"ok": True, "status": "ok", "output": {"risk": "low", "list": [1, 2]}}, "skipped": {"ok": False}},
    "run": {"id": "r1"},
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Folder:
    """Files as the runner gives them."""

    def glob(self, pattern: str, spend: Callable[[int], None] | None = None) -> list[str]:
        return [f"{pattern}/a", f"{pattern}/b"]

    def read(self, path: str) -> str:
        if path == "secret":
            raise UsageError("'secret' leaves the workspace", hint="use a path inside it")
        return f"text of {path} ${{{{ 7 * 7 }}}}"


def test_a_field_given_to_map_as_a_filter_is_meant_as_an_attribute() -> None:
    with pytest.raises(ExpressionError) as error:
        Expression("inputs.rows | map('id')").value(SCOPE)

    assert error.value.hint == "a field of each item: map(attribute='id')"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("inputs.name", "Ada"),
        ("inputs['name']", "Ada"),
        ("inputs.map['x-y']", 2),
        ("inputs.map.items", "own"),
        ("inputs.map.keys", 1),
        ("inputs.tags[0]", "b"),
        ("inputs.tags[-1]", "b"),
        ("inputs.tags[1:]", ["a", "b"]),
        ("inputs.name[:2]", "Ad"),
        ("inputs.count + 1", 4),
        ("inputs.count / 2", 1.5),
        ("inputs.count // 2", 1),
        ("inputs.count % 2", 1),
        ("2 ** 10", 1024),
        ("-inputs.count", -3),
        ("'a' + 'b'", "ab"),
        ("[1] + [2]", [1, 2]),
        ("inputs.name ~ '-' ~ inputs.count ~ inputs.yes", "Ada-3true"),
        ("1 < inputs.count <= 3", True),
        ("'a' in inputs.tags and 'z' not in inputs.tags", True),
        ("'d' in inputs.name", True),
        ("not inputs.yes or inputs.count == 3", True),
        ("'x' if inputs.yes else 'y'", "x"),
        ("{'a': [1, inputs.count]}", {"a": [1, 3]}),
        ("inputs.nothing is none", True),
        ("inputs.other is defined", False),
        ("inputs.nothing", None),
        ("inputs.count is odd", True),
        ("stages.skipped.output.deep.er | default('none')", "none"),
        ("inputs.nothing | default(1)", 1),
        ("'' | default('x', true)", "x"),
        ("inputs.tags | length", 3),
        ("inputs.tags | join(', ')", "b, a, b"),
        ("inputs.rows | join('-', 'id')", "2-1"),
        ("inputs.rows[0] | tojson", '{"id": 2, "ok": true, "t": {"n": 1}}'),
        ("'{\"a\": [1, 2.5, null]}' | fromjson", {"a": [1, 2.5, None]}),
        ("inputs.name | lower | upper", "ADA"),
        ("'  x ' | trim", "x"),
        ("'aXbX' | replace('X', '-')", "a-b-"),
        ("inputs.tags | first", "b"),
        ("inputs.tags | last", "b"),
        ("inputs.tags | sort", ["a", "b", "b"]),
        ("inputs.rows | sort(attribute='id') | map(attribute='id') | list", [1, 2]),
        ("inputs.tags | sort(reverse=true)", ["b", "b", "a"]),
        ("inputs.tags | unique", ["b", "a"]),
        ("inputs.rows | map(attribute='t.n')", [1, 2]),
        ("inputs.tags | map('upper')", ["B", "A", "B"]),
        ("[0, 1, '', none, 'x'] | select", [1, "x"]),
        ("[1, 2, 3] | select('odd')", [1, 3]),
        ("[1, 2, 3] | reject('gt', 1)", [1]),
        ("inputs.rows | selectattr('ok') | map(attribute='id')", [2]),
        ("inputs.rows | selectattr('id', 'eq', 1) | length", 1),
        ("inputs.rows | rejectattr('ok') | map(attribute='id')", [1]),
        ("[1, 2.5] | sum", 3.5),
        ("inputs.rows | sum(attribute='id')", 3),
        ("[3, 1, 2] | min", 1),
        ("[3, 1, 2] | max", 3),
        ("2.567 | round(1)", 2.6),
        ("2.5 | round", 2),
        ("'42' | int", 42),
        ("'x' | int(0)", 0),
        ("'2.5' | float", 2.5),
        ("inputs.map | list", ["items", "keys", "x-y"]),
        ("3 | string", "3"),
        ("'a\nb' | indent(2)", "a\n  b"),
        ("'abcdefgh' | truncate(5)", "ab..."),
        ("inputs.text | wordcount", 3),
        ("inputs.text | lines", ["one two", "three"]),
        ("range(3) | list", [0, 1, 2]),
        ("range(1, 3)", [1, 2]),
        ("'it\\'s \\u00e9'", "it's é"),
        ("'{{ 1 }} {% x %} {# y'", "{{ 1 }} {% x %} {# y"),
    ],
)
def test_an_expression_has_this_value(expression: str, value: Any) -> None:
    assert Expression(expression).value(SCOPE) == value
    assert Template(f"${{{{ {expression} }}}}").render(SCOPE) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("inputs.other", "'inputs.other' has no value: there is no 'other' here; there is: name, count"),
        ("stages.a.output.rsk", "'stages.a.output.rsk' has no value: there is no 'rsk' here; there is: risk, list"),
        ("inputs.name.upper", "'inputs.name.upper' has no value: text has no 'upper'"),
        ("other", "there is no 'other' here"),
        ("inputs.tags[9]", "the list has 3 items, there is no item 9"),
        ("inputs.name + 1", "'+' does not work on text and a number"),
        ("inputs.name * 3", "'*' does not work on text and a number"),
        ("'%d' % 3", "'%' does not work on text and a number"),
        ("inputs.yes + 1", "'+' does not work on a boolean and a number"),
        ("inputs.name < 3", "'<' does not work on text and a number"),
        ("1 / 0", "this divides by zero"),
        ("10 ** 10 ** 10", "the number becomes too large"),
        ("inputs.count | length", "length needs a list, not a number"),
        ("inputs.name | join", "join needs a list, not text"),
        ("inputs.tags | sum", "a number is needed here, not text"),
        ("'x' | int", "'x' is not a number"),
        ("'x' | fromjson", "this text is not JSON"),
        ("'[NaN]' | fromjson", "this text is not JSON"),
        ("[1, 'a'] | sort", "text and a number have no order"),
        ("inputs.tags | map('nothing')", "map needs a filter, not 'nothing'"),
        ("inputs.tags | select('nothing')", "there is no test 'nothing'"),
        ("inputs.tags | join(1, 2, 3)", "this filter is used in a wrong way"),
        ("glob('*')", "no files can be read here"),
        ("range(99999)", "a range has at most 10000 numbers"),
        ("glob", "a value of type function is not plain data"),
        ("inputs.rows | map(attribute='nr')", "there is no 'nr' here; there is: id, ok, t"),
        ("inputs.rows | map(attribute='nr') | tojson", "there is no 'nr' here"),
    ],
)
def test_an_expression_fails_with_this_message(expression: str, message: str) -> None:
    with pytest.raises(ExpressionError) as error:
        Expression(expression).value(SCOPE)

    assert message in error.value.message
    assert error.value.code == "FC300"


def test_an_error_knows_its_place_and_a_way_out() -> None:
    with pytest.raises(ExpressionError) as error:
        Template("Ada: ${{ inputs.name }}, risk: ${{ stages.a.output.rsk }}").text(SCOPE)

    assert error.value.offset == len("Ada: ${{ inputs.name }}, risk: ${{ ")
    assert error.value.hint == "give a fallback: stages.a.output.rsk | default('...')"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain {{ x }} {% y %} {# z #} ${X} ${#a[@]} ${i%.*} $((1+1)) \\n", None),
        ("${{ inputs.name }}!", "Ada!"),
        ("n=${{ inputs.count }} p=${{ inputs.price }} y=${{ inputs.yes }}", "n=3 p=1.5 y=true"),
        ("${{ inputs.tags }}.", '[\n  "b",\n  "a",\n  "b"\n].'),
        ("${{ stages.a.output }}.", '{\n  "risk": "low",\n  "list": [\n    1,\n    2\n  ]\n}.'),
        ("a\n${% if inputs.yes %}\nb\n${% endif %}\nc\n", "a\nb\nc\n"),
        ("a\n  ${% for t in inputs.tags %}\n  - ${{ t }}\n  ${% endfor %}\nz", "a\n  - b\n  - a\n  - b\nz"),
        ("x ${% if inputs.yes %}y${% endif %} z\n", "x y z\n"),
        ("  ${% if false %}y${% endif %}\nz\n", "  \nz\n"),
        ("${% for t in [] %}${{ t }}${% else %}none${% endfor %}", "none"),
        ("${% for r in inputs.rows if r.ok %}${{ loop.index }}/${{ loop.length }}:${{ r.id }}${% endfor %}", "1/1:2"),
        ("${% if inputs.count > 5 %}a${% elif inputs.count > 2 %}b${% else %}c${% endif %}", "b"),
        ("${% for a, b in [[1, 2], [3, 4]] %}${{ a }}${{ b }} ${% endfor %}", "12 34 "),
        ("a  ${%- if true -%}  b  ${%- endif %}", "ab"),
        ("${{ '${{' }} stays", "${{ stays"),
        ("${{ {'a': {'b': 1}}['a']['b'] }}.", "1."),
        ("ends with a line\n", None),
    ],
)
def test_a_template_becomes_this_text(template: str, text: str | None) -> None:
    assert Template(template).text(SCOPE) == (template if text is None else text)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a ${{ inputs.nothing }}", "'inputs.nothing' is null"),
        ("a ${{ inputs.missing }}", "'inputs.missing' has no value"),
        ("${% for c in inputs.name %}${% endfor %}", "a loop needs a list, not text"),
        ("${% for r in inputs.rows %}${{ r.nr }}${% endfor %}", "there is no 'nr' here; there is: id, ok, t"),
        ("${% if inputs.missing %}${% endif %}", "'inputs.missing' has no value"),
    ],
)
def test_a_template_fails_with_this_message(template: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message.replace("'", ".")):
        Template(template).text(SCOPE)


@pytest.mark.parametrize(
    "expression",
    ["inputs.name", "inputs.count", "inputs.nothing", "inputs.tags", "'false'", "1", "[]", "stages.a.output"],
)
def test_a_condition_must_be_true_or_false(expression: str) -> None:
    with pytest.raises(ExpressionError) as error:
        Expression(expression).condition(SCOPE)

    assert error.value.code == "FC301"


def test_signs_around_a_whole_expression_are_accepted() -> None:
    assert Expression(" ${{ inputs.count > 2 }} ").condition(SCOPE) is True


def test_a_value_is_rendered_once_and_never_again() -> None:
    hostile = {"inputs": {"x": "${{ 7 * 7 }} {{ 7 * 7 }} ${% for %}"}}

    assert Template("${{ inputs.x }}").render(hostile) == hostile["inputs"]["x"]
    assert Template("a ${{ inputs.x }}").text(hostile) == "a " + hostile["inputs"]["x"]


def test_files_are_read_by_what_the_runner_gives() -> None:
    template = Template("${% for p in glob('src') %}${{ read(p) }};${% endfor %}")

    assert template.text({}, Folder()) == "text of src/a ${{ 7 * 7 }};text of src/b ${{ 7 * 7 }};"


def test_a_file_that_cannot_be_read_is_an_error_of_the_template() -> None:
    with pytest.raises(ExpressionError, match="leaves the workspace") as error:
        Template("a ${{ read('secret') }}").text({}, Folder())

    assert error.value.offset == 6


def test_rendering_leaves_the_values_alone() -> None:
    scope = {"l": [3, 1, 2]}

    assert Expression("(l | sort) + [4]").value(scope) == [1, 2, 3, 4]
    assert scope == {"l": [3, 1, 2]}


def test_they_can_be_pickled_and_compared_by_text() -> None:
    for one in (Expression("a == 1"), Template("${{ a }}"), Script("echo ${{ a }}")):
        assert pickle.loads(pickle.dumps(one)) == one


@given(JSON)
def test_a_value_in_text_follows_the_rules_of_json(value: Any) -> None:
    if value is None:
        return
    shown = Template("<${{ v }}>").text({"v": value})[1:-1]

    assert shown == value if isinstance(value, str) else json.loads(shown) == value


@given(JSON)
def test_a_lone_value_keeps_its_type(value: Any) -> None:
    rendered = Template("${{ v }}").render({"v": value})

    assert rendered == value
    assert type(rendered) is type(value)


def failure(action: Callable[[], object]) -> ExpressionError | None:
    try:
        action()
    except ExpressionError as error:
        return error
    return None


@given(st.text() | st.text("${}%{ ab.'\"|()[]1+-=<>!&\n"))
def test_any_text_is_a_template_or_an_expression_error(text: str) -> None:
    for template in (text, "${{ " + text + " }}", "${% if " + text + " %}${% endif %}"):
        error = failure(lambda template=template: Template(template).render({"a": 1, "b": [1]}))  # type: ignore[misc]
        assert error is None or 0 <= error.offset <= len(template)


@given(st.text("ab.'|()[]1+-=<>!& \nornotin") | st.text())
def test_any_text_is_an_expression_or_an_expression_error(text: str) -> None:
    for action in (lambda: Expression(text).value({"a": 1, "b": {"a": "x"}}), lambda: Expression(text).references):
        error = failure(action)
        assert error is None or 0 <= error.offset <= len(text)


@given(st.text("abc ${}%'\"\n\\"))
def test_text_without_our_signs_stays_as_it_is(text: str) -> None:
    if "${{" not in text and "${%" not in text:
        assert Template(text).is_static
        assert Template(text).text({}) == text


@pytest.mark.parametrize(
    "text",
    [
        "a ${{ stages.a.output }} b",
        "${{stages.a.output.risk}} ${{ inputs.x }} ${{ inputs.x }}",
        "${{ run.id }}",
        "plain",
    ],
)
def test_names_are_found_with_and_without_a_tree(text: str) -> None:
    quick = Template(text).references
    slow = Template(f"{text}${{% if true %}}${{% endif %}}").references

    assert quick == slow


class LargeFolder(Folder):
    """Files that it takes long to look through."""

    def glob(self, pattern: str, spend: Callable[[int], None] | None = None) -> list[str]:
        assert spend
        spend(1 << 20)
        return []


def test_looking_through_many_files_counts_as_work() -> None:
    text = "${% for n in range(20) %}${{ glob('**') | length }}${% endfor %}"

    assert Template(text.replace("20", "5")).text({}, LargeFolder()) == "00000"
    with pytest.raises(ExpressionError, match="handles too much data"):
        Template(text).text({}, LargeFolder())
