"""Secrets taken out of text."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flowcraft.runner.masking import Mask


def test_every_secret_is_replaced_wherever_it_stands() -> None:
    mask = Mask(["t0ken-1", "pass word"])

    assert mask.text("a t0ken-1, pass word and t0ken-1t0ken-1") == "a ***, *** and ******"


def test_the_longer_of_two_secrets_is_replaced_as_a_whole() -> None:
    assert Mask(["abcd", "abcdef"]).text("abcdef abcd") == "*** ***"


def test_the_lines_of_a_secret_are_secret_too() -> None:
    key = "-----BEGIN KEY-----\nMIIEabc\n-----END KEY-----"

    assert Mask([key]).text("line: MIIEabc") == "line: ***"


def test_what_is_too_short_to_be_secret_is_left_alone() -> None:
    assert Mask(["a", ""]).text("banana") == "banana"


@given(
    text=st.text("abx-", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_pieces_give_the_same_as_the_whole(text: str, cuts: list[int]) -> None:
    mask = Mask(["abab", "xx-ab"])
    stream = mask.stream()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]

    shown = [stream.add(text[start:end]) for start, end in pairwise(places)]
    shown.append(stream.end())

    assert "abab" not in "".join(shown)
    assert "xx-ab" not in "".join(shown)
    assert "".join(shown) == mask.text(text)
