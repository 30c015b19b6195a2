"""How values may stand in a bash script; refuses (FC210) where bash would not take one as data.

That is where it does not expand it ('...', quoted heredocs), reads it as code (`...`, ${...}), or where the command
would: eval, bash -c, awk, what is piped into an interpreter.
"""

from collections.abc import Sequence
from dataclasses import replace

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expressions.commands import VALUE, Use, Word, example, uses
from flowcraft.pipeline.expressions.frames import Slot
from flowcraft.pipeline.expressions.lexer import fail
from flowcraft.pipeline.expressions.scanning import Scanner


def slots(script: str, spans: Sequence[tuple[int, int]]) -> list[Slot]:
    """How the values at `spans` stand; raises ExpressionError with FC210."""
    if not spans:
        return []
    scanner = Scanner(script, spans)
    scanner.scan()
    found = [*scanner.words.uses]
    for command in scanner.words.commands:
        found += judged(command.words, command.stdin())
    _refuse_code(script, scanner.slots, found)
    decides = {value: use.message for use in found for value in use.values}
    return [
        replace(
            slot,
            number=slot.number or number in scanner.words.numbers,
            option_of=slot.option_of or scanner.options.get(number, ""),
            decides=decides.get(number, ""),
            split=number in scanner.split,
        )
        for number, slot in enumerate(scanner.slots)
    ]


def judged(words: Sequence[Word], fed: tuple[int, ...] = ()) -> list[Use]:
    """How a command would use values other than as data, also as arguments of a script in it: bash -c 'eval "$1"'."""
    found: list[Use] = []
    for use in uses(words, fed):
        found += _in_script(use) if use.kind == "script" else [use]
    return found


def _in_script(use: Use) -> list[Use]:
    scanner = Scanner(use.message, ())
    for number, values in enumerate(use.arguments, 1):
        for name in (str(number), "@", "*"):
            scanner.words.variables.hold(name, VALUE, values)
    try:
        scanner.scan()
    except ExpressionError:  # nested too deep to tell
        return [Use("code", use.values)]
    found = [*scanner.words.uses]
    for command in scanner.words.commands:
        found += judged(command.words, command.stdin())
    return found


def _refuse_code(script: str, found: Sequence[Slot], used: Sequence[Use]) -> None:
    places = [(min(use.values), use) for use in used if use.kind == "code"]
    if places:
        number, use = min(places, key=lambda place: place[0])
        hint = f"pass it as an argument: {example(use.example, '${{ x }}', listed=False)}"
        fail(script, found[number].start, use.message, code="FC210", hint=hint)
