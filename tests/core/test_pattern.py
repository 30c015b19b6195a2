"""Patterns find what `re` finds, and never hang."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcraft.core.judging.pattern import MAX_SIZE, TooHard, compiled

ATOMS = st.sampled_from(["a", "b", "[ab]", "[^a]", r"\d", r"\w", r"\W", ".", "[a-c1]", r"\.", "é", "[-x]", r"[\d_]"])


def pieces(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeated = st.tuples(
        inner.map(lambda text: f"(?:{text})"), st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0}", "{2,}", "*?"])
    ).map("".join)
    return repeated | st.lists(inner, max_size=3).map("".join) | st.lists(inner, min_size=1, max_size=3).map("|".join)


PATTERNS = st.recursive(ATOMS, lambda inner: pieces(inner) | inner.map(lambda text: f"({text})"), max_leaves=6)


@settings(deadline=None)
@given(
    pattern=st.tuples(st.sampled_from(["", "^"]), PATTERNS.map(lambda text: f"(?:{text})"), st.sampled_from(["", "$"])),
    text=st.text("ab1_.-é\nx", max_size=8),
)
def test_finds_what_re_finds(pattern: tuple[str, str, str], text: str) -> None:
    start, middle, end = pattern

    # In `re` a `$` also matches before a final newline, in JSON Schema it does not.
    expected = re.compile(start + middle + (r"\Z" if end else ""), re.ASCII).search(text)

    assert compiled("".join(pattern)).search(text) == bool(expected)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("", "", True),
        ("^$", "", True),
        ("^$", "a", False),
        ("a$", "a\n", False),
        ("(^a|b$)", "xb", True),
        ("a^b", "ab", False),
        (r"^\x41\u0042\/$", "AB/", True),
        (r"^[\]\\]+$", "]\\", True),
        ("^[a-]+$", "a-", True),
        ("^[^]$", "x", True),
        (r"^\s$", "\u2003", True),
        (r"^\d$", "٣", False),
        ("^.$", "\n", False),
        ("^.$", "😀", True),
        ("(a|)b", "b", True),
        ("(a*)*$", "b", True),
    ],
)
def test_special_cases(pattern: str, text: str, found: bool) -> None:
    assert compiled(pattern).search(text) is found


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 100_000 + "b"),
        ("(x+x+)+y", "x" * 100_000),
        ("^(a|aa)+$", "a" * 100_000 + "!"),
        (r"^(\w+\s?)*$", "word " * 20_000 + "!"),
        ("(.*,){30}P$", "1," * 10_000),
        ("(a?){50}a{50}$", "a" * 49),
        ("([a-z]+)*\\d$", "a" * 100_000),
    ],
)
def test_texts_on_which_others_hang_take_a_moment(pattern: str, text: str) -> None:
    assert compiled(pattern).search(text) is False


def test_a_search_that_would_take_long_is_given_up() -> None:
    text = "".join(random.Random(1).choices("axy", k=200_000))

    with pytest.raises(TooHard):
        compiled("a[^b]{400}c").search(text)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", r"a '\)' is missing"),
        ("a)", r"a '\)' too many"),
        ("[a", "ends too early"),
        ("\\", "ends too early"),
        ("*a", "nothing to repeat"),
        ("a**", "nothing to repeat"),
        ("a{2}{3}", "nothing to repeat"),
        ("^*", "nothing to repeat"),
        ("(?=a)", r"only '\(...\)'"),
        ("(?<!a)b", r"only '\(...\)'"),
        (r"(a)\1", r"'\\1' is not known"),
        (r"\bword", r"'\\b' is not known"),
        (r"\p{L}", r"'\\p' is not known"),
        ("[z-a]", "lower to a higher"),
        (r"[\d-z]x{", "write a literal"),
        ("a{3,1}", "counts backwards"),
        ("a{99999999999}", "write a literal"),
        (r"\xZZ", "hexadecimal"),
        ("(" * 60 + ")" * 60, "too deeply"),
        ("a{2000}", "too large"),
        ("(" * 49 + "a+" + ")+" * 49, "too large"),
        ("(" * 49 + "a{0}" + "){9999}" * 49, "too large"),
        ("|" * MAX_SIZE, "too large"),
    ],
)
def test_a_pattern_that_cannot_be_used_says_why(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compiled(pattern)


@settings(deadline=None)
@given(st.text("()[]{}*+?|^$\\-.ab,19:=\n", max_size=12), st.text(max_size=5))
def test_any_pattern_is_compiled_or_refused(pattern: str, text: str) -> None:
    try:
        found = compiled(pattern)
    except ValueError:
        return
    found.search(text)
