"""The chunked transfer coding of HTTP/1.1 (RFC 9112, 7.1): bytes from the socket in, bytes of the body out.

Knows no socket. It hands out what there is of a chunk at once, however slowly the rest of it comes, and takes
many small chunks in one go; the readers of http.client and urllib3 do neither.
"""

import re
from http.client import LineTooLong

MAX_LINE_BYTES = 65536  # as http.client has it, for the line with the size and for all trailers together
_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?\r?")


class Chunks:
    """One body as it comes; `ended` once its last chunk and the trailers are there, with `surplus` if more has come."""

    __slots__ = ("_after", "_left", "_line", "_trailers", "ended", "surplus")

    def __init__(self) -> None:
        self.ended = self.surplus = False
        self._left = 0  # bytes of the chunk that are still to come
        self._after = False  # the line end behind a chunk is to come
        self._line = b""  # the beginning of a line
        self._trailers: int | None = None  # their bytes, once the last chunk has come

    @property
    def over(self) -> bool:
        """Whether all of the body is there, even if the end of the trailers is not."""
        return self._trailers is not None

    def body(self, block: bytes) -> bytes:
        """What of the body is in the next `block`. Raises ValueError and LineTooLong for what is no chunk."""
        pieces = []
        position, size = 0, len(block)
        while position < size and not self.ended:
            if self._left:
                piece = block[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                self._after = not self._left
                continue
            end = block.find(b"\n", position)
            line = block[position : end if end >= 0 else size]
            if self._line:
                line, self._line = self._line + line, b""
            if len(line) > MAX_LINE_BYTES:
                raise LineTooLong("chunk size")
            if end < 0:
                self._line = line
                break
            position = end + 1
            self._take(line)
        self.surplus = position < size
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take(self, line: bytes) -> None:
        if self._after:
            if line not in (b"\r", b""):
                raise ValueError("a chunk is longer than its size")
            self._after = False
        elif self._trailers is not None:
            self._trailers += len(line)
            if self._trailers > MAX_LINE_BYTES:
                raise LineTooLong("trailers")
            self.ended = line in (b"\r", b"")
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise ValueError("the size of a chunk is no number")
            self._left = int(size[1], 16)
            if not self._left:
                self._trailers = 0
