"""Streams and the events they must give; the rules are those of the HTML standard, 9.2.6.

Each is (name, bytes, events as (event, data, id, retry)). The tests cut every stream at every place.
"""

from typing import NamedTuple


class Vector(NamedTuple):
    name: str
    stream: bytes
    events: tuple[tuple[str, str, str, int | None], ...]


def message(
    data: str, *, event: str = "message", id: str = "", retry: int | None = None
) -> tuple[str, str, str, int | None]:
    return (event, data, id, retry)


_CHUNK = b'{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}'

VECTORS = (
    Vector("nothing", b"", ()),
    Vector("one event", b"data: a\n\n", (message("a"),)),
    Vector("two events", b"data: a\n\ndata: b\n\n", (message("a"), message("b"))),
    Vector("line ends CRLF", b"data: a\r\n\r\ndata: b\r\n\r\n", (message("a"), message("b"))),
    Vector("line ends CR", b"data: a\r\rdata: b\r\r", (message("a"), message("b"))),
    Vector("LF then CRLF", b"data: a\n\r\ndata: b\n\n", (message("a"), message("b"))),
    Vector("LF then CR", b"data: a\n\rdata: b\n\n", (message("a"), message("b"))),
    Vector("CRLF then CR", b"data: a\r\n\rdata: b\n\n", (message("a"), message("b"))),
    Vector("CRLF then LF", b"data: a\r\n\ndata: b\n\n", (message("a"), message("b"))),
    Vector("CR then CRLF", b"data: a\r\r\ndata: b\n\n", (message("a"), message("b"))),
    Vector("LF, CR and CRLF in one event", b"data: a\ndata: b\rdata: c\r\n\n", (message("a\nb\nc"),)),
    Vector("CR LF CR is two ends", b"data: a\r\n\rdata: b\r\n\r", (message("a"), message("b"))),
    Vector("a CR at the very end", b"data: a\n\r", (message("a"),)),
    Vector("CRs only", b"\r\r\r\r", ()),
    Vector("many blank lines", b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", (message("a"), message("b"))),
    Vector("blank first line", b"\ndata: a\n\n", (message("a"),)),
    Vector("three LF between", b"data: a\n\n\ndata: b\n\n", (message("a"), message("b"))),
    Vector("no space after the colon", b"data:a\n\n", (message("a"),)),
    Vector("one space goes, the second stays", b"data:  a\n\n", (message(" a"),)),
    Vector("a tab is no space", b"data:\ta\n\n", (message("\ta"),)),
    Vector("trailing space stays", b"data: a \n\n", (message("a "),)),
    Vector("a space before the name is part of it", b" data: a\n\n", ()),
    Vector("a space before the colon is part of the name", b"data : a\n\n", ()),
    Vector("names are case-sensitive", b"Data: a\nDATA: b\n\n", ()),
    Vector("colons in the value", b"data: a:b:c\n\n", (message("a:b:c"),)),
    Vector("value is a colon", b"data::\n\n", (message(":"),)),
    Vector("two data lines", b"data: a\ndata: b\n\n", (message("a\nb"),)),
    Vector("data without a colon is an empty line", b"data\n\n", (message(""),)),
    Vector("two empty data lines", b"data\ndata\n\n", (message("\n"),)),
    Vector("empty data with a colon", b"data:\n\n", (message(""),)),
    Vector("empty then text", b"data:\ndata: a\n\n", (message("\na"),)),
    Vector("text then empty", b"data: a\ndata:\n\n", (message("a\n"),)),
    Vector("empty data, then unfinished", b"data\n\ndata\ndata\n\ndata:", (message(""), message("\n"))),
    Vector("comment", b": a comment\ndata: a\n\n", (message("a"),)),
    Vector("comment only", b": a comment\n\n", ()),
    Vector("comments without blank lines", b": ping\n: ping\n:\n: ping\ndata: a\n\n", (message("a"),)),
    Vector("comment inside an event", b"data: a\n:\ndata: b\n\n", (message("a\nb"),)),
    Vector("comment that looks like data", b":data: a\n\n", ()),
    Vector("unknown field", b"foo: bar\ndata: a\nx\n\n", (message("a"),)),
    Vector("field names with data inside", b"xdata: a\ndatax: b\ndata-: c\n\n", ()),
    Vector("event name", b"event: add\ndata: a\n\n", (message("a", event="add"),)),
    Vector("event name after the data", b"data: a\nevent: add\n\n", (message("a", event="add"),)),
    Vector(
        "event name does not last", b"event: add\ndata: a\n\ndata: b\n\n", (message("a", event="add"), message("b"))
    ),
    Vector("event without data is none, and its name is gone", b"event: add\n\ndata: a\n\n", (message("a"),)),
    Vector("empty event name is message", b"event:\ndata: a\n\n", (message("a"),)),
    Vector("the last event name counts", b"event: x\nevent: y\ndata: a\n\n", (message("a", event="y"),)),
    Vector("an event name can be emptied", b"event: x\nevent\ndata: a\n\n", (message("a"),)),
    Vector("event name with a space", b"event:  x \ndata: a\n\n", (message("a", event=" x "),)),
    Vector("id", b"id: 1\ndata: a\n\n", (message("a", id="1"),)),
    Vector("id lasts", b"id: 1\ndata: a\n\ndata: b\n\n", (message("a", id="1"), message("b", id="1"))),
    Vector("id of an event without data lasts", b"id: 1\n\ndata: a\n\n", (message("a", id="1"),)),
    Vector("id is emptied", b"id: 1\ndata: a\n\nid\ndata: b\n\n", (message("a", id="1"), message("b"))),
    Vector("id is emptied with a colon", b"id: 1\ndata: a\n\nid:\ndata: b\n\n", (message("a", id="1"), message("b"))),
    Vector(
        "id with NUL is ignored",
        b"id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\n",
        (message("a", id="1"), message("b", id="1")),
    ),
    Vector("only a NUL as id", b"id: \x00\ndata: a\n\n", (message("a"),)),
    Vector("id after the data", b"data: a\nid: 7\n\n", (message("a", id="7"),)),
    Vector("the last id counts", b"id: 1\nid: 2\ndata: a\n\n", (message("a", id="2"),)),
    Vector("id is any text", b"id:  \xc3\xa4 1\ndata: a\n\n", (message("a", id=" \u00e4 1"),)),
    Vector("retry", b"retry: 3000\ndata: a\n\n", (message("a", retry=3000),)),
    Vector("retry is of one event", b"retry: 1\ndata: a\n\ndata: b\n\n", (message("a", retry=1), message("b"))),
    Vector("retry without data is no event", b"retry: 1\n\ndata: a\n\n", (message("a"),)),
    Vector("retry with zeros in front", b"retry: 0010\ndata: a\n\n", (message("a", retry=10),)),
    Vector("retry with letters", b"retry: 1000x\ndata: a\n\n", (message("a"),)),
    Vector("retry with a sign", b"retry: -1\nretry: +1\ndata: a\n\n", (message("a"),)),
    Vector("retry with a point", b"retry: 1.5\ndata: a\n\n", (message("a"),)),
    Vector("retry with two spaces", b"retry:  1\ndata: a\n\n", (message("a"),)),
    Vector("retry with an underscore", b"retry: 1_0\ndata: a\n\n", (message("a"),)),
    Vector("retry empty", b"retry:\nretry\ndata: a\n\n", (message("a"),)),
    Vector("retry in other digits", b"retry: \xd9\xa1\ndata: a\n\n", (message("a"),)),
    Vector("a bad retry keeps the good one", b"retry: 5\nretry: x\ndata: a\n\n", (message("a", retry=5),)),
    Vector("retry with 5,000 digits", b"retry: " + b"9" * 5000 + b"\ndata: a\n\n", (message("a"),)),
    Vector("byte order mark", b"\xef\xbb\xbfdata: a\n\n", (message("a"),)),
    Vector("byte order mark alone", b"\xef\xbb\xbf", ()),
    Vector("half a byte order mark", b"\xef\xbbdata: a\n\ndata: b\n\n", (message("b"),)),
    Vector("two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", (message("b"),)),
    Vector("byte order mark on the second line", b"\n\xef\xbb\xbfdata: a\n\n", ()),
    Vector("byte order mark in the data", b"data: \xef\xbb\xbfa\n\n", (message("\ufeffa"),)),
    Vector("byte order mark, then CRLF", b"\xef\xbb\xbf\r\ndata: a\r\n\r\n", (message("a"),)),
    Vector("UTF-8 of two, three and four bytes", "data: ä€😀\n\n".encode(), (message("ä€😀"),)),
    Vector("bad byte", b"data: a\xffb\n\n", (message("a\ufffdb"),)),
    Vector("cut character at the end of a line", b"data: \xe2\x82\ndata: b\n\n", (message("\ufffd\nb"),)),
    Vector("overlong and surrogate forms", b"data: \xc0\xaf\xed\xa0\x80\n\n", (message("\ufffd" * 5),)),
    Vector("bad byte in the event name", b"event: a\xff\ndata: b\n\n", (message("b", event="a\ufffd"),)),
    Vector("bad byte in a field name", b"da\xffta: a\ndata: b\n\n", (message("b"),)),
    Vector("a continuation byte 0x85 is no line end", "data: a\u0085b\n\n".encode(), (message("a\u0085b"),)),
    Vector("U+2028 and U+2029 are no line ends", "data: a\u2028b\u2029c\n\n".encode(), (message("a\u2028b\u2029c"),)),
    Vector(
        "VT, FF, FS, GS, RS, US are no line ends",
        b"data: a\x0bb\x0cc\x1cd\x1de\x1ef\x1fg\n\n",
        (message("a\x0bb\x0cc\x1cd\x1de\x1ef\x1fg"),),
    ),
    Vector("NUL in the data", b"data: a\x00b\n\n", (message("a\x00b"),)),
    Vector("unfinished event", b"data: a\n\ndata: b\n", (message("a"),)),
    Vector("unfinished line", b"data: a\n\ndata: b", (message("a"),)),
    Vector("unfinished after a CR", b"data: a\n\ndata: b\r", (message("a"),)),
    Vector("unfinished from the start", b"data: a", ()),
    Vector("a blank that is not quite one", b"data: a\n \ndata: b\n\n", (message("a\nb"),)),
    Vector("line of spaces", b"data: a\n   \n\n", (message("a"),)),
    Vector(
        "WPT field parsing",
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\n"
        b"data:3\rdata:\r\n data:32\ndata:4\n\n",
        (message("\0\n 2\n1\n3\n\n4"),),
    ),
    Vector(
        "WPT comments",
        b"data:1\r:\0\n:\r\ndata:2\n:xxx\rdata:3\n:data:fail\r:xxx\ndata:4\n\n",
        (message("1\n2\n3\n4"),),
    ),
    Vector("WPT id", b"id\ndata: a\nid: ok\n\ndata: b\n\n", (message("a", id="ok"), message("b", id="ok"))),
    Vector("OpenAI", b"data: " + _CHUNK + b"\n\ndata: [DONE]\n\n", (message(_CHUNK.decode()), message("[DONE]"))),
    Vector(
        "OpenAI with CRLF",
        b"data: " + _CHUNK + b"\r\n\r\ndata: [DONE]\r\n\r\n",
        (message(_CHUNK.decode()), message("[DONE]")),
    ),
    Vector("OpenRouter", b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\ndata: {}\n\n", (message("{}"),)),
    Vector(
        "Anthropic",
        b"event: message_start\ndata: {}\n\nevent: ping\ndata: {}\n\n",
        (message("{}", event="message_start"), message("{}", event="ping")),
    ),
    Vector("DashScope", b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{}\n\n", (message("{}", event="result", id="1"),)),
    Vector("pretty-printed JSON", b'data: {\ndata:   "a": 1\ndata: }\n\n', (message('{\n  "a": 1\n}'),)),
    Vector("half an LLM event at the end", b"data: {}\n\ndata: " + _CHUNK[:20], (message("{}"),)),
)
