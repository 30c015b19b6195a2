"""Server-sent events: bytes in, events out; no I/O.

A parser of our own, true to the WHATWG format (HTML standard, 9.2.6 "Interpreting an event stream")
wherever the bytes are cut. It is linear in the size of the stream and of an event, keeps no comments,
has a size limit, and an event is out as soon as its last byte is in. An unfinished event at the end
is not handed out (it may be half of one), but `residual` shows it.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from flowcraft.core.errors import TransportError

MAX_EVENT_BYTES = 8 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event; `id` is the last one seen in the stream, `retry` (milliseconds) is of this event alone.

    A tuple, since the fields of a frozen dataclass cost more to set than an event to parse.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None


class EventStream(Iterator[Event]):
    """The events of a stream of bytes; `residual` is there once the stream has ended."""

    def __init__(self, chunks: Iterable[bytes], *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.residual: Event | None = None
        self._limit = max_event_bytes
        self._block = _Block(max_event_bytes)
        self._open: list[bytes] = []  # the pieces of a line that has not ended
        self._open_size = 0
        self._after_cr = False
        self._events = self._parse(chunks)

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __next__(self) -> Event:
        return next(self._events)

    def _parse(self, chunks: Iterable[bytes]) -> Iterator[Event]:
        block = self._block
        start: bytes | None = b""  # what there is of the first three bytes
        for chunk in chunks:
            if start is not None:
                start += chunk
                if len(start) < 3 and _BOM.startswith(start):
                    continue
                chunk, start = start.removeprefix(_BOM), None
            if self._after_cr or b"\r" in chunk:
                chunk = self._lf_only(chunk)
            ended = chunk.rfind(b"\n\n") + 2 if len(chunk) <= self._limit else 0
            if ended > 1:
                begun = 0
                if self._open or block.begun:
                    begun = chunk.find(b"\n\n") + 2
                    yield from self._by_line(chunk[:begun])
                if begun < ended:
                    yield from self._whole(chunk[begun : ended - 2])
                chunk = chunk[ended:]
            if chunk:
                yield from self._by_line(chunk)
        rest = (start or b"") + b"".join(self._open)
        for event in block.events([rest, b""] if rest else [b""]):
            self.residual = event

    def _whole(self, chunk: bytes) -> Iterator[Event]:
        """Whole events, without the end of the last; as services write them, there is no need to look at each line."""
        block = self._block
        for part in chunk.split(b"\n\n"):
            if part.startswith(b"data: ") and b"\n" not in part:
                yield Event("message", part[6:].decode("utf-8", "replace"), block.id)
            else:
                yield from block.events([*part.split(b"\n"), b""])

    def _by_line(self, chunk: bytes) -> Iterator[Event]:
        yield from self._block.events(self._lines(chunk))
        # Only now: this chunk may have ended the event that it added to.
        if self._open_size + self._block.size > self._limit:
            raise too_large(self._limit)

    def _lf_only(self, chunk: bytes) -> bytes:
        """The chunk with LF as the only line end; a CR at its end ends the line at once."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk; the rest is kept in pieces, joined once when it ends."""
        lines = chunk.split(b"\n")
        self._open.append(lines[0])
        self._open_size += len(lines[0])
        if len(lines) > 1:
            lines[0] = b"".join(self._open)
            self._open = [lines[-1]] if lines[-1] else []
            self._open_size = len(lines[-1])
        lines.pop()
        return lines


def events(chunks: Iterable[bytes], *, max_event_bytes: int = MAX_EVENT_BYTES) -> EventStream:
    """The events in `chunks`, however they are cut.

    Raises TransportError when an event is larger than `max_event_bytes`.
    """
    return EventStream(chunks, max_event_bytes=max_event_bytes)


def too_large(limit: int) -> TransportError:
    return TransportError(
        f"an event of the stream is larger than {limit} bytes", hint="the service does not end its events; ask it why"
    )


class _Block:
    """The fields of the event that is being read, and what outlives it: the last id."""

    __slots__ = ("_data", "_limit", "_name", "_retry", "begun", "id", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.id = ""
        self._clear()

    def _clear(self) -> None:
        self._data = bytearray()
        self._name = b""
        self._retry: int | None = None
        self.begun = False
        self.size = 0

    def events(self, lines: Iterable[bytes]) -> Iterator[Event]:
        """Take in lines; an empty one ends an event, which comes out if it has data, as the standard wants it."""
        for line in lines:
            if line:
                self._take(line)
                continue
            if self._data:
                name = self._name.decode("utf-8", "replace") or "message"
                yield Event(name, self._data[:-1].decode("utf-8", "replace"), self.id, self._retry)
            if self.begun:
                self._clear()

    def _take(self, line: bytes) -> None:
        # Comments and unknown fields leave nothing behind.
        self.begun = True
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data += value
            self._data += b"\n"
            self.size += len(line)
            if self.size > self._limit:
                raise too_large(self._limit)
        elif name == b"event":
            self._name = value
        elif name == b"id":
            if b"\0" not in value:
                self.id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            with suppress(ValueError):  # more digits than Python takes
                self._retry = int(value)
