"""Commands in list form: which of their words may hold no value, or none from a result (FC210)."""

import re
from functools import lru_cache

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Template, parts_of
from flowcraft.pipeline.expressions import commands
from flowcraft.pipeline.expressions.commands import VALUE, Use, Word, decided, example
from flowcraft.pipeline.expressions.quoting import judged

_PUT_IN = re.compile(f"([\"']?){VALUE}\\1")


@lru_cache(maxsize=4096)
def uses_in(sources: tuple[str, ...]) -> tuple[Use, ...]:
    """How the words of a command would use their values other than as data; `values` are places of words."""
    return tuple(judged([_word(source, number) for number, source in enumerate(sources)]))


def decided_by(name: str) -> Use | None:
    """The use of a value as this variable of the environment, if programs take it for more than data."""
    return next(decided(name, (0,)), None)


def advice(use: Use, source: str) -> str:
    """What to write instead of the word `source`."""
    if use.kind == "decides":
        return commands.advice(use.message)
    value = next((text for kind, text in parts_of(source) if kind == "value"), "${{ x }}")
    code = _PUT_IN.sub('"$1"', _marked(source))
    if use.example == "shell" and code.count("$1") == 1 and not re.search(r"['\n]", code) and " " in code:
        return f"pass it as an argument: run: [bash, -c, '{code}', _, \"{value}\"]"
    return f"pass it as an argument: {example(use.example, value, listed=True)}"


def _word(source: str, number: int) -> Word:
    if "${" not in source:
        return Word(source)
    try:
        template = Template(source)
        if template.references or "read" in source or "glob" in source:
            return Word(_marked(source), (number,))
        return Word(template.text({}))
    except ExpressionError:  # told where templates are read
        return Word(source)


def _marked(source: str) -> str:
    return "".join({"text": text, "value": VALUE}.get(kind, "") for kind, text in parts_of(source))
