"""The head of an answer, read in one go where it is as plain as nearly all are.

`http.client` reads headers with the parser for e-mail, which is a quarter of the CPU time of a whole call. What is
read here is what it would have made of the same bytes; at anything unusual nothing is taken, and it reads itself.
"""

import http.client
import re
from typing import Any

# Status 200, ASCII only, no line folded, no blanks but one around names and values. Each line can match in one
# way only, so that it takes no longer to see that it does not.
_VALUE = rb"(?:[!-~](?:[ -~]*[!-~])?)?\r\n"
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(rb"HTTP/1\.1 200 " + _VALUE + rb"(?:" + _NAME + rb": ?" + _VALUE + rb"){1,99}\r\n")
_FIELD = re.compile(r"([^:\r\n]+): ?(.*)\r\n")
_STATUS_CHARS = len("HTTP/1.1 200 ")
# What each may say.
_FRAMING = {
    "transfer-encoding": re.compile("chunked", re.IGNORECASE).fullmatch,
    "content-length": re.compile("[0-9]{1,18}").fullmatch,
    "connection": re.compile(".*").fullmatch,
}


class _Fields(http.client.HTTPMessage):
    """Header fields that were looked at already; urllib3 asks for all of them, and whether there is more."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__()
        self._pairs = pairs
        for name, value in pairs:
            self.set_raw(name, value)

    def items(self) -> list[tuple[str, str]]:
        return self._pairs

    def get_payload(self, *args: Any, **kwargs: Any) -> Any:
        return None


def take_plain(answer: http.client.HTTPResponse, seen: bytes) -> int:
    """Begin the answer to a POST with the head in `seen`, its next bytes: how many those are, 0 if it is not plain."""
    found = _HEAD.match(seen)
    if found is None:
        return 0
    reason, _, text = found[0].decode("ascii")[_STATUS_CHARS:].partition("\r\n")
    pairs = _FIELD.findall(text)
    framing = _framing(pairs)
    if framing is None:
        return 0
    length = framing.get("content-length")
    answer.fp.read(found.end())
    answer.version, answer.status, answer.reason = 11, 200, reason
    answer.headers = answer.msg = _Fields(pairs)
    answer.chunked = "transfer-encoding" in framing
    if answer.chunked:
        answer.chunk_left = None
    answer.length = None if length is None else int(length)
    # Without a length the end of the connection is the end of the answer.
    endless = length is None and not answer.chunked
    answer.will_close = endless or "close" in framing.get("connection", "").lower()
    return found.end()


def _framing(pairs: list[tuple[str, str]]) -> dict[str, str] | None:
    """The fields that say where the answer ends; None if they say it twice or not clearly."""
    framing: dict[str, str] = {}
    for name, value in pairs:
        known = _FRAMING.get(name.lower())
        if known is None:
            continue
        if name.lower() in framing or not known(value):
            return None
        framing[name.lower()] = value
    return None if "content-length" in framing and "transfer-encoding" in framing else framing
