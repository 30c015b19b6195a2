"""How much one value can cost a schema with references: these and alternatives lead to others for the same value.

Counted for the worst value without trying any. Schemas for the parts of a value do not count: the value ends somewhere.
"""

from collections.abc import Iterator
from typing import Any

from flowcraft.core.judging.keywords import inside, target

# Keywords looked at for one value: about a second.
MAX_WORK = 80_000
_MAX_STEPS = 100  # from schema to schema, for the same value

_ENDLESS = "the schema refers to itself without end"
_FAR = f"the schema leads from one reference or alternative to the next more than {_MAX_STEPS} times"
_MULTIPLIED = "the schema multiplies its alternatives beyond what can be checked"


def excess(schema: dict[str, Any]) -> list[str]:
    """Why a schema, with which nothing else is wrong, could take for ever; [] if it cannot."""
    growth = _Growth(schema)
    try:
        most = max(growth.count(one)[0] for one in inside(schema))
    except _TooMuch as told:
        return [str(told)]
    return [_MULTIPLIED] if most > MAX_WORK else []


class _TooMuch(Exception):
    """Why the counting stopped."""


class _Growth:
    """Counts the work of each schema once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        # By id: keywords looked at for one value, and steps to the last schema; None while they are counted.
        self._known: dict[int, tuple[int, int] | None] = {}

    def count(self, schema: Any, before: int = 0) -> tuple[int, int]:
        """The work and the steps of a schema to which `before` steps lead."""
        if not isinstance(schema, dict):
            return 1, 0
        if id(schema) not in self._known:
            if before > _MAX_STEPS:
                raise _TooMuch(_FAR)
            self._known[id(schema)] = None
            following = [self.count(one, before + 1) for one in self._of_the_same(schema)]
            work = 1 + len(schema) + sum(work for work, _ in following)
            self._known[id(schema)] = work, 1 + max((steps for _, steps in following), default=-1)
        found = self._known[id(schema)]
        if found is None:
            raise _TooMuch(_ENDLESS)
        if found[1] > _MAX_STEPS:
            raise _TooMuch(_FAR)
        return found

    def _of_the_same(self, schema: dict[str, Any]) -> Iterator[Any]:
        """The schemas that the value of `schema` is held against too."""
        for key in ("allOf", "anyOf", "oneOf"):
            yield from schema.get(key, ())
        for key in ("not", "if", "then", "else"):
            if key in schema:
                yield schema[key]
        yield from schema.get("dependentSchemas", {}).values()
        if "$ref" in schema:
            yield target(self._root, schema["$ref"])
