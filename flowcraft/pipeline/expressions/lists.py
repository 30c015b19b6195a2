"""The filters for lists, and the tests, which select and reject take by name."""

from collections.abc import Mapping
from functools import cmp_to_key
from typing import Any

from jinja2 import Undefined

from flowcraft.pipeline.expressions.data import Function, Refused, as_json, field_of, items, kind_of, number, text
from flowcraft.pipeline.expressions.work import ITEM, Work


def _first(work: Work, value: Any) -> Any:
    return field_of(items(value, "first"), 0)


def _last(work: Work, value: Any) -> Any:
    return field_of(items(value, "last"), -1)


def _sort(work: Work, value: Any, reverse: Any = False, attribute: Any = None) -> list[Any]:
    found = items(value, "sort")
    work.charge(ITEM * len(found) * max(1, len(found).bit_length()))
    keys = picked(work, found, attribute)
    order = sorted(range(len(found)), key=lambda at: _ORDER(keys[at]), reverse=reverse is True)
    return [found[at] for at in order]


def _unique(work: Work, value: Any, attribute: Any = None) -> list[Any]:
    found = items(value, "unique")
    seen: dict[str, Any] = {}
    for item, key in zip(found, picked(work, found, attribute), strict=True):
        made = as_json(key)
        work.charge(4 * len(made) + 4 * ITEM)
        seen.setdefault(made, item)
    return list(seen.values())


def _sum(work: Work, value: Any, attribute: Any = None, start: Any = 0) -> int | float:
    return number(number(start) + sum(number(part) for part in picked(work, items(value, "sum"), attribute)))


def _min(work: Work, value: Any, attribute: Any = None) -> Any:
    return _first(work, _sort(work, value, attribute=attribute))


def _max(work: Work, value: Any, attribute: Any = None) -> Any:
    return _last(work, _sort(work, value, attribute=attribute))


def _select(work: Work, value: Any, test: Any = None, *args: Any) -> list[Any]:
    return [item for item in items(value, "select") if _passes(work, item, test, args)]


def _reject(work: Work, value: Any, test: Any = None, *args: Any) -> list[Any]:
    return [item for item in items(value, "reject") if not _passes(work, item, test, args)]


def _selectattr(work: Work, value: Any, name: Any, test: Any = None, *args: Any) -> list[Any]:
    return [item for item in items(value, "selectattr") if _passes(work, part_of(item, name), test, args)]


def _rejectattr(work: Work, value: Any, name: Any, test: Any = None, *args: Any) -> list[Any]:
    return [item for item in items(value, "rejectattr") if not _passes(work, part_of(item, name), test, args)]


def picked(work: Work, values: list[Any], attribute: Any, default: Any = None) -> list[Any]:
    work.charge(ITEM * len(values))
    if attribute is None:
        return values
    found = [part_of(value, attribute) for value in values]
    if default is None:
        return found
    return [default if part is None or isinstance(part, Undefined) else part for part in found]


def part_of(value: Any, path: Any) -> Any:
    if isinstance(path, int):
        return field_of(value, path)
    for name in text(path, "an attribute").split("."):
        value = field_of(value, int(name) if name.isdecimal() and len(name) < 10 else name)
    return value


def _passes(work: Work, value: Any, test: Any, args: tuple[Any, ...]) -> bool:
    work.charge(ITEM)
    if test is None:
        if isinstance(value, Undefined):
            return False
        return bool(value)
    chosen = TESTS.get(test) if isinstance(test, str) else None
    if chosen is None:
        raise Refused(f"there is no test '{test}'", f"known: {', '.join(sorted(TESTS))}")
    work.weigh(value)
    return bool(chosen(work, value, *args))


def _compared(left: Any, right: Any) -> int:
    kinds: tuple[Any, ...] = (str, (int, float), (list, tuple))
    for kind in kinds:
        if isinstance(left, kind) and isinstance(right, kind):
            return int(left > right) - int(left < right)
    raise Refused(f"{kind_of(left)} and {kind_of(right)} have no order", "sort values of one kind")


_ORDER = cmp_to_key(_compared)


def _in(work: Work, value: Any, other: Any) -> bool:
    work.weigh(other)
    if isinstance(other, str):
        return text(value, "in") in other
    return value in items(other, "in") if not isinstance(value, Undefined) else False


TESTS: dict[str, Function] = {
    "defined": lambda work, value: not isinstance(value, Undefined),
    "undefined": lambda work, value: isinstance(value, Undefined),
    "none": lambda work, value: value is None,
    "true": lambda work, value: value is True,
    "false": lambda work, value: value is False,
    "boolean": lambda work, value: isinstance(value, bool),
    "string": lambda work, value: isinstance(value, str),
    "number": lambda work, value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda work, value: isinstance(value, int) and not isinstance(value, bool),
    "mapping": lambda work, value: isinstance(value, Mapping),
    "sequence": lambda work, value: isinstance(value, (list, tuple)),
    "even": lambda work, value: number(value) % 2 == 0,
    "odd": lambda work, value: number(value) % 2 == 1,
    "divisibleby": lambda work, value, by: number(value) % (number(by) or 1) == 0,
    "in": _in,
    "eq": lambda work, value, other: bool(value == other),
    "ne": lambda work, value, other: bool(value != other),
    "lt": lambda work, value, other: _compared(value, other) < 0,
    "le": lambda work, value, other: _compared(value, other) <= 0,
    "gt": lambda work, value, other: _compared(value, other) > 0,
    "ge": lambda work, value, other: _compared(value, other) >= 0,
}

LIST_FILTERS: dict[str, Function] = {
    "first": _first,
    "last": _last,
    "sort": _sort,
    "unique": _unique,
    "sum": _sum,
    "min": _min,
    "max": _max,
    "select": _select,
    "reject": _reject,
    "selectattr": _selectattr,
    "rejectattr": _rejectattr,
}
