import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from flowcraft.llm.pieces import Pieces


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(1, 200))
def test_the_text_is_its_pieces_in_order(pieces: list[str], times: int) -> None:
    text = Pieces()

    for piece in pieces * times:
        text.add(piece)

    assert text.text == "".join(pieces * times)


def test_keeps_little_more_than_the_text() -> None:
    text = Pieces()
    tracemalloc.start()
    try:
        for number in range(100_000):
            text.add(f"{number:05d} ")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1.5 * len(text.text)
