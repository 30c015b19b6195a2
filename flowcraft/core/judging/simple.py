"""Schemas with which surely nothing is wrong, as most are: plain keywords with values of their types, no references.

Looking for mistakes with the metaschema takes a millisecond or two for each schema, this a hundredth of it.
"""

from typing import Any

from flowcraft.core.judging.keywords import TYPES
from flowcraft.core.judging.quick import Quick

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number"}
_SCHEMAS = {"type": "object", "additionalProperties": {"$ref": "#"}}
_NAMES = {"type": "array", "items": _TEXT, "uniqueItems": True}

_SIMPLE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"enum": list(TYPES)},
        "properties": _SCHEMAS,
        "required": _NAMES,
        "additionalProperties": {"type": ["boolean", "object"], "if": {"type": "object"}, "then": {"$ref": "#"}},
        "items": {"$ref": "#"},
        "enum": {"type": "array", "minItems": 1},
        **dict.fromkeys(("title", "description"), _TEXT),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNT),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
        "uniqueItems": {"type": "boolean"},
        "default": True,
        "examples": {"type": "array"},
    },
    "additionalProperties": False,
}
is_simple = Quick(_SIMPLE).judge(_SIMPLE)
