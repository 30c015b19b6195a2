"""Values in bash scripts: the variable that takes the place of each.

Only the name of a variable ever goes into the script; values travel by environment, large ones by file.
Outside of quotes the variable is quoted, so that a value is always one word. Where bash calculates,
only numbers may go in: it runs the `$(...)` of an array index, wherever that came from.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from flowcraft.pipeline.expressions.frames import Slot
from flowcraft.pipeline.expressions.lexer import fail

Spill = Callable[[str, str], str]

NAME = "FLOWCRAFT_VALUE_"
MAX_VALUE_BYTES = 64 * 1024  # Linux allows 128 KiB for one variable with its name
MAX_TOTAL_BYTES = 512 * 1024  # of some 2 MiB for the whole environment and the arguments

OPTION = re.compile(r"--?[A-Za-z]")

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def filled(
    script: str, places: Sequence[Slot], values: Sequence[tuple[Any, str]], spill: Spill | None
) -> tuple[str, dict[str, str]]:
    """The script with variables for its values (each with its text), and their environment."""
    names: dict[str, str] = {}
    env: dict[str, str] = {}
    out: list[str] = []
    reads: list[str] = []
    at = used = 0
    for place, (value, text) in zip(places, values, strict=True):
        size = _admitted(script, place, value, text)
        if text not in names:
            name = names[text] = f"{NAME}{len(names) + 1}"
            used += size
            if size > MAX_VALUE_BYTES or used > MAX_TOTAL_BYTES:
                env[f"{name}_FILE"] = _spilled(script, place, name, text, spill)
                # `read` keeps every character, where $(<file) would drop the last line ends.
                reads.append(f"IFS= read -r -d '' {name} < \"${{{name}_FILE}}\" || :; ")
            else:
                env[name] = text
        word = f"${{{names[text]}}}"
        out += [script[at : place.start], word if place.quoted else f'"{word}"']
        at = place.end
    return "".join([*reads, *out, script[at:]]), env


def is_option(place: Slot, text: str) -> bool:
    """Whether a command would take the value as an option."""
    words = text.split() if place.split else [text]
    return place.option_of != "" and any(OPTION.match(word) for word in words)


def _admitted(script: str, place: Slot, value: Any, text: str) -> int:
    """The size of the value in bytes, if it may stand here."""
    if "\0" in text:
        message = "the value holds a NUL character, which no shell can take"
        fail(script, place.start, message, code="FC300", hint="remove it first")
    if place.number and (isinstance(value, bool) or not _NUMBER.fullmatch(text)):
        hint = "make it a number: ${{ x | int }}"
        fail(script, place.start, "bash calculates here, so the value must be a number", code="FC210", hint=hint)
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        fail(script, place.start, "the value holds half of a surrogate pair, which is no text", hint="repair it first")


def _spilled(script: str, place: Slot, name: str, text: str, spill: Spill | None) -> str:
    if spill is None:
        fail(script, place.start, f"the value is larger than {MAX_VALUE_BYTES >> 10} KiB", hint="shorten it")
    return spill(name, text)
