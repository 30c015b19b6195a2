"""A mistake that JSON Schema found, as a sentence: "'retries' is -1, at least 0 is wanted"."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowcraft.core.problems import did_you_mean
from flowcraft.core.reading.syntax import cited, clean

_YAML = {"string": "text", "array": "a list", "object": "a map", "null": "nothing"}
_JSON = {"string": "a string", "array": "an array", "object": "an object", "null": "null"}
_BOTH = {"number": "a number", "integer": "a whole number", "boolean": "true or false"}

_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
}
_COUNTS = {
    "minLength": ("characters", "at least"),
    "maxLength": ("characters", "at most"),
    "minItems": ("items", "at least"),
    "maxItems": ("items", "at most"),
    "minProperties": ("keys", "at least"),
    "maxProperties": ("keys", "at most"),
}


class Words:
    """How to speak of types: in the words of YAML to people, with `json` in those of JSON to models."""

    def __init__(self, *, json: bool = False) -> None:
        self._types = _BOTH | (_JSON if json else _YAML)
        self._empty = "null" if json else "empty"

    def sentences(self, error: Any, name: str, *, wanted: str | None = None, quiet: bool = False) -> Iterator[str]:
        """What is wrong with the value called `name`; a `quiet` sentence does not repeat the value."""
        keyword = error.validator
        if keyword == "additionalProperties":
            known = error.schema.get("properties", {})
            for key in (key for key in error.instance if key not in known):
                hint = did_you_mean(key, known)
                yield f"{name} has an unknown key {cited(key)}" + (f"; {hint}" if hint else "")
        elif keyword in _COUNTS and (wanted is None or isinstance(error.instance, (list, dict))):
            unit, bound = _COUNTS[keyword]
            yield f"{name} has {len(error.instance)} {unit}, {bound} {error.validator_value} are wanted"
        elif keyword in _SAID and (wanted is None or keyword == "uniqueItems"):
            yield f"{name} {_SAID[keyword](error)}"
        else:
            wanted = wanted or self._wanted(keyword, error.validator_value)
            if wanted is None:
                yield f"{name}: {clean(error.message)}"
            else:
                yield f"{name} is not {wanted}" if quiet else f"{name} is {self._is(error)}, {wanted} is wanted"

    def hint(self, error: Any) -> str | None:
        """The nearest of the allowed values, if the wrong one is text."""
        if error.validator != "enum" or not isinstance(error.instance, str):
            return None
        return did_you_mean(error.instance, (value for value in error.validator_value if isinstance(value, str)))

    def _wanted(self, keyword: str | None, value: Any) -> str | None:
        if keyword == "type":
            return " or ".join(self._types[name] for name in ([value] if isinstance(value, str) else value))
        if keyword == "enum":
            return "one of " + ", ".join(_short(item) for item in value[:20]) + (", ..." if len(value) > 20 else "")
        if keyword == "const":
            return _short(value)
        if keyword == "pattern":
            return f"text that matches {value}"
        return _BOUNDS[keyword].format(value) if keyword in _BOUNDS else None

    def _is(self, error: Any) -> str:
        value = error.instance
        if isinstance(value, (dict, list)):
            return self._types["object" if isinstance(value, dict) else "array"]
        return self._empty if value is None or value == "" else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, str):
        return cited(value)
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def missing_key(error: Any) -> str:
    """The key that an error of `required` is about: one error for each, named in its message alone."""
    return next(str(key) for key in error.validator_value if f"{key!r} is a required property" == error.message)


def _several(error: Any) -> str:
    many = error.validator == "oneOf" and not error.context
    return "fits several of the alternatives, one is wanted" if many else "fits none of the alternatives"


# What is said after the name where no value is wanted in its place.
_SAID: Mapping[str | None, Callable[[Any], str]] = {
    "required": lambda error: f"lacks the key {cited(missing_key(error))}",
    "uniqueItems": lambda _: "has the same item twice",
    "not": lambda _: "is what the schema excludes",
    None: lambda _: "must not be there",
    "anyOf": _several,
    "oneOf": _several,
    "contains": lambda _: "holds too few or too many items of the kind that is wanted",
}
