"""The head of an answer: what is read in one go is what http.client reads of the same bytes, or nothing is taken."""

import http.client
import io
import socket
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowcraft.llm.wire.head import take_plain

BODY = b"the body"
PLAIN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length:8\r\nset-cookie: a=b; path=/\r\n"
    b"Set-Cookie: c=d\r\nx-empty: \r\nConnection: keep-alive\r\n\r\n"
)


class Fed(socket.socket):
    """A socket from which `data` comes."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def makefile(self, *_: Any, **__: Any) -> Any:
        return io.BufferedReader(io.BytesIO(self._data))  # type: ignore[arg-type]


def answer(data: bytes) -> http.client.HTTPResponse:
    with Fed(data) as fed:
        return http.client.HTTPResponse(fed, method="POST")


def seen(one: http.client.HTTPResponse) -> Any:
    """All that anybody asks of an answer whose head was read, and what is left to read."""
    framing = (one.chunked, one.chunk_left if one.chunked else None, one.length, one.will_close)
    fields = one.msg
    looked_up = [(fields.get(name), fields[name], fields.get_all(name)) for name in fields]
    more = (fields.is_multipart(), fields.defects, fields.keys(), fields.values())
    return one.status, one.reason, one.version, framing, fields.items(), looked_up, more, one.fp.read()


def reference(data: bytes) -> Any:
    one = answer(data)
    try:
        one.begin()
    except (http.client.HTTPException, ValueError):
        return "no answer"
    return seen(one)


names = st.sampled_from(
    ["Content-Length", "content-length", "Transfer-Encoding", "Connection", "Content-Type", "X-Y_z!", "a b", "", "é"]
)
values = st.one_of(
    st.sampled_from(["8", "08", "-1", "8, 8", "chunked", "Chunked", "gzip, chunked", "close", "Keep-Alive, Close"]),
    st.sampled_from(["multipart/mixed; boundary=x", "message/rfc822", "", "a: b", "two  words", " led", "trailed "]),
    st.text("a \t:;é\x00\x7f\r\n", max_size=6),
)
odd = st.tuples(names, st.sampled_from([":", ": ", " : ", ":\t", ":  "]), values, st.sampled_from(["\r\n", "\n"]))
plain = st.sampled_from(
    [("Content-Length", "8"), ("Transfer-Encoding", "Chunked"), ("Connection", "Keep-Alive, Close"), ("Date", "today")]
)
fields = st.one_of(plain.map(lambda field: (field[0], ": ", field[1], "\r\n")), odd)
statuses = st.sampled_from(
    """HTTP/1.1 200 OK|HTTP/1.1 200 |HTTP/1.1 200|HTTP/1.0 200 OK|HTTP/1.1 100 Continue|HTTP/1.1 204 -|HTTP/2 200 OK
HTTP/1.1 429 Too Many|HTTP/1.1 200 All  is well |http/1.1 200 OK|HTTP/1.1  200 OK""".replace("\n", "|").split("|")
)


@given(statuses, st.lists(fields, max_size=6), st.sampled_from(["\r\n", "\n", "", "\r"]))
@example("HTTP/1.1 200 OK", [("Content-Length", ": ", "8", "\r\n"), ("Connection", ":", "Close", "\r\n")], "\r\n")
@example("HTTP/1.1 200 OK", [("Transfer-Encoding", ": ", "Chunked", "\r\n")], "\r\n")
@example("HTTP/1.1 200 OK", [("Date", ": ", "today", "\r\n")], "\r\n")
def test_what_is_taken_is_what_http_client_makes_of_it(status: str, lines: list[tuple[str, ...]], end: str) -> None:
    data = "".join((status, "\r\n", *("".join(line) for line in lines), end)).encode("latin-1") + BODY
    one = answer(data)
    if take_plain(one, data):
        assert seen(one) == reference(data)
    else:
        assert one.fp.read() == data


def test_an_ordinary_head_is_taken() -> None:
    one = answer(PLAIN + BODY)
    assert take_plain(one, PLAIN + BODY)
    assert seen(one) == reference(PLAIN + BODY)


def test_nothing_is_taken_of_a_head_that_has_not_come_whole() -> None:
    assert not any(take_plain(answer(PLAIN), PLAIN[:end]) for end in range(len(PLAIN)))


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 8\r\nContent-Length: 9\r\n",
        b"Content-Length: 8\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Length: +8\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"X: a\r\n b\r\n",
        b"X: a\x00\r\n",
        b"X : a\r\n",
        b"X: a\n",
        b"".join(b"X-%d: a\r\n" % number for number in range(101)),
    ],
)
def test_what_two_readers_may_take_for_different_things_is_left_to_http_client(lines: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n" + BODY
    assert not take_plain(answer(data), data)
