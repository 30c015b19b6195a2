"""The names that templates can begin with, the fields that stages have, and what people write instead."""

from collections.abc import Collection
from itertools import islice

from flowcraft.core.problems import Guesses

ROOTS = ("inputs", "run", "stages")
FIELDS = (
    *("output", "status", "ok", "error", "exit_code", "stderr", "seconds", "usd", "tokens", "model", "attempts"),
    "iterations",
)
RUN_FIELDS = ("id", "dir", "status")
LOOP_FIELDS = ("index", "max", "last")

_EACH = "it is there inside a stage with 'foreach' only"
_FOREIGN = {
    **dict.fromkeys(
        ("steps", "step", "jobs", "tasks", "needs", "nodes", "stage"),
        "in FlowCraft this is 'stages'",
    ),
    "outputs": "in FlowCraft this is 'stages.<id>.output'",
    **dict.fromkeys(
        ("input", "params", "parameters", "vars", "variables", "args"),
        "in FlowCraft this is 'inputs'",
    ),
    "env": "declare an input with a variable: inputs: {home: {type: string, env: HOME}}",
    "secrets": "declare an input: inputs: {token: {type: string, secret: true, env: TOKEN}}",
    "github": "declare what you need under 'inputs'",
    "loop": "it is there inside ${% for %} and a stage with 'repeat' only",
    "item": _EACH,
    "index": _EACH,
    "each": _EACH,
    "matrix": "in FlowCraft this is 'foreach', and the item is 'item'",
    "output": "name the stage: stages.<id>.output",
}


def instead(name: str, inputs: Collection[str], names: Collection[str], guesses: Guesses) -> str:
    """What to write for a name that is no stage's and not known."""
    if name in inputs:
        return f"did you mean 'inputs.{name}'?"
    if name in _FOREIGN:
        return _FOREIGN[name]
    own = (*ROOTS, *names)
    close = guesses.nearest(name, lambda: [*own, *inputs])
    if close:
        return f"did you mean '{close if close in own else f'inputs.{close}'}'?"
    known = [*own, *(f"inputs.{one}" for one in islice(inputs, 12))]
    return f"a text needs quotes: '{name}'; known: {', '.join(known[:12])}"
