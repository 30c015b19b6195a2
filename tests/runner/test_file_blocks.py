"""The files of an answer: which lines are paths, what is no file, and that nothing is left out without a word."""

from pathlib import Path

import pytest
from fakes import ScriptedProvider
from hypothesis import given
from hypothesis import strategies as st
from kept_runs import run_

from flowcraft.runner.files import Changes, changes_in
from flowcraft.runner.workspace import Workspace

GOOD = "a.txt\n```\ngood\n```\n"


def read(answer: str, *writes: str) -> Changes:
    return changes_in(answer, writes or ("**",), Workspace(Path.cwd()))


def paths(answer: str, *writes: str) -> list[str]:
    found = read(answer, *writes)
    assert not found.reasons
    return [change.path for change in found.changes]


@pytest.mark.parametrize(
    "line", ["{}", "`{}`", '"{}"', "'{}'", "**{}**", "**`{}`**:", "### {}", "- `{}`", "File: {}", "{}:"]
)
def test_a_path_may_have_spaces_as_it_may_have_none(line: str) -> None:
    for path in ("d/e/f g.md", "f.md"):
        assert paths(f"{GOOD}\n{line.format(path)}\n```\ntext\n```\n") == ["a.txt", path]


def test_a_name_of_words_needs_no_folder() -> None:
    assert paths("my notes.md\n```\ntext\n```\n") == ["my notes.md"]
    assert paths("my notes.md\n```\ntext\n```\n", "*.md") == ["my notes.md"]


def test_what_is_there_is_a_path_whatever_it_looks_like() -> None:
    Path("some notes").write_text("old")
    Path("notes").write_text("old")

    assert paths("some notes:\n```\nnew\n```\n\nnotes\n```\nnew\n```\n") == ["some notes", "notes"]


def test_a_path_with_spaces_can_be_deleted() -> None:
    Path("f g.md").write_text("old")

    change = read("f g.md (deleted)").changes[0]

    assert (change.path, change.text) == ("f g.md", None)


@pytest.mark.parametrize(
    "line", ["Here is src/b.py", "Here is src/b.py:", "The new `src/b.py`:", "src/b.py (new file)"]
)
@pytest.mark.parametrize("glob", ["**", "src/**"])
def test_a_sentence_that_names_a_file_above_its_block_is_asked_about(line: str, glob: str) -> None:
    Path("src").mkdir()

    found = read(f"{line}\n```python\nx = 1\n```\n\nsrc/a.py\n```\ngood\n```\n", glob)

    assert found.reasons == ("the block in line 2 has no path: if it is src/b.py, write that alone on the line above",)


@pytest.mark.parametrize("info", ["python src/b.py", "python:src/b.py", "src/b.py"])
def test_a_path_behind_the_fence_is_asked_about(info: str) -> None:
    found = read(f"{GOOD}\nAnd one more:\n```{info}\nx = 1\n```\n")

    assert found.reasons == ("the block in line 7 has no path: if it is src/b.py, write that alone on the line above",)


@pytest.mark.parametrize(
    "answer", ["```\nlost\n```\n" + GOOD, GOOD + "\n```\nlost\n```\n", "x.txt (deleted)\n```\nlost\n```\n"]
)
def test_a_block_with_nothing_above_it_is_sent_back(answer: str) -> None:
    (reason,) = read(answer).reasons

    assert "has no path: write it on a line of its own above the block, or leave the block out" in reason


@pytest.mark.parametrize(
    "lost",
    [
        "b.txt\n",
        "b.txt\nwithout a fence\n",
        "`d/f g.md`\n",
        "d/b.txt\nIt says:\n```\ntext\n```\n",
        "1. b.txt\n   ```\n   text\n   ```\n",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_path_without_a_block_is_sent_back(lost: str, first: bool) -> None:
    found = read(f"{lost}\n{GOOD}" if first else f"{GOOD}\n{lost}")

    assert len(found.reasons) == 1
    assert "has no text: its block goes right below it, with the fence at the start of the line" in found.reasons[0]


@pytest.mark.parametrize(
    "prose",
    [
        "I have changed `a.txt` and e.g. nothing else, see v1.2 and/or the docs.\n",
        "Changed:\n- a.txt\n\nNot changed:\n- b.txt\n1. c.txt\n",
        "a.txt\n",
        "Done.\n\nhttps://example.org/b.txt\n",
        "I looked at b.txt\n",
    ],
)
def test_prose_that_speaks_of_files_is_no_file(prose: str) -> None:
    assert paths(f"{prose}\n{GOOD}\n{prose}") == ["a.txt"]


@pytest.mark.parametrize(
    "line", ["Run the tests with:", "Example:", "**Usage:**", "Now a.txt can be used like this:", "It prints a.txt:"]
)
def test_an_example_below_a_sentence_is_not_written_and_told(line: str) -> None:
    found = read(f"{line}\n\n```sh\npytest -q\n```\n\n{GOOD}")

    assert [change.path for change in found.changes] == ["a.txt"]
    assert found.examples == ("the block in line 3 has no path and was not taken as a file",)


@pytest.mark.parametrize("name", ["README", "Makefile", "LICENSE:", "Dockerfile:", "Kconfig", ".gitignore", "src/x"])
def test_names_without_an_ending_are_paths(name: str) -> None:
    assert paths(f"{name}\n```\nx\n```\n") == [name.rstrip(":")]


def test_an_answer_with_examples_only_has_no_file() -> None:
    assert "there is no file in it" in read("Do it like this:\n```\nx\n```\n").reasons[0]


WRITER = """
flowcraft: 1
stages:
  - {id: w, prompt: write, output: files, writes: ["**"]}
"""


def test_the_reason_goes_back_to_the_model_and_nothing_is_written_before() -> None:
    model = ScriptedProvider(f"{GOOD}\nd/f g.md\ntext\n", f"{GOOD}\nd/f g.md\n```\ntext\n```\n")

    record = run_(WRITER, model)

    assert "- d/f g.md has no text: its block goes" in model.requests[1].messages[-1].content
    assert record.outcomes[0].output["files"] == ["a.txt", "d/f g.md"]
    assert Path("d/f g.md").read_text() == "text\n"


def test_a_stage_fails_if_its_files_stay_lost() -> None:
    record = run_(WRITER, ScriptedProvider(otherwise=f"{GOOD}\n```\nlost\n```\n"))

    assert "the block in line 6 has no path" in str(record.outcomes[0].error)
    assert not Path("a.txt").exists()


def test_an_example_beside_files_is_a_warning_of_the_stage() -> None:
    record = run_(WRITER, ScriptedProvider(f"{GOOD}\nRun it with:\n```\nmake\n```\n"))

    assert record.outcomes[0].warnings == (
        "the answer of 'w': the block in line 7 has no path and was not taken as a file",
    )


@given(
    st.lists(
        st.sampled_from(["a.txt", "```", "````", "", "f g.md", "It is:", "x", "- b.md", "   ```", "c.md (deleted)"]),
        max_size=12,
    )
)
def test_no_block_is_left_out_without_a_word(lines: list[str]) -> None:
    answer = "\n".join(lines)
    opened, fence = 0, ""
    for line in lines:
        if not fence and line.startswith("```"):
            opened, fence = opened + 1, line
        elif fence and len(line) >= len(fence) and not line.strip("`"):
            fence = ""
    found = read(answer)

    taken = [change for change in found.changes if change.text is not None]
    assert found.reasons or len(taken) + len(found.examples) == opened
