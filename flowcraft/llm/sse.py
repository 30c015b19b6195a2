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
        self._events = self._parse(chunks)

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __next__(self) -> Event:
        return next(self._events)

    def _parse(self, chunks: Iterable[bytes]) -> Iterator[Event]:
        block = self._block
        open_line: list[bytes] = []  # the pieces of a line that has not ended
        open_size = 0
        for chunk in _lf_only(_without_bom(chunks)):
            first, *lines = chunk.split(b"\n")
            if open_line:
                open_line.append(first)
                open_size += len(first)
                if not lines:
                    self._check(open_size + block.size)
                    continue
                first = b"".join(open_line)
                open_line = []
            lines.insert(0, first)
            rest = lines.pop()
            for line in lines:
                if line:
                    block.take(line)
                elif (event := block.finish()) is not None:
                    yield event
            open_size = len(rest)
            self._check(open_size + block.size)
            if rest:
                open_line.append(rest)
        if open_line:
            block.take(b"".join(open_line))
        self.residual = block.finish()

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise too_large(self._limit)


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

    __slots__ = ("_data", "_event", "_id", "_limit", "_retry", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._id = ""
        self._data = bytearray()
        self._event = b""
        self._retry: int | None = None
        self.size = 0

    def take(self, line: bytes) -> None:
        """Take in one line that is not empty. Comments and unknown fields leave nothing behind."""
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
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            with suppress(ValueError):  # more digits than Python takes
                self._retry = int(value)

    def finish(self) -> Event | None:
        """End the event; None if it had no data, as the standard wants it."""
        event = None
        if self._data:
            name = self._event.decode("utf-8", "replace") or "message"
            event = Event(name, self._data[:-1].decode("utf-8", "replace"), self._id, self._retry)
            self._data = bytearray()
        self._event = b""
        self._retry = None
        self.size = 0
        return event


def _without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= 3 or not _BOM.startswith(head):
            break
    yield head[3:] if head.startswith(_BOM) else head
    yield from source


def _lf_only(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks with LF as the only line end; a CR at the end of a chunk ends its line at once."""
    after_cr = False
    for chunk in chunks:
        if after_cr and chunk:
            after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if b"\r" in chunk:
            after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield chunk
