"""Server-sent events: every rule, cut at every place, against a slow reference, in bounded memory."""

import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm.sse_vectors import VECTORS, Vector

from flowcraft.core.errors import TransportError
from flowcraft.llm.sse import Event, events

IDS = [vector.name for vector in VECTORS]


def reference(stream: bytes) -> list[Event]:
    """The standard word for word: decode all, split all into lines, then go through them."""
    text = stream.decode("utf-8", "replace")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found, name, data, last_id, retry = [], "", "", "", None
    for line in text.split("\n")[:-1]:
        if line == "":
            if data != "":
                found.append(Event(name or "message", data[:-1], last_id, retry))
            name, data, retry = "", "", None
            continue
        field, colon, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if colon and field == "":
            continue
        if field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            last_id = value
        elif field == "retry" and value != "" and set(value) <= set("0123456789") and len(value) <= 4300:
            retry = int(value)
    return found


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    """The stream whole, byte by byte, with empty pieces, at every place, and (if short) at every two places."""
    if len(stream) > 400:  # nothing but repetition in there
        stream_cuts = [1, 7, 8, len(stream) - 12, len(stream) - 1]
    else:
        stream_cuts = list(range(len(stream) + 1))
        yield [stream[i : i + 1] for i in range(len(stream))]
        yield list(itertools.chain.from_iterable((b"", stream[i : i + 1]) for i in range(len(stream))))
    yield [stream]
    for cut in stream_cuts:
        yield [stream[:cut], stream[cut:]]
        yield [stream[:cut], b"", stream[cut:], b""]
    if len(stream) <= 48:
        for one, two in itertools.combinations(stream_cuts, 2):
            yield [stream[:one], stream[one:two], stream[two:]]


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_gives_the_events_of_the_standard_however_the_stream_is_cut(vector: Vector) -> None:
    expected = [Event(*fields) for fields in vector.events]

    assert reference(vector.stream) == expected
    for pieces in cuts(vector.stream):
        assert list(events(pieces)) == expected, pieces


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_hands_out_each_event_with_its_last_byte(vector: Vector) -> None:
    taken = bytearray()
    seen = 0

    def bytes_one_by_one() -> Iterator[bytes]:
        for value in vector.stream[:400]:
            # When the next byte is asked for, all events that are complete by now must be out.
            assert seen == len(reference(bytes(taken)))
            taken.append(value)
            yield bytes([value])

    for _ in events(bytes_one_by_one()):
        seen += 1


_PIECES = [b"data", b"event", b"id", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"a", b"12", b"\0"]
_PIECES += [b"\xef\xbb\xbf", b"\xff", b"\xe2\x82", "😀".encode(), b"data: x\n\n", b"[DONE]"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(_PIECES) | st.binary(max_size=4), max_size=30), st.data())
def test_agrees_with_the_reference_on_any_bytes(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[start:end] for start, end in itertools.pairwise([0, *places, len(stream)])]

    assert list(events(chunks)) == reference(stream)


@pytest.mark.parametrize(
    ("stream", "residual"),
    [
        (b"data: a\n\ndata: b", Event(data="b")),
        (b"data: a\n\ndata: b\n", Event(data="b")),
        (b"data: a\n\ndata: b\r", Event(data="b")),
        (b"event: x\nid: 1\ndata: b\ndata: c", Event("x", "b\nc", "1")),
        (b"data: a\n\n", None),
        (b"data: a\n\n: comment", None),
        (b"data: a\n\nevent: x", None),
        (b"", None),
    ],
)
def test_keeps_what_was_not_finished_apart(stream: bytes, residual: Event | None) -> None:
    for pieces in cuts(stream):
        source = events(pieces)
        list(source)
        assert source.residual == residual


@pytest.mark.parametrize(
    "endless",
    [
        itertools.repeat(b"x" * 100),
        itertools.chain([b"data: "], itertools.repeat(b"x" * 100)),
        itertools.repeat(b"data: x\n"),
        itertools.chain([b"data: a\n\nid: "], itertools.repeat(b"1" * 100)),
        iter([b"data: " + b"x" * 2000 + b"\n\n"]),
    ],
    ids=["no line", "one line", "many lines", "an id", "in one chunk"],
)
def test_refuses_an_event_above_the_limit(endless: Iterator[bytes]) -> None:
    with pytest.raises(TransportError, match="larger than 1000 bytes") as caught:
        list(events(endless, max_event_bytes=1000))

    assert not caught.value.retryable


def test_hands_out_the_events_before_one_that_is_too_large() -> None:
    source = events([b"data: a\n\ndata: " + b"x" * 2000 + b"\n\n"], max_event_bytes=1000)

    assert next(source).data == "a"
    with pytest.raises(TransportError):
        next(source)


def test_the_limit_is_for_one_event_and_not_for_the_stream() -> None:
    stream = [b"data: " + b"x" * 900 + b"\n\n"] * 50

    assert len(list(events(stream, max_event_bytes=1000))) == 50


def test_the_limit_is_for_one_event_wherever_its_last_blank_line_comes() -> None:
    event = b"data: " + b"x" * 993 + b"\n"
    for cut in range(len(event), len(event) + 20):
        stream = event + b"\n" + b"data: the next one\n\n"

        assert (
            len(list(events([stream[: len(event)], stream[len(event) : cut], stream[cut:]], max_event_bytes=1000))) == 2
        )


def test_keeps_nothing_of_comments() -> None:
    tracemalloc.start()
    try:
        assert list(events(itertools.repeat(b": ping\n: pong\n" * 8, 20_000))) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 200_000
