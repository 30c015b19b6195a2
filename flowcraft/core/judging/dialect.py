"""Schemas with which surely nothing is wrong, as most are: known keywords with values of their types.

Looking for mistakes with the metaschema takes a millisecond or two for each schema, this a hundredth of it.
Source: the meta-schemas of JSON Schema 2020-12; the keywords are those of `keywords`.
"""

from typing import Any

from flowcraft.core.judging.keywords import TYPES, inside, target
from flowcraft.core.judging.pattern import compiled
from flowcraft.core.judging.quick import Quick

_SCHEMA = {"$ref": "#"}
_SCHEMAS = {"type": "object", "additionalProperties": _SCHEMA}
_LIST = {"type": "array", "items": _SCHEMA, "minItems": 1}
_TEXT = {"type": "string"}
_YES_OR_NO = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number"}
_NAMES = {"type": "array", "items": _TEXT, "uniqueItems": True}
_TYPES = {"type": "array", "items": {"enum": list(TYPES)}, "minItems": 1, "uniqueItems": True}

# No '$id', which has rules of its own.
_DIALECT: dict[str, Any] = {
    "type": ["object", "boolean"],
    "properties": {
        "type": {"if": {"type": "array"}, "then": _TYPES, "else": {"enum": list(TYPES)}},
        "enum": {"type": "array", "minItems": 1},
        "required": _NAMES,
        "dependentRequired": {"type": "object", "additionalProperties": _NAMES},
        "examples": {"type": "array"},
        "multipleOf": {"type": "number", "exclusiveMinimum": 0},
        **dict.fromkeys(("const", "default"), True),
        **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _YES_OR_NO),
        **dict.fromkeys(("$schema", "$comment", "title", "description", "$ref", "pattern", "format"), _TEXT),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNT),
        **dict.fromkeys(("minContains", "maxContains"), _COUNT),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
        **dict.fromkeys(("properties", "$defs", "dependentSchemas"), _SCHEMAS),
        **dict.fromkeys(("prefixItems", "allOf", "anyOf", "oneOf"), _LIST),
        **dict.fromkeys(("additionalProperties", "propertyNames", "items", "contains"), _SCHEMA),
        **dict.fromkeys(("not", "if", "then", "else"), _SCHEMA),
    },
    "patternProperties": {"^x-": True},
    "additionalProperties": False,
}
_fits = Quick(_DIALECT).judge(_DIALECT)


def is_sound(schema: dict[str, Any], text: str) -> bool:
    """Whether a schema is surely right, with its patterns and references; `text` is its JSON.

    Most have neither, which is seen in the text without a walk.
    """
    special = '"pattern"' in text or '"$ref"' in text
    return _fits(schema) and (not special or all(_usable(one, schema) for one in inside(schema)))


def _usable(schema: dict[str, Any], root: dict[str, Any]) -> bool:
    try:
        if "pattern" in schema:
            compiled(schema["pattern"])
        if "$ref" in schema:
            target(root, schema["$ref"])
    except (ValueError, LookupError):
        return False
    return True
