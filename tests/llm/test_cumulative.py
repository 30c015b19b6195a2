"""Streams that repeat themselves are told from those that only look like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.llm.base import Delta
from flowcraft.llm.formats.cumulative import Growing, additions


def read(*pieces: str) -> str:
    growing = Growing()
    return "".join([growing.added(piece) for piece in pieces] + [growing.rest()])


@pytest.mark.parametrize(
    "pieces",
    [
        ("Hel", "Hello", "Hello, wor", "Hello, world"),
        ("H", "He", "Hello, ", "Hello, world"),
        ("Hello", "Hello, world"),
        ("Hello", "Hello, ", "Hello, ", "Hello, world", "Hello, world"),
        ("Hello", "Hello, ", "Hello, world", "Hel", "Hello, world"),
        ("Hello, ", "world"),
        ("Hello", ", world"),
        ("", "Hello", "", ", world"),
        ("Hello, world",),
    ],
)
def test_gives_the_text_once(pieces: tuple[str, ...]) -> None:
    assert read(*pieces) == "Hello, world"


@pytest.mark.parametrize(
    "pieces", [("ha", "ha", "ha"), ("1", "10"), ("a", "ab", "c"), ("no", "now", "here"), ("- ", "- [ ] x", "\n")]
)
def test_leaves_chance_repetitions_alone(pieces: tuple[str, ...]) -> None:
    assert read(*pieces) == "".join(pieces)


def test_goes_back_to_plain_pieces_where_the_repetition_ends() -> None:
    assert read("abc", "abcd", "abcde", "xyz", "xyz") == "abcdexyzxyz"


def test_splits_answer_and_reasoning_and_keeps_the_end() -> None:
    end = Delta(finish_reason="stop")
    deltas = [Delta(reasoning="let"), Delta(reasoning="let me"), Delta(content="He"), Delta(content="Hey"), end]

    found = list(additions(deltas))

    assert "".join(delta.reasoning for delta in found) == "let me"
    assert "".join(delta.content for delta in found) == "HeHey"
    assert found[-1].finish_reason == "stop"


@given(st.text(min_size=12), st.lists(st.integers(1, 11), min_size=3, unique=True))
def test_any_text_that_grows_comes_out_whole(text: str, cuts: list[int]) -> None:
    assert read(*[text[:cut] for cut in sorted(cuts)], text) == text


@given(st.lists(st.text(min_size=1), min_size=1))
def test_pieces_that_do_not_begin_alike_stay_as_they_are(pieces: list[str]) -> None:
    if len(pieces) > 1 and pieces[1].startswith(pieces[0]):
        return
    assert read(*pieces) == "".join(pieces)
