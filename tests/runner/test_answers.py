"""JSON in what models write."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.runner.answers import Reading, exact, reading

VERDICT = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}


@pytest.mark.parametrize(
    "text",
    [
        '{"ok": true}',
        '  \n{"ok": true}\n',
        '\ufeff{"ok": true}',
        '```json\n{"ok": true}\n```',
        '```\n{"ok": true}\n```',
        '~~~\n{"ok": true}\n~~~',
        '````json\n{"ok": true}\n````',
        'Sure! Here it is:\n```json\n{"ok": true}\n```\nAnything else?',
        'Here it is:\n```json\n{"ok": true}',
        'The verdict is {"ok": true}, as {explained} above.',
        '{"ok": true} and that is why',
        '{"ok": true,}',
        '```json\n{\n  "ok": true,\n}\n```',
        'As said: {"ok": true, }',
        '<think>maybe {"ok": false}? no</think>\n{"ok": true}',
    ],
)
def test_finds_the_value_whatever_stands_around_it(text: str) -> None:
    assert reading(text, VERDICT) == Reading({"ok": True})


def test_takes_the_value_that_fits_the_schema_when_there_are_several() -> None:
    text = 'Of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] I would say {"ok": false}.'

    assert reading(text, VERDICT).value == {"ok": False}


def test_of_two_values_of_one_length_the_first_that_fits_is_taken() -> None:
    text = '{"a": 1} or {"a": 2} or {"b": 3}'

    assert reading(text).value == reading(text, {"required": ["a"]}).value == {"a": 1}
    assert reading(text, {"required": ["b"]}).value == {"b": 3}


def test_a_comma_inside_of_a_string_is_not_a_trailing_one() -> None:
    assert reading('{"a": "x,]", "b": ",}",}').value == {"a": "x,]", "b": ",}"}


def test_a_line_break_inside_of_a_string_is_taken() -> None:
    assert reading('{"a": "one\ntwo"}').value == {"a": "one\ntwo"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no JSON in it"),
        ("I would rather not.", "there is no JSON in it"),
        ('{"ok": tru}', "it is not JSON: line 1, column 8: expecting value"),
        ('{\n  "ok": true\n  "why": 1\n}', "it is not JSON: line 3, column 3: expecting ',' delimiter"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1e999}', "1e999 is too large a number"),
        ('{"a": ' + "9" * 5000 + "}", "more than 1000 digits"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ("So: {'risk': 'low'}", "line 1, column 6: single quotes, where JSON has double ones"),
        ("['low']", "column 2: single quotes, where JSON has double ones"),
        ("{\"risk\": 'low'}", "column 10: single quotes, where JSON has double ones"),
        ('{risk: "low"}', "column 2: the key risk without quotes, where JSON has double quotes"),
        ("{\u201crisk\u201d: 1}", "column 2: curly quotes, where JSON has straight ones"),
        ('{"risk": None}', "column 10: None, where JSON has null"),
    ],
)
def test_refuses_what_the_next_reader_would_read_differently(text: str, reason: str) -> None:
    read = reading(text)

    assert read.value is None
    assert reason in read.reasons[0]


@pytest.mark.parametrize("text", ['{"outer": {"ok": true}, "rest', 'So: {"a": 1, "a": 2, "b": {"ok": true}}'])
def test_a_part_of_a_broken_value_is_not_the_answer(text: str) -> None:
    assert reading(text, VERDICT).reasons


def test_names_every_place_where_the_schema_is_broken() -> None:
    schema = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    }

    reasons = reading('{"age": "old"}', schema).reasons

    assert len(reasons) == 2
    assert any("name" in reason for reason in reasons)
    assert any("age" in reason for reason in reasons)


def test_the_output_of_a_program_is_json_and_nothing_else() -> None:
    assert exact('{"ok": true}\n', VERDICT) == Reading({"ok": True})
    assert exact('ok: {"ok": true}', VERDICT).reasons
    assert exact("").reasons == ("it is empty",)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: isinstance(value, (dict, list)))


@given(value=json_values, before=st.text("abc .,:\n'\"", max_size=20), after=st.text("abc .,:\n", max_size=20))
def test_any_value_is_found_between_prose(value: Any, before: str, after: str) -> None:
    assert reading(f"{before} {json.dumps(value)} {after}").value == value


@given(st.text('{}[]",:\\` \nabc123~<think>/', max_size=200))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    read = reading(text)

    assert read.reasons == () or all(isinstance(reason, str) and reason for reason in read.reasons)


@pytest.mark.parametrize("piece", ["```a\n", "[", "{", '{"a":', '"', ",  ", "{ ", "<think>", '\\"', "[1,"])
def test_hostile_repetition_is_read_in_bounded_work(piece: str) -> None:
    read = reading(piece * (500_000 // len(piece)))

    assert read.reasons
