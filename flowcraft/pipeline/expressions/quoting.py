"""How values may stand in a bash script; refuses (FC210) where bash would not take one as data.

That is where it does not expand it ('...', quoted heredocs), reads it as code (`...`, ${...}), or where the command
would: eval, bash -c, awk, what is piped into an interpreter.
"""

from collections.abc import Sequence
from dataclasses import replace

from flowcraft.pipeline.expressions.commands import Use, example, uses
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
        found += uses(command.words, command.stdin())
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


def _refuse_code(script: str, found: Sequence[Slot], used: Sequence[Use]) -> None:
    places = [(min(use.values), use) for use in used if use.kind == "code"]
    if places:
        number, use = min(places, key=lambda place: place[0])
        hint = f"pass it as an argument: {example(use.example, '${{ x }}', listed=False)}"
        fail(script, found[number].start, use.message, code="FC210", hint=hint)
