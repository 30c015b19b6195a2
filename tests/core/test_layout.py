"""Data as readable YAML."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.document import parse
from flowcraft.core.layout import yaml_text

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text("ab \n\t'\"#:-|>\\{}[],&*!?%@`~.0123456789eE_\r\x85\u2028"),
    st.sampled_from(
        ["", "null", "yes", "No", "1e3", "0x1f", "- a", "a: b", "a #b", "a\n", "a\nb\n", "a\n\nb\n\n", "\na"]
    ),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT)
DATA = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


@given(st.dictionaries(TEXT, DATA))
def test_what_is_written_is_read_again_as_it_was(data: dict[str, Any]) -> None:
    assert parse(yaml_text(data) or "{}", "x.yaml").data == data


def test_text_of_several_lines_stands_as_it_is_and_short_lists_in_one_line() -> None:
    answers = {"f[0]": ["one\n  two\n", "no"], "b": [{"error": "down", "status": 503}]}
    data = {"answers": answers, "rungs": ["small", "big"]}

    assert yaml_text(data) == (
        'answers:\n  "f[0]":\n    - |\n      one\n        two\n    - "no"\n'
        "  b:\n    - error: down\n      status: 503\nrungs: [small, big]\n"
    )


def test_half_a_character_becomes_a_sign_for_it() -> None:
    assert parse(yaml_text({"a": "\ud800", "b": "x\n\udc00"}), "x.yaml").data == {"a": "\ufffd", "b": "x\n\ufffd"}
