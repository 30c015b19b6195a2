"""A long text that arrives in small pieces; keeps little more than the text itself.

A list of pieces would cost some 60 bytes for each of them, and so would `io.StringIO`, which keeps up to
100,000 of them before it joins them.
"""

_TOGETHER = 1024  # so many pieces are kept before they are joined


class Pieces:
    """Text put together from pieces."""

    __slots__ = ("_blocks", "_latest")

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._latest: list[str] = []

    def add(self, piece: str) -> None:
        """Put `piece` behind what is there."""
        latest = self._latest
        latest.append(piece)
        if len(latest) == _TOGETHER:
            self._blocks.append("".join(latest))
            latest.clear()

    @property
    def text(self) -> str:
        """All of it."""
        return "".join((*self._blocks, *self._latest))
