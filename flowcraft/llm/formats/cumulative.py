"""Streams whose every piece repeats the text so far, made into pieces that only add to it.

A piece that begins with all that came before may also be chance ("ha", "hay"). So the second piece only
makes it possible, and is held back until the third decides; a piece that does not repeat decides at once.
"""

from collections.abc import Iterable, Iterator

from flowcraft.llm.base import Delta

_ENOUGH_CHARS = 3  # when the answer ends after two pieces: a shorter first one repeats by chance


class Growing:
    """One text that comes in pieces; `added` says what each adds."""

    def __init__(self) -> None:
        self._first = ""  # nothing but the first piece has come
        self._text = ""  # of a stream that repeats: all of it
        self._held = ""  # the second piece, while it is not known what it is
        self._repeats: bool | None = None

    def added(self, piece: str) -> str:
        """What `piece` adds to the text; "" for nothing, or nothing yet."""
        if not piece or self._repeats is False:
            return piece
        if self._repeats:
            return self._grown(piece)
        if not self._first:
            self._first = piece
            return piece
        if not self._held:
            if len(piece) > len(self._first) and piece.startswith(self._first):
                self._held = piece
                return ""
            self._repeats = False
            return piece
        self._repeats = piece.startswith(self._held)
        self._text = self._first
        return self._grown(self._held) + self._grown(piece) if self._repeats else self._held + piece

    def rest(self) -> str:
        """What was held back, at the end of the stream."""
        held, self._held = self._held, ""
        if not held or self._repeats is not None:
            return ""
        return held[len(self._first) :] if len(self._first) >= _ENOUGH_CHARS else held

    def _grown(self, piece: str) -> str:
        if piece.startswith(self._text):
            new = piece[len(self._text) :]
            self._text = piece
            return new
        if self._text.startswith(piece):  # a repetition of less
            return ""
        self._repeats = False
        return piece


def additions(deltas: Iterable[Delta]) -> Iterator[Delta]:
    """The deltas of a stream, each with only what it adds to the answer and to the reasoning."""
    content, reasoning = Growing(), Growing()
    for delta in deltas:
        text, thought = content.added(delta.content), reasoning.added(delta.reasoning)
        if delta.finish_reason:
            text, thought = text + content.rest(), thought + reasoning.rest()
        if (text, thought) != (delta.content, delta.reasoning):
            delta = delta._replace(content=text, reasoning=thought)
            if delta == Delta(model=delta.model, request_id=delta.request_id):
                continue
        yield delta
