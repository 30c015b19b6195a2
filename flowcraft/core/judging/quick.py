"""Whether a value fits a schema of ours, yes or no, some ten times faster than jsonschema says why not.

Made of functions, one per keyword and schema; knows the keywords that our own schemas use and refuses to judge by
others. What does not fit is judged again by jsonschema, which has the words for it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flowcraft.core.judging.keywords import target

Judge = Callable[[Any], bool]

_SILENT = frozenset(
    ("$schema", "$id", "$defs", "title", "description", "default", "examples", "x-flowcraft", "then", "else")
)
# Judged together.
_OF_KEYS = frozenset(("required", "properties", "patternProperties", "additionalProperties"))
_TYPES: Mapping[str, Judge] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
}


class Unknown(Exception):
    """A keyword that is not known here."""


class Quick:
    """Judges by the schemas of one document, `root`; each is made once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._made: dict[int, tuple[Any, Judge]] = {}

    def judge(self, schema: Any) -> Judge:
        """The function for a schema; raises Unknown."""
        if isinstance(schema, bool):
            return lambda _value: schema
        if id(schema) in self._made:
            return self._made[id(schema)][1]
        parts: list[Judge] = []

        def all_of(value: Any) -> bool:
            for part in parts:  # noqa: SIM110 - `all` with a generator takes twice the time
                if not part(value):
                    return False
            return True

        self._made[id(schema)] = (schema, all_of)  # before its parts: schemas refer to themselves
        try:
            parts += [self._part(keyword, schema) for keyword in schema if keyword not in _SILENT | _OF_KEYS]
            if not _OF_KEYS.isdisjoint(schema):
                parts.append(self._object(schema))
        except Unknown:
            self._made.clear()  # others may refer to this one, which is not whole
            raise
        if len(parts) == 1:
            self._made[id(schema)] = (schema, parts[0])
        return self._made[id(schema)][1]

    def _part(self, keyword: str, schema: Mapping[str, Any]) -> Judge:
        make = getattr(self, f"_{keyword.lstrip('$')}", None)
        if make is None:
            raise Unknown(keyword)
        made: Judge = make(schema[keyword], schema)
        return made

    def _ref(self, reference: str, _schema: Any) -> Judge:
        return self.judge(target(self._root, reference))

    def _type(self, wanted: Any, _schema: Any) -> Judge:
        kinds = [_TYPES[kind] for kind in ([wanted] if isinstance(wanted, str) else wanted)]
        return kinds[0] if len(kinds) == 1 else lambda value: any(kind(value) for kind in kinds)

    def _enum(self, wanted: list[Any], _schema: Any) -> Judge:
        if any(isinstance(one, (list, dict)) for one in wanted):
            raise Unknown("enum")
        # To JSON Schema 1 and 1.0 are the same number, but true is none.
        return lambda value: any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in wanted)

    def _const(self, wanted: Any, schema: Any) -> Judge:
        return self._enum([wanted], schema)

    def _object(self, schema: Mapping[str, Any]) -> Judge:
        """All that is said of the keys of an object, in one walk."""
        required = tuple(schema.get("required", ()))
        patterns = [
            (_pattern_of(text), self.judge(inner)) for text, inner in schema.get("patternProperties", {}).items()
        ]
        others = self.judge(schema.get("additionalProperties", True))
        known = {key: _both(self.judge(inner), key, patterns) for key, inner in schema.get("properties", {}).items()}

        def fits(value: Any) -> bool:
            if not isinstance(value, dict):
                return True
            for key in required:
                if key not in value:
                    return False
            for key, inner in value.items():
                judge = known.get(key) or _matched(key, patterns) or others
                if not judge(inner):
                    return False
            return True

        return fits

    def _propertyNames(self, wanted: Any, _schema: Any) -> Judge:
        judge = self.judge(wanted)
        return lambda value: not isinstance(value, dict) or all(judge(key) for key in value)

    def _items(self, wanted: Any, _schema: Any) -> Judge:
        judge = self.judge(wanted)
        return lambda value: not isinstance(value, list) or all(judge(item) for item in value)

    def _minItems(self, least: int, _schema: Any) -> Judge:
        return lambda value: not isinstance(value, list) or len(value) >= least

    def _maxItems(self, most: int, _schema: Any) -> Judge:
        return lambda value: not isinstance(value, list) or len(value) <= most

    def _uniqueItems(self, wanted: bool, _schema: Any) -> Judge:
        # Texts are all that our lists hold; where there is anything else the slow judge decides.
        return lambda value: (
            not wanted
            or not isinstance(value, list)
            or (all(isinstance(item, str) for item in value) and len(set(value)) == len(value))
        )

    def _minProperties(self, least: int, _schema: Any) -> Judge:
        return lambda value: not isinstance(value, dict) or len(value) >= least

    def _minLength(self, least: int, _schema: Any) -> Judge:
        return lambda value: not isinstance(value, str) or len(value) >= least

    def _maxLength(self, most: int, _schema: Any) -> Judge:
        return lambda value: not isinstance(value, str) or len(value) <= most

    def _pattern(self, text: str, _schema: Any) -> Judge:
        pattern = _pattern_of(text)
        return lambda value: not isinstance(value, str) or bool(pattern.search(value))

    def _minimum(self, least: float, _schema: Any) -> Judge:
        return lambda value: not _TYPES["number"](value) or value >= least

    def _maximum(self, most: float, _schema: Any) -> Judge:
        return lambda value: not _TYPES["number"](value) or value <= most

    def _exclusiveMinimum(self, least: float, _schema: Any) -> Judge:
        return lambda value: not _TYPES["number"](value) or value > least

    def _if(self, test: Any, schema: Mapping[str, Any]) -> Judge:
        holds = self.judge(test)
        yes, no = self.judge(schema.get("then", True)), self.judge(schema.get("else", True))
        return lambda value: yes(value) if holds(value) else no(value)


def _matched(key: str, patterns: list[tuple[re.Pattern[str], Judge]]) -> Judge | None:
    """The judge of a key by the patterns that it matches, if there are any."""
    found = [judge for pattern, judge in patterns if pattern.search(key)]
    return (lambda value: all(judge(value) for judge in found)) if found else None


def _both(judge: Judge, key: str, patterns: list[tuple[re.Pattern[str], Judge]]) -> Judge:
    matched = _matched(key, patterns)
    return judge if matched is None else lambda value: judge(value) and matched(value)


def _pattern_of(text: str) -> re.Pattern[str]:
    """A pattern of our own schemas, which are simple enough for `re`; in JSON Schema `$` is the very end."""
    if re.search(r"\\[\w$]|\$.", text):  # `\d` holds other digits to `re`
        raise Unknown(text)
    return re.compile(f"{text[:-1]}\\Z" if text.endswith("$") else text)
