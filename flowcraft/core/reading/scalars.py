"""What an unquoted YAML scalar means: the core schema of YAML 1.2.2 (section 10.3.2), made stricter.

`no`, `on`, `017`, `12:30`, `1_000`, `500k` and dates are text. Numbers that are not finite, or that
Python could not print again, are refused.
"""

import math
import re
from typing import Any

_CORE = "tag:yaml.org,2002:"
MAP_TAG, LIST_TAG = _CORE + "map", _CORE + "seq"
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}
# The tags that a scalar may have.
TAGS = {_CORE + name: kind for name, kind in _TYPES.items()}

# Python refuses to convert longer ones to text, JSON included (sys.int_info.default_max_str_digits).
_MAX_DIGITS = 4300
TOO_LARGE = 10**_MAX_DIGITS

_WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_FIRST = frozenset("0123456789+-.")
# Without leading zeros, which the core schema allows: 017 is 15 to a C programmer and 17 to no one.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def plain(text: str) -> Any:
    """The value of an unquoted scalar; raises ValueError for numbers that cannot be used."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _FIRST:
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _FLOAT.fullmatch(text):
        return _finite(float(text))
    if _BASED.fullmatch(text):
        return _integer(text, 0)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("a number must be finite")
    return text


def tagged(tag: str, text: str) -> Any:
    """The value of a scalar with a core tag such as `!!str`; raises ValueError if they do not agree."""
    wanted = TAGS[tag]
    if wanted is str:
        return text
    value = plain(text)
    if wanted is float and type(value) is int:
        value = plain(f"{text}.0")
    if type(value) is not wanted:
        raise ValueError(f"this is not a YAML '{tag.removeprefix(_CORE)}'")
    return value


def _integer(text: str, base: int) -> int:
    if len(text.lstrip("+-")) > _MAX_DIGITS or abs(value := int(text, base)) >= TOO_LARGE:
        raise ValueError(f"a number may have at most {_MAX_DIGITS} digits")
    return value


def _finite(number: float) -> float:
    if math.isinf(number):
        raise ValueError("this number is too large")
    return number
