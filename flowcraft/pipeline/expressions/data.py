"""What a value of the expression language is: plain data, as JSON has it, and what it says when it is not."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, Undefined

from flowcraft.core.problems import counted

MAX_NUMBER = 1 << 63
# Nesting without end would make the blanks grow with its square: what becomes longer than this is not indented.
INDENTED = 6

Function = Callable[..., Any]


class Refused(Exception):
    """An operation that is not possible with these values; `hint` says what is."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Null(Refused):
    """Null where text is needed."""


class Missing(StrictUndefined):
    """A name that stands for nothing; any use but `default` and `is defined` is an error."""


def field_of(value: Any, name: Any) -> Any:
    """What a map has under a name or a list at a number; nothing else has parts."""
    if isinstance(value, Undefined):
        return value
    if isinstance(value, Mapping):
        if isinstance(name, (str, int)) and name in value:
            return value[name]
        known = ", ".join(str(key) for key in list(value)[:12])
        return Missing(f"there is no '{name}' here" + (f"; there is: {known}" if known else ", it is empty"))
    if isinstance(value, (list, tuple)) and isinstance(name, int) and not isinstance(name, bool):
        if -len(value) <= name < len(value):
            return value[name]
        return Missing(f"the list has {counted(len(value), 'item')}, there is no item {name}")
    return Missing(f"{kind_of(value)} has no '{name}'")


def text_of(value: Any) -> str:
    """The value as it stands in a text: a string as it is, all else as JSON; nothing is an error."""
    if isinstance(value, str):
        return value
    defined(value)
    if value is None:
        raise Null("this is null, which has no text", "give a fallback: ${{ x | default('...') }}")
    if isinstance(value, (bool, int, float, Mapping, list, tuple)):
        return indented(value)
    raise Refused(f"{kind_of(value)} cannot be put into a text")


def indented(value: Any, indent: int = 2) -> str:
    """The value as JSON for readers, at most `INDENTED` times as long as without blanks."""
    made = as_json(value, indent)
    if "\n" + 4 * indent * " " not in made and indent == 2:
        return made
    compact = as_json(value, separators=(",", ":"))
    return made if len(made) <= INDENTED * len(compact) else compact


def as_json(value: Any, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """The value as JSON text."""
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators, default=_plain
        )
    except (TypeError, ValueError) as error:
        raise Refused(f"this cannot be written as JSON: {error}") from error


def number(value: Any) -> int | float:
    """The value if it is a number of ordinary size."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value) and abs(value) <= MAX_NUMBER:
            return value
        raise Refused("the number becomes too large")
    defined(value)
    raise Refused(f"a number is needed here, not {kind_of(value)}")


def text(value: Any, what: str) -> str:
    """The value if it is text; `what` needs it."""
    if isinstance(value, str):
        return value
    defined(value)
    raise Refused(f"{what} needs text, not {kind_of(value)}", "as text: x | string")


def items(value: Any, what: str) -> list[Any]:
    """The items of a list, or the keys of a map; `what` needs them."""
    if isinstance(value, (list, tuple, Mapping)):
        return list(value)
    defined(value)
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


def is_defined(value: Any) -> bool:
    """Whether the value stands for something."""
    return not isinstance(value, Undefined)


def defined(value: Any) -> None:
    """Raise the error of a value that stands for nothing."""
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()  # noqa: SLF001 - the only way to have its message raised


def _plain(value: Any) -> Any:
    defined(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{kind_of(value)} is not plain data")
