"""What a JSON Schema that a user wrote may say, and what is wrong with one; reads schemas, no values.

Unknown keywords are mistakes here (JSON Schema ignores them, so that `requird` would check nothing).
Not known are references to elsewhere and keywords that match keys by pattern.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flowcraft.core.judging.pattern import compiled
from flowcraft.core.judging.wording import Words
from flowcraft.core.problems import did_you_mean
from flowcraft.core.reading.syntax import cited

_ABOUT = ("$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated")
_MAPS = ("$defs", "properties", "dependentSchemas")
_LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
_SCHEMAS = ("additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else")
_VALUES = ("$ref", "type", "enum", "const", "required", "dependentRequired", "uniqueItems", "pattern", "format")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minContains", "maxContains")
_SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "readOnly", "writeOnly")
KEYWORDS = frozenset((*_ABOUT, *_MAPS, *_LISTS, *_SCHEMAS, *_VALUES, *_NUMBERS, *_SIZES))
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

# Errors of the metaschema for one schema.
Judge = Callable[[dict[str, Any]], Iterable[Any]]


def misused(schema: dict[str, Any], judge: Judge) -> Iterator[str]:
    """What is wrong in the schema and in all that are inside it, in sentences."""
    return _misused(schema, schema, "the schema", judge)


def inside(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The well-formed schema, and all that are maps inside it."""
    waiting: list[Any] = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            for key, value in one.items():
                if key in _SCHEMAS:
                    waiting.append(value)
                elif key in _LISTS:
                    waiting += value
                elif key in _MAPS:
                    waiting += value.values()


def target(root: Any, reference: str) -> Any:
    """What a reference such as `#/$defs/name` stands for; raises LookupError for all that is not in `root`."""
    found = root
    start, *parts = reference.split("/")
    for part in parts:
        part = part.replace("~1", "/").replace("~0", "~")
        found = found[part] if isinstance(found, Mapping) and part in found else None
    if start != "#" or not isinstance(found, (Mapping, bool)):
        raise LookupError(reference)
    return found


def _misused(schema: Any, root: dict[str, Any], name: str, judge: Judge) -> Iterator[str]:
    """What is wrong in a schema and all that are inside it."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield f"{name} must be a map"
        return
    for key in schema:
        if key not in KEYWORDS and not key.startswith("x-"):
            hint = did_you_mean(key, KEYWORDS)
            yield f"{name} has an unknown keyword {cited(key)}" + (f"; {hint}" if hint else "")
    yield from _wrong_values(schema, name, judge)
    yield from _wrong_reference(schema, root, name)
    yield from _wrong_pattern(schema, name)
    for key, inner in _inner(schema):
        yield from _misused(inner, root, f"{name}.{key}" if name != "the schema" else key, judge)


def _inner(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in _SCHEMAS:
        if key in schema:
            yield key, schema[key]
    for key in _MAPS:
        if isinstance(schema.get(key), dict):
            yield from ((f"{key}.{name}", inner) for name, inner in schema[key].items())
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            yield from ((f"{key}[{number}]", inner) for number, inner in enumerate(schema[key]))


def _wrong_values(schema: dict[str, Any], name: str, judge: Judge) -> Iterator[str]:
    # The schemas inside are judged on their own, so that one mistake is told once.
    flat = {key: value for key, value in schema.items() if key not in _SCHEMAS}
    flat |= {key: {} for key in _MAPS if isinstance(schema.get(key), dict)}
    flat |= {key: [True] for key in _LISTS if isinstance(schema.get(key), list) and schema[key]}
    types = flat.get("type")
    for wrong in [kind for kind in (types if isinstance(types, list) else [types]) if isinstance(kind, str)]:
        if wrong not in TYPES:
            del flat["type"]
            yield f"{name} has an unknown type {cited(wrong)}; {did_you_mean(wrong, TYPES)}"
            break
    words = Words(json=True)
    for error in judge(flat):
        for sentence in words.sentences(error, cited(".".join(map(str, error.absolute_path)))):
            yield f"{name}: {sentence}"


def _wrong_reference(schema: dict[str, Any], root: dict[str, Any], name: str) -> Iterator[str]:
    if "$id" in schema and schema is not root:
        yield f"{name} has an '$id', which only the outermost schema may have"
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return
    if reference != "#" and not reference.startswith("#/"):
        yield f"{name} refers to {cited(reference)}; only references inside the schema ('#/...') are followed"
        return
    try:
        target(root, reference)
    except LookupError:
        yield f"{name} refers to {cited(reference)}, which is not in the schema"


def _wrong_pattern(schema: dict[str, Any], name: str) -> Iterator[str]:
    if isinstance(schema.get("pattern"), str):
        try:
            compiled(schema["pattern"])
        except ValueError as error:
            yield f"{name} has a 'pattern' that cannot be used: {error}"
