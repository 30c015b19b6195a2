"""A long text that arrives in small pieces; keeps little more than the text itself.

A list of pieces would cost some 60 bytes for each of them, and so would `io.StringIO`, which keeps up to
100,000 of them before it joins them.
"""

_TOGETHER = 1024  # so many pieces are kept before they are joined


class Pieces:
    """Text put together from pieces."""

    __slots__ = ("_blocks", "_latest", "_room")

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._latest: list[str] = []
        self._room = _TOGETHER

    def add(self, piece: str) -> None:
        """Put `piece` behind what is there."""
        self._latest.append(piece)
        self._room -= 1
        if not self._room:
            self._blocks.append("".join(self._latest))
            self._latest.clear()
            self._room = _TOGETHER

    @property
    def text(self) -> str:
        """All of it."""
        return "".join((*self._blocks, *self._latest))
