"""Which paths fit a glob, and which globs one path could fit."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.globs import matches, mistake, overlap

PARTS = st.sampled_from(["a", "b", "ab", "**", "*", "a*", "*b", "a?b", "[ab]", "[!a]b", "a*b*c", ".", ""])
GLOBS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("glob", "fitting", "others"),
    [
        ("[!-a]", ["B", "0"], ["-", "a", "/"]),
        ("[!a-]", ["B", "."], ["a", "-"]),
        ("x[%-9]y", ["x%y", "x8y"], ["x/y"]),
        ("[!]a]", ["b"], ["]", "a"]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[[a]", ["[", "a"], ["b"]),
        ("[a&&b]", ["&", "a"], ["c"]),
        ("[--0]", ["-", "."], ["/", "a"]),
        ("[z-a]", [], ["a", "z", "-"]),
        ("a[b", ["a[b"], ["ab"]),
    ],
)
def test_a_class_stands_for_one_character_that_is_no_slash(glob: str, fitting: list[str], others: list[str]) -> None:
    assert [path for path in (*fitting, *others) if matches(glob, path)] == fitting


@given(GLOBS, GLOBS, st.lists(st.sampled_from(["a", "b", "ab", "bb", "axb", "abc"]), min_size=1, max_size=4))
def test_globs_that_one_path_fits_overlap(one: str, other: str, parts: list[str]) -> None:
    path = "/".join(parts)

    assert overlap(one, other) or not (matches(one, path) and matches(other, path))


SIGNS = st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "[b-c]", "[!a-b]"])
NAMED = st.lists(SIGNS, min_size=1, max_size=2).map("".join).filter(lambda part: "**" not in part)
PLACED = st.lists(st.sampled_from(["a", "b", "?", "**"]), min_size=1, max_size=3).map("/".join)
NAMES = ["".join(name) for size in (1, 2, 3, 4) for name in product("abcd", repeat=size)]
PATHS = ["/".join(path) for size in (1, 2, 3, 4, 5, 6) for path in product("abc", repeat=size)]


@given(NAMED, NAMED)
def test_parts_overlap_exactly_where_one_name_fits_both(one: str, other: str) -> None:
    assert overlap(one, other) == any(matches(one, name) and matches(other, name) for name in NAMES)


@given(PLACED, PLACED)
def test_globs_overlap_exactly_where_one_path_fits_both(one: str, other: str) -> None:
    assert overlap(one, other) == any(matches(one, path) and matches(other, path) for path in PATHS)


@given(st.lists(NAMED | st.just("**"), min_size=3, max_size=5).map("/".join), st.sampled_from(PATHS))
def test_many_stars_are_matched_like_few(glob: str, path: str) -> None:
    assert matches(glob, path) == (re.fullmatch(_text_of(glob), path) is not None)


def _text_of(glob: str) -> str:
    """The glob as a regular expression, written a second time."""
    parts = glob.split("/")
    parts = [*parts, "*"] if parts[-1] == "**" else parts
    one = {"*": "[^/]*", "?": "[^/]"}
    texts = [
        "(?:[^/]+/)*" if part == "**" else re.sub(r"[*?]", lambda sign: one[sign[0]], part).replace("[!", "[^") + "/"
        for part in parts
    ]
    return "".join(texts)[:-1]


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("[ab]x", "[cd]x", False),
        ("?", "???", False),
        ("a*b", "b*a", False),
        ("*a*", "*b*", True),
        ("a?c", "ab?", True),
        ("[!a]*", "a*", False),
        ("[a-m]*.md", "[n-z]*.md", False),
        ("**/a/**/b", "b/**/a", False),
        ("**/a/*", "**/b/*", False),
        ("src/**/*.py", "src/**/*.md", False),
        ("/".join("a" * 2000), "/".join("a" * 2000), True),
    ],
)
def test_the_meeting_of_globs_is_exact(one: str, other: str, meet: bool) -> None:
    assert (overlap(one, other), overlap(other, one)) == (meet, meet)


def test_a_glob_with_many_stars_takes_no_time() -> None:
    assert not matches("*a" * 30 + "b", "a" * 250)
    assert not matches("**/a/" * 30 + "b", "a/" * 100 + "c")


@pytest.mark.parametrize("glob", ["src/[", "a**", "**b/x", "***", ".", "./", "/", "x/[!", "[z-a]", "[!b-a]x"])
def test_what_is_no_glob_is_told(glob: str) -> None:
    assert mistake(glob)


@given(GLOBS)
def test_globs_of_the_language_are_globs(glob: str) -> None:
    assert mistake(glob) is None or not glob.strip("./")
