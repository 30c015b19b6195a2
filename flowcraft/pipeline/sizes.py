"""How large the text of a template can become, without running it: a bound for the ceiling of `plan`.

Sizes are counted in bytes where a text is known, and in tokens where it is a model's answer; no tokenizer makes more
tokens than there are bytes, so a sum of both bounds the tokens of the whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import nodes

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Script, Template, tree_of
from flowcraft.pipeline.expressions.data import as_json
from flowcraft.pipeline.expressions.references import Path
from flowcraft.pipeline.expressions.work import MAX_ITERATIONS, MAX_TEXT

NUMBER = 25  # characters of any number, boolean or null
# A list or map is written as indented JSON: small values in nested lists become this much longer.
INDENTED = 6

_SMALL = frozenset(("length", "wordcount", "sum", "int", "float", "round"))
_SAME = frozenset(
    ("first", "last", "min", "max", "trim", "lower", "unique", "sort", "select", "reject", "selectattr", "rejectattr")
) | {"string", "list", "lines", "fromjson"}
_FACTORS = {"upper": 3, "tojson": 6, "map": 6}


@dataclass(frozen=True, slots=True)
class Size:
    """At most so much; `structured` values may be lists or maps."""

    most: int
    structured: bool = False

    @property
    def printed(self) -> int:
        """As text."""
        return min(self.most * INDENTED if self.structured else self.most, MAX_TEXT)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of sizes: of dotted names (`of`), of files by their path, and of what a loop goes over."""

    of: Callable[[Path], Size]
    file: Callable[[str | None], int]
    names: Mapping[str, Size] = field(default_factory=dict)


def largest(item: Template | Script, known: Known) -> int:
    """The most that the text of a template can hold."""
    if item.is_static:
        return len(item.source.encode("utf-8", "replace"))
    try:
        tree = tree_of(item.source)
    except ExpressionError:
        return MAX_TEXT
    return min(_printed(tree.body, known), MAX_TEXT)


def value_size(value: Any) -> Size:
    """The size of a value that is known."""
    if isinstance(value, str):
        return Size(len(value.encode("utf-8", "replace")))
    return Size(len(as_json(value).encode("utf-8", "replace")), isinstance(value, (list, dict)))


def _printed(body: Sequence[nodes.Node], known: Known) -> int:
    total = 0
    for node in body:
        if isinstance(node, nodes.Output):
            total += sum(_piece(part, known) for part in node.nodes)
        elif isinstance(node, nodes.For):
            total += _loop(node, known)
        elif isinstance(node, nodes.If):
            branches = [node.body, *(other.body for other in node.elif_), node.else_]
            total += max(_printed(branch, known) for branch in branches)
    return min(total, MAX_TEXT)


def _piece(part: nodes.Node, known: Known) -> int:
    if isinstance(part, nodes.TemplateData):
        return len(part.data.encode("utf-8", "replace"))
    return _size(part, known).printed


def _loop(node: nodes.For, known: Known) -> int:
    """Every item is printed as often as the body names it; there are no more items than the list has tokens."""
    over = _size(node.iter, known)
    rounds = min(max(over.most // 2, 1), MAX_ITERATIONS)
    names = [name.name for name in [node.target, *node.target.find_all(nodes.Name)] if isinstance(name, nodes.Name)]
    empty = {**known.names, **dict.fromkeys(names, Size(0)), "loop": Size(NUMBER)}
    fixed = _printed(node.body, replace(known, names=empty))
    whole = _printed(node.body, replace(known, names={**empty, **dict.fromkeys(names, Size(over.most, True))}))
    return min(fixed * rounds + (whole - fixed) + _printed(node.else_, known), MAX_TEXT)


def _size(node: nodes.Node, known: Known) -> Size:
    if isinstance(node, nodes.Const):
        return value_size(node.value)
    if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
        return _chain(node, known)
    if isinstance(node, nodes.Filter) and node.node is not None:
        return _filtered(node, known)
    if isinstance(node, nodes.CondExpr):
        return _widest([node.expr1, *([node.expr2] if node.expr2 else [])], known)
    if isinstance(node, (nodes.And, nodes.Or)):
        return _widest([node.left, node.right], known)
    if isinstance(node, (nodes.Concat, nodes.Add, nodes.List, nodes.Tuple, nodes.Dict)):
        return _together(node, known)
    if isinstance(node, nodes.Call):
        return _called(node, known)
    return Size(NUMBER)


def _widest(several: Sequence[nodes.Node], known: Known) -> Size:
    sizes = [_size(node, known) for node in several]
    return Size(max(size.most for size in sizes), any(size.structured for size in sizes))


def _together(node: nodes.Node, known: Known) -> Size:
    parts = [part for part in node.iter_child_nodes() if isinstance(part, (nodes.Expr, nodes.Pair))]
    inner = [half for part in parts for half in ((part.key, part.value) if isinstance(part, nodes.Pair) else (part,))]
    printed = isinstance(node, nodes.Concat)
    sizes = [_size(part, known) for part in inner]
    total = sum(size.printed if printed else size.most + 4 for size in sizes)
    return Size(min(total, MAX_TEXT), not printed and not isinstance(node, nodes.Add))


def _chain(node: nodes.Node, known: Known) -> Size:
    parts: list[str | int] = []
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        if isinstance(node, nodes.Getattr):
            parts.insert(0, node.attr)
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, (str, int)):
            parts.insert(0, node.arg.value)
        else:
            parts.clear()  # what a calculated part stands for is not larger than the whole
        node = node.node
    if not isinstance(node, nodes.Name):
        return _size(node, known)
    if node.name in known.names:
        return known.names[node.name]
    return known.of((node.name, *parts))


def _filtered(node: nodes.Filter, known: Known) -> Size:
    assert node.node is not None
    inner = _size(node.node, known)
    args = [_size(arg, known) for arg in node.args]
    first = node.args[0].value if node.args and isinstance(node.args[0], nodes.Const) else None
    if node.name in _SMALL:
        return Size(NUMBER)
    if node.name in _SAME:
        return inner
    if node.name == "default":
        return Size(max([inner.most, *(arg.most for arg in args)]), inner.structured)
    if node.name == "truncate":
        return Size(min(inner.printed, (first if isinstance(first, int) else 255) * 4 + 16))
    if node.name == "join":
        return Size(min(inner.most * (1 + sum(arg.most for arg in args)), MAX_TEXT))
    if node.name == "indent":
        return Size(min(inner.printed * (1 + (first if isinstance(first, int) else 4)), MAX_TEXT))
    if node.name in _FACTORS:
        return Size(min(inner.most * _FACTORS[node.name], MAX_TEXT), node.name == "map")
    return Size(min(inner.printed * (1 + sum(arg.most for arg in args)), MAX_TEXT))


def _called(node: nodes.Call, known: Known) -> Size:
    name = node.node.name if isinstance(node.node, nodes.Name) else ""
    argument = node.args[0] if node.args else None
    if name == "read":
        if isinstance(argument, nodes.Const) and isinstance(argument.value, str):
            return Size(known.file(argument.value))
        return Size(known.file(None))
    return Size(MAX_TEXT, True)
