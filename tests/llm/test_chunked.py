"""Chunked bodies: the same bytes out however they are cut, at once, and nothing that is no chunk."""

from collections import deque
from http.client import LineTooLong

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.llm.wire.chunked import Chunks


def written(pieces: list[bytes], *, sign: bytes = b"", trailers: bytes = b"") -> bytes:
    chunks = b"".join(b"%X%s\r\n%s\r\n" % (len(piece), sign, piece) for piece in pieces if piece)
    return chunks + b"0%s\r\n%s\r\n" % (sign, trailers)


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.sampled_from([b"", b" ", b";a", b' ; a="b;c"']),
    st.sampled_from([b"", b"X: y\r\n", b"X: y\r\nZ: 0\r\n"]),
    st.data(),
)
def test_gives_the_body_however_it_is_cut(
    pieces: list[bytes], sign: bytes, trailers: bytes, data: st.DataObject
) -> None:
    stream = written(pieces, sign=sign, trailers=trailers)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = Chunks()
    got = b"".join(
        chunks.body(stream[start:end])
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        if end > start
    )

    assert got == b"".join(pieces)
    assert chunks.ended


def test_hands_out_each_byte_of_a_chunk_when_it_is_there() -> None:
    chunks = Chunks()
    assert chunks.body(b"ffff\r") == b""
    assert chunks.body(b"\na") == b"a"
    assert chunks.body(b"bc") == b"bc"


def test_takes_many_chunks_in_one_go() -> None:
    assert Chunks().body(b"1\r\na\r\n2\r\nbc\r\n3\r\nd") == b"abcd"


def test_knows_that_the_body_is_over_before_the_trailers_are() -> None:
    chunks = Chunks()
    assert chunks.body(b"1\r\na\r\n0\r\nX: y\r\n") == b"a"
    assert (chunks.over, chunks.ended) == (True, False)
    assert chunks.body(b"\r\nHTTP/1.1") == b""
    assert chunks.ended


@pytest.mark.parametrize("size", [b"", b"-5", b"0x5", b"1_0", b"g", b"f" * 16, b"5 5", b"\xd9\xa5", b"\x00"])
def test_refuses_a_size_that_is_none(size: bytes) -> None:
    with pytest.raises(ValueError, match="size of a chunk is no number"):
        Chunks().body(size + b"\r\n")


def test_refuses_a_chunk_that_is_longer_than_its_size() -> None:
    with pytest.raises(ValueError, match="longer than its size"):
        Chunks().body(b"1\r\nab\r\n")


@pytest.mark.parametrize("begin", [b"5;", b"0\r\nX: ", b"0\r\nX: y\r\n"])
def test_refuses_a_line_without_end(begin: bytes) -> None:
    chunks = Chunks()
    with pytest.raises(LineTooLong):
        deque(map(chunks.body, [begin] + [b"a" * 1000] * 70))


def test_refuses_trailers_without_end() -> None:
    chunks = Chunks()
    with pytest.raises(LineTooLong, match="trailers"):
        deque(map(chunks.body, [b"0\r\n"] + [b"X: y\r\n" * 100] * 200))
