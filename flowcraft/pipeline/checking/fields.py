"""Which fields a value has, by its JSON Schema, as far as the schema says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowcraft.core.judging.keywords import target

# With these a schema may allow more than its `properties` name.
_OPEN = ("anyOf", "oneOf", "allOf", "if", "not", "patternProperties", "dependentSchemas", "const", "enum")
_WORDS = {
    "string": "is text",
    "integer": "is a number",
    "number": "is a number",
    "boolean": "is true or false",
    "null": "is null",
    "array": "is a list",
}
BOOLEAN, LONG = _WORDS["boolean"], (_WORDS["string"], _WORDS["array"])
_MAX_REFS = 20


@dataclass(frozen=True, slots=True)
class Lack:
    """The field number `depth` of a path is not there; `known` are those that are, with their types."""

    depth: int
    what: str = ""
    known: Mapping[str, str] = field(default_factory=dict)


def lack(schema: Mapping[str, Any], path: Sequence[str | int]) -> Lack | None:
    """What of `path` a value that fits `schema` does not have; None if that cannot be said."""
    at: Any = schema
    for depth, part in enumerate(path):
        at = _followed(schema, at)
        if not isinstance(at, dict) or any(key in at for key in _OPEN):
            return None
        kind = at.get("type")
        if isinstance(part, int) and kind == "array":
            at = at.get("items")
        elif isinstance(kind, str) and kind in _WORDS:
            return Lack(depth, _WORDS[kind])
        elif isinstance(part, int) or not isinstance(at.get("properties"), dict):
            return None
        elif part in at["properties"]:
            at = at["properties"][part]
        else:
            return Lack(depth, known={name: _kind(inner) for name, inner in at["properties"].items()})
    return None


def kind_at(schema: Mapping[str, Any], path: Sequence[str | int]) -> str | None:
    """What the value at a path is for sure, in words such as "is text"; None if that cannot be said."""
    at: Any = schema
    for part in (*path, None):
        at = _followed(schema, at)
        if not isinstance(at, dict) or any(key in at for key in _OPEN):
            return None
        if part is not None:
            known = at.get("properties")
            at = at.get("items") if isinstance(part, int) else known.get(part) if isinstance(known, dict) else None
    return _WORDS.get(at.get("type")) if isinstance(at.get("type"), str) else None


def _followed(root: Mapping[str, Any], schema: Any) -> Any:
    """The schema that a chain of `$ref` inside `root` ends at."""
    for _ in range(_MAX_REFS):
        if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
            return schema
        try:
            schema = target(root, schema["$ref"])
        except LookupError:
            return None
    return None


def _kind(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return kind if isinstance(kind, str) else ""
