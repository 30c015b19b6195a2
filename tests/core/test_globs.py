"""Which paths fit a glob, and which globs one path could fit."""

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


@pytest.mark.parametrize("glob", ["src/[", "a**", "**b/x", "***", ".", "./", "/", "x/[!", "[z-a]", "[!b-a]x"])
def test_what_is_no_glob_is_told(glob: str) -> None:
    assert mistake(glob)


@given(GLOBS)
def test_globs_of_the_language_are_globs(glob: str) -> None:
    assert mistake(glob) is None or not glob.strip("./")
