"""How much one template may do: counted in characters and items handled, so the same on every machine."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Undefined

from flowcraft.pipeline.expressions.data import Refused, defined, kind_of

MAX_TEXT = 1 << 20  # characters that come out of one template, or of one part of it
MAX_ITERATIONS = 10_000  # rounds of all `for` loops of one rendering together
MAX_WORK = 8 << 20  # characters handled; together with MAX_TEXT this bounds time and memory
ITEM = 16  # what one item of a list costs, in characters


class Work:
    """What one rendering has left; `offset` is where in the template it is."""

    __slots__ = ("iterations", "left", "offset", "text")

    def __init__(self) -> None:
        self.left = MAX_WORK
        self.iterations = MAX_ITERATIONS
        self.text = MAX_TEXT
        self.offset = 0

    def charge(self, size: int) -> None:
        """Take off what handling `size` characters costs."""
        self.left -= size + 1
        if self.left < 0:
            raise Refused("this template handles too much data", "do this work in a run stage")

    def loop(self, rounds: int) -> None:
        """Take off the rounds of a loop."""
        self.iterations -= rounds
        if self.iterations < 0:
            raise Refused(
                f"this template goes through its loops more than {MAX_ITERATIONS} times", "do this in a run stage"
            )

    def printed(self, piece: str) -> str:
        """Take off text that goes into the result."""
        self.text -= len(piece)
        if self.text < 0:
            raise Refused(
                f"the text becomes longer than {MAX_TEXT} characters", "shorten it: ${{ x | truncate(2000) }}"
            )
        return piece

    def room(self, size: int) -> None:
        """Refuse a text that would be too long, before it is made."""
        if size > MAX_TEXT:
            raise Refused(f"a text becomes longer than {MAX_TEXT} characters", "shorten what goes in")
        self.charge(size)

    def weigh(self, value: Any) -> None:
        """Take off what reading the whole of a value costs; refuse what is not plain data."""
        stack = [value]
        while stack:
            part = stack.pop()
            if isinstance(part, str):
                self.charge(len(part))
            elif isinstance(part, Mapping):
                self.charge(ITEM * len(part))
                stack.extend(part.values())
            elif isinstance(part, (list, tuple)):
                self.charge(ITEM * len(part))
                stack.extend(part)
            elif isinstance(part, Undefined) and part is not value:
                defined(part)
            elif part is not None and not isinstance(part, (bool, int, float, Undefined)):
                raise Refused(f"{kind_of(part)} is not plain data")
