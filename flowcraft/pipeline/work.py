"""How much one template may do: counted in characters and items handled, so the same on every machine.

Also what a value is as text, and what may be a value at all: plain data, as JSON has it.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, Undefined

MAX_TEXT = 1 << 20  # characters that come out of one template, or of one part of it
MAX_ITERATIONS = 10_000  # rounds of all `for` loops of one rendering together
MAX_WORK = 8 << 20  # characters handled; together with MAX_TEXT this bounds time and memory
MAX_NUMBER = 1 << 63
ITEM = 16  # what one item of a list costs, in characters


class Refused(Exception):
    """An operation that is not possible with these values; `hint` says what is."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Missing(StrictUndefined):
    """A name that stands for nothing; any use but `default` and `is defined` is an error."""


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
        """Take off what reading the whole of a value costs."""
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
            elif part is not None and not isinstance(part, (bool, int, float, Undefined)):
                raise Refused(f"{kind_of(part)} is not plain data")


def text_of(value: Any) -> str:
    """The value as it stands in a text: a string as it is, all else as JSON; nothing is an error."""
    if isinstance(value, str):
        return value
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()  # noqa: SLF001 - the only way to have its message raised
    if value is None:
        raise Refused("this is null, which has no text", "give a fallback: ${{ x | default('...') }}")
    if isinstance(value, (bool, int, float, Mapping, list, tuple)):
        return as_json(value, indent=2)
    raise Refused(f"{kind_of(value)} cannot be put into a text")


def as_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON text."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=_plain)
    except (TypeError, ValueError) as error:
        raise Refused(f"this cannot be written as JSON: {error}") from error


def number(value: Any) -> int | float:
    """The value if it is a number of ordinary size."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value) and abs(value) <= MAX_NUMBER:
            return value
        raise Refused("the number becomes too large")
    _defined(value)
    raise Refused(f"a number is needed here, not {kind_of(value)}")


def text(value: Any, what: str) -> str:
    """The value if it is text; `what` needs it."""
    if isinstance(value, str):
        return value
    _defined(value)
    raise Refused(f"{what} needs text, not {kind_of(value)}", "as text: x | string")


def items(value: Any, what: str) -> list[Any]:
    """The items of a list, or the keys of a map; `what` needs them."""
    if isinstance(value, (list, tuple, Mapping)):
        return list(value)
    _defined(value)
    hint = "for its lines: x | lines" if isinstance(value, str) else None
    raise Refused(f"{what} needs a list, not {kind_of(value)}", hint)


def whole(value: Any, what: str, most: int) -> int:
    """The value if it is a whole number from 0 to `most`."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise Refused(f"{what} needs a whole number from 0 to {most}")


def kind_of(value: Any) -> str:
    """What a value is, in the words of the language."""
    if value is None:
        return "null"
    for kind, name in (
        (bool, "a boolean"),
        (str, "text"),
        ((int, float), "a number"),
        ((list, tuple), "a list"),
        (Mapping, "a map"),
    ):
        if isinstance(value, kind):
            return name
    return f"a value of type {type(value).__name__}"


def _defined(value: Any) -> None:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()  # noqa: SLF001


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{kind_of(value)} is not plain data")
