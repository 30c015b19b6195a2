"""Which paths fit a glob, and which stages may write the same file by their globs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.errors import PipelineError
from flowcraft.pipeline.checking.globs import matches, overlap
from flowcraft.pipeline.load import load

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


@given(st.lists(GLOBS.map("out/".__add__), min_size=2, max_size=6))
def test_each_stage_is_told_the_first_beside_it_that_may_write_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, globs: list[str]
) -> None:
    expected = []
    for number, glob in enumerate(globs):
        other = next((before for before in range(number) if overlap(glob, globs[before])), None)
        if other is not None:
            expected.append(f"'s{other}' and 's{number}' can run at the same time and both write {glob}")
    file = tmp_path_factory.mktemp("globs") / "p.yaml"
    stages = [f"- {{id: s{number}, needs: [], run: x, writes: ['{glob}']}}\n" for number, glob in enumerate(globs)]
    file.write_text("flowcraft: 1\nstages:\n" + "".join(stages))

    assert messages(file) == expected


def messages(file: Path) -> list[str]:
    try:
        load(file)
    except PipelineError as error:
        return [problem.message for problem in error.problems]
    return []
