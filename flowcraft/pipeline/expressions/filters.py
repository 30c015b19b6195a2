"""The filters and tests of the expression language: all there are, written for plain data.

Each takes the work counter first and the value second. None is lazy, none calls a method of a value
that is not plain data, and what could grow is measured before it is made.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from jinja2 import Undefined

from flowcraft.pipeline.expressions.data import (
    Function,
    Refused,
    as_json,
    defined,
    indented,
    items,
    kind_of,
    number,
    text,
    text_of,
    whole,
)
from flowcraft.pipeline.expressions.lists import LIST_FILTERS, picked
from flowcraft.pipeline.expressions.work import ITEM, Work

_NOTHING = object()
_MAX_WIDTH = 1000


def _default(work: Work, value: Any, other: Any = "", falsy: Any = False) -> Any:
    return other if value is None or isinstance(value, Undefined) or (falsy is True and not value) else value


def _length(work: Work, value: Any) -> int:
    return len(value) if isinstance(value, str) else len(items(value, "length"))


def _join(work: Work, value: Any, between: str = "", attribute: Any = None) -> str:
    parts = [text_of(part) for part in picked(work, items(value, "join"), attribute)]
    work.room(sum(map(len, parts)) + len(text(between, "join")) * max(0, len(parts) - 1))
    return between.join(parts)


def _tojson(work: Work, value: Any, indent: Any = None) -> str:
    defined(value)
    made = as_json(value) if indent is None else indented(value, whole(indent, "the indent of tojson", 8))
    work.room(4 * len(made) // 4)
    work.charge(3 * len(made))
    return made


def _fromjson(work: Work, value: Any) -> Any:
    work.charge(ITEM * len(text(value, "fromjson")))
    try:
        return json.loads(value, parse_constant=_no_constant, parse_int=_json_int)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise Refused(f"this text is not JSON: {why}", "ask for JSON: output: json, or a schema") from error


def _lower(work: Work, value: Any) -> str:
    return text(value, "lower").lower()


def _upper(work: Work, value: Any) -> str:
    return text(value, "upper").upper()


def _trim(work: Work, value: Any, characters: Any = None) -> str:
    return text(value, "trim").strip(None if characters is None else text(characters, "trim"))


def _replace(work: Work, value: Any, old: Any, new: Any) -> str:
    before, gone, there = text(value, "replace"), text(old, "replace"), text(new, "replace")
    work.charge(len(before))
    if not gone:
        raise Refused("replace needs a text to look for, not an empty one")
    work.room(len(before) + max(0, before.count(gone) * (len(there) - len(gone))))
    return before.replace(gone, there)


def _map(work: Work, value: Any, name: Any = None, *args: Any, attribute: Any = None, **more: Any) -> list[Any]:
    if attribute is not None:
        return picked(work, items(value, "map"), attribute, more.get("default"))
    chosen = FILTERS.get(name) if isinstance(name, str) else None
    if chosen is None:
        field = name if isinstance(name, str) else "title"
        raise Refused(f"map needs a filter, not '{name}'", f"a field of each item: map(attribute='{field}')")
    return [measured(chosen, work, item, *args, **more) for item in items(value, "map")]


def _round(work: Work, value: Any, digits: Any = 0) -> int | float:
    digits = whole(digits, "round", 15)
    return round(number(value), digits) if digits else round(number(value))


def _int(work: Work, value: Any, default: Any = _NOTHING) -> Any:
    found = _parsed(value)
    return _otherwise("int", value, default) if found is None else int(found)


def _float(work: Work, value: Any, default: Any = _NOTHING) -> Any:
    found = _parsed(value)
    return _otherwise("float", value, default) if found is None else float(found)


def _string(work: Work, value: Any) -> str:
    return text_of(value)


def _list(work: Work, value: Any) -> list[Any]:
    return items(value, "list")


def _indent(work: Work, value: Any, width: Any = 4, first: Any = False) -> str:
    blanks = " " * whole(width, "indent", _MAX_WIDTH)
    lines = text(value, "indent").split("\n")
    work.room(len(value) + len(blanks) * len(lines))
    moved = [blanks + line if line and (first is True or at) else line for at, line in enumerate(lines)]
    return "\n".join(moved)


def _truncate(work: Work, value: Any, length: Any = 255, end: Any = "...") -> str:
    most, whole_text, mark = whole(length, "truncate", 1 << 20), text(value, "truncate"), text(end, "truncate")
    return whole_text if len(whole_text) <= most else whole_text[: max(0, most - len(mark))] + mark


def _wordcount(work: Work, value: Any) -> int:
    work.charge(4 * len(text(value, "wordcount")))
    return len(value.split())


def _lines(work: Work, value: Any) -> list[str]:
    work.charge(ITEM * text(value, "lines").count("\n"))
    return [line.removesuffix("\r") for line in value.removesuffix("\n").split("\n")] if value else []


def _parsed(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, str) and len(value) <= 40:
        for make in (int, float):
            try:
                return number(make(value))
            except (ValueError, Refused):
                continue
    return None


def _otherwise(name: str, value: Any, default: Any) -> Any:
    if default is _NOTHING:
        shown = f"'{value[:40]}'" if isinstance(value, str) else kind_of(value)
        raise Refused(f"{shown} is not a number", f"give a fallback: x | {name}(0)")
    return default


def _json_int(digits: str) -> int | float:
    # int() of thousands of digits is slow, or refused by Python itself.
    return number(int(digits) if len(digits) <= 20 else math.inf)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def measured(function: Function, work: Work, value: Any, *args: Any, **more: Any) -> Any:
    """Apply a filter, with what it takes and makes charged."""
    work.charge(_size(value))
    try:
        made = function(work, value, *args, **more)
    except TypeError as error:
        raise Refused(f"this filter is used in a wrong way: {_signature(error)}") from error
    if isinstance(made, str):
        work.room(len(made))
    work.charge(_size(made))
    return made


def _signature(error: TypeError) -> str:
    return str(error).partition("() ")[2] or "its values do not fit"


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return ITEM * len(value) if isinstance(value, (list, tuple, Mapping)) else 1


FILTERS: dict[str, Function] = {
    **LIST_FILTERS,
    "default": _default,
    "length": _length,
    "join": _join,
    "tojson": _tojson,
    "fromjson": _fromjson,
    "lower": _lower,
    "upper": _upper,
    "trim": _trim,
    "replace": _replace,
    "map": _map,
    "round": _round,
    "int": _int,
    "float": _float,
    "string": _string,
    "list": _list,
    "indent": _indent,
    "truncate": _truncate,
    "wordcount": _wordcount,
    "lines": _lines,
}
