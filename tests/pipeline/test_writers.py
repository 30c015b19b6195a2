"""Which stages may write the same file at the same time."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.errors import PipelineError
from flowcraft.core.globs import overlap
from flowcraft.pipeline.load import load

PARTS = st.sampled_from(["a", "b", "ab", "**", "*", "a*", "*b", "a?b", "[ab]", "[!a]b", "a*b*c", "."])
GLOBS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@given(st.lists(GLOBS.map("out/".__add__), min_size=2, max_size=6))
def test_each_stage_is_told_the_first_beside_it_that_may_write_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, globs: list[str]
) -> None:
    expected = []
    for number, glob in enumerate(globs):
        other = next((before for before in range(number) if overlap(glob, globs[before])), None)
        if other is not None:
            expected.append(f"'s{other}' and 's{number}' can run at the same time and both write {glob}")
    assert messages(of_globs(tmp_path_factory.mktemp("globs") / "p.yaml", globs)) == expected


def of_globs(file: Path, globs: list[str]) -> Path:
    """A pipeline whose stages may write these, all at the same time."""
    stages = [f"- {{id: s{number}, needs: [], run: x, writes: ['{glob}']}}\n" for number, glob in enumerate(globs)]
    file.write_text("flowcraft: 1\nstages:\n" + "".join(stages))
    return file


def messages(file: Path) -> list[str]:
    try:
        load(file)
    except PipelineError as error:
        return [problem.message for problem in error.problems]
    return []


@pytest.mark.parametrize("glob", ["*/{}/*", "**/{}/*", "a/*/{}*x/b", "x{}*/**/y", "docs/{}/**"])
def test_thousands_of_globs_that_differ_in_one_place_are_not_compared_in_pairs(tmp_path: Path, glob: str) -> None:
    names = [glob.format(10_000 + number) for number in range(3000)]

    assert messages(of_globs(tmp_path / "p.yaml", names)) == []


def test_too_many_globs_that_are_alike_are_refused(tmp_path: Path) -> None:
    names = [f"[{chr(0x4E00 + number)}]*" for number in range(3000)]

    [message] = messages(of_globs(tmp_path / "p.yaml", names))

    assert message.startswith("so many globs of stages that can run at the same time are alike")
