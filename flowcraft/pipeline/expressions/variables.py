"""Variables of a bash script that hold values, as far as plain assignments, loops, read and set show it."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowcraft.pipeline.expressions.commands import PROCESS, VALUE
from flowcraft.pipeline.expressions.frames import Command

DERIVED = "\2"  # stands for what a command has made of values


@dataclass(frozen=True, slots=True)
class Held:
    """What a variable holds: values, `whole` if as they are, first of all if it `begins` with one."""

    values: tuple[int, ...]
    whole: bool
    begins: bool


class Variables:
    """Remembers what each variable may hold."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def get(self, name: str) -> Held | None:
        """What is known of a variable; None if it holds no value."""
        return self._held.get(name)

    def hold(self, name: str, text: str, values: Sequence[int]) -> None:
        """A variable gets a text with values; it keeps those that it may have had."""
        if not values:
            return
        before = self._held.get(name)
        held = tuple(dict.fromkeys(values))
        whole, begins = DERIVED not in text and PROCESS not in text, text.startswith(VALUE)
        if before:
            held, whole, begins = (
                tuple(dict.fromkeys((*before.values, *held))),
                before.whole and whole,
                before.begins or begins,
            )
        self._held[name] = Held(held, whole, begins)

    def hold_named(self, command: Command) -> None:
        """The variables that a command sets: for, read, printf -v, set."""
        texts = [word.text for word in command.words]
        first = texts[0] if texts else ""
        if first in ("for", "select") and texts[2:3] == ["in"]:
            for word in command.words[3:]:
                self.hold(texts[1], word.text, word.values)
        elif first in ("read", "mapfile", "readarray"):
            for name in texts[1:]:
                self.hold(name, DERIVED, command.stdin())
        elif texts[:2] == ["printf", "-v"]:
            for word in command.words[3:]:
                self.hold("".join(texts[2:3]), DERIVED, word.values)
        elif first == "set":
            for name in "@*123456789":
                for word in command.words[1:]:
                    self.hold(name, word.text, word.values)
