"""How large the text of a template can become, without running it: a bound for the ceiling of `plan`.

Sizes are counted in bytes where a text is known, and in tokens where it is a model's answer; no tokenizer makes more
tokens than there are bytes, so a sum of both bounds the tokens of the whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import nodes

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Expression, Script, Template, expression_of, lone_value, tree_of
from flowcraft.pipeline.expressions.data import INDENTED, as_json
from flowcraft.pipeline.expressions.references import Path
from flowcraft.pipeline.expressions.work import MAX_ITERATIONS, MAX_TEXT

NUMBER = 25  # characters of any number, boolean or null
MAX_BYTES = 4 * MAX_TEXT  # a template makes no longer text, and a character has 4 bytes at most
MAX_PATH = 4096
ESCAPED = 6  # bytes of JSON that one byte of a text can become
WIDEST_INDENT = 1000

_SMALL = frozenset(("length", "wordcount", "sum", "round"))
_SAME = frozenset(("first", "last", "min", "max", "trim", "unique", "sort", "select", "reject", "selectattr"))
_SAME |= {"rejectattr", "list"}
_FACTORS = {"upper": 3, "lower": 2, "string": 1}  # of bytes, where the other case is longer
_ESCAPING = frozenset(("tojson", "lines"))


@dataclass(frozen=True, slots=True)
class Size:
    """At most so much; `structured` values may be lists or maps."""

    most: int
    structured: bool = False

    @property
    def printed(self) -> int:
        """As text."""
        return min(self.most * INDENTED if self.structured else self.most, MAX_BYTES)


UNBOUNDED = Size(MAX_BYTES, True)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of sizes: of dotted names (`of`), and of files by their path or by the name that stands for it."""

    of: Callable[[Path], Size]
    file: Callable[[str | Path | None], int]
    names: Mapping[str, Size] = field(default_factory=dict)


def largest(item: Template | Script, known: Known) -> int:
    """The most that the text of a template can hold."""
    if item.is_static:
        return len(item.source.encode("utf-8", "replace"))
    try:
        tree = tree_of(item.source)
    except ExpressionError:
        return MAX_BYTES
    return _printed(tree.body, known)


def size_of(item: Template | Expression, known: Known) -> Size:
    """The size of the value that a template or expression stands for."""
    try:
        tree = expression_of(item.source) if isinstance(item, Expression) else lone_value(item.source)
    except ExpressionError:
        return UNBOUNDED
    if tree is not None:
        return _size(tree, known)
    assert isinstance(item, Template)
    return Size(largest(item, known))


def filled_size(value: Any, known: Known) -> Size:
    """The size of data in which every text may be a template."""
    if isinstance(value, Template):
        return size_of(value, known)
    if isinstance(value, Mapping):
        inner = sum(2 + ESCAPED * len(str(name).encode("utf-8", "replace")) for name in value)
        return Size(_inside(value.values(), known) + inner, True)
    if isinstance(value, (list, tuple)):
        return Size(_inside(value, known), True)
    return value_size(value)


def value_size(value: Any) -> Size:
    """The size of a value that is known."""
    if isinstance(value, str):
        return Size(len(value.encode("utf-8", "replace")))
    return Size(len(as_json(value).encode("utf-8", "replace")), isinstance(value, (list, dict)))


def _inside(values: Any, known: Known) -> int:
    return 2 + sum(as_part(filled_size(value, known)) + 2 for value in values)


def as_part(size: Size) -> int:
    """As a part of a list or map."""
    return min(size.most if size.structured else ESCAPED * size.most + 2, MAX_BYTES)


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
    return min(total, MAX_BYTES)


def _piece(part: nodes.Node, known: Known) -> int:
    if isinstance(part, nodes.TemplateData):
        return len(part.data.encode("utf-8", "replace"))
    return _size(part, known).printed


def _loop(node: nodes.For, known: Known) -> int:
    """Every item is printed as often as the body names it; there are no more items than the list has tokens."""
    over = _size(node.iter, known)
    rounds = min(over.most // 2 + 1, MAX_ITERATIONS)
    names = [name.name for name in [node.target, *node.target.find_all(nodes.Name)] if isinstance(name, nodes.Name)]
    empty = {**known.names, **dict.fromkeys(names, Size(0)), "loop": Size(NUMBER)}
    fixed = _printed(node.body, replace(known, names=empty))
    # `loop.previtem` is an item, too.
    full = {**empty, **dict.fromkeys(names, Size(over.most, True)), "loop": Size(max(over.most, NUMBER), True)}
    whole = _printed(node.body, replace(known, names=full))
    return min(fixed * rounds + (whole - fixed) + _printed(node.else_, known), MAX_BYTES)


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
    sizes = [_size(part, known) for part in inner]
    if isinstance(node, nodes.Concat):
        return Size(min(sum(size.printed for size in sizes), MAX_BYTES))
    if isinstance(node, nodes.Add):  # of numbers, texts or lists
        return Size(min(sum(size.most for size in sizes) + NUMBER, MAX_BYTES), any(size.structured for size in sizes))
    return Size(min(sum(as_part(size) + 2 for size in sizes) + 2, MAX_BYTES), True)


def _path(node: nodes.Node) -> tuple[nodes.Node, Path]:
    """What a chain of dots begins with, and the parts up to the first that is calculated."""
    parts: list[str | int] = []
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        if isinstance(node, nodes.Getattr):
            parts.insert(0, node.attr)
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, (str, int)):
            parts.insert(0, node.arg.value)
        else:
            parts.clear()  # what a calculated part stands for is not larger than the whole
        node = node.node
    return node, tuple(parts)


def _chain(node: nodes.Node, known: Known) -> Size:
    node, parts = _path(node)
    if not isinstance(node, nodes.Name):
        return _size(node, known)
    if node.name in known.names:
        return known.names[node.name]
    return known.of((node.name, *parts))


def _filtered(node: nodes.Filter, known: Known) -> Size:
    assert node.node is not None
    given = [*node.args, *(keyword.value for keyword in node.kwargs)]
    constants = [arg.value for arg in given if isinstance(arg, nodes.Const)]
    inner, sizes = _size(node.node, known), [_size(arg, known) for arg in given]
    number = next((value for value in constants if isinstance(value, int) and not isinstance(value, bool)), None)
    if node.name != "map":
        return _made(node.name, inner, sizes, number)
    if any(keyword.key == "attribute" for keyword in node.kwargs):
        return Size(min(inner.most * (1 + sum(as_part(size) for size in sizes)), MAX_BYTES), True)
    name = constants[0] if constants and isinstance(constants[0], str) else ""
    each = _made(name, inner, sizes[1:], number)
    # Each item may become a number, or the fallback.
    least = NUMBER + sum(as_part(size) for size in sizes[1:])
    return Size(min(as_part(each) + (inner.most // 2 + 1) * least, MAX_BYTES), True)


def _made(name: str, inner: Size, sizes: Sequence[Size], number: int | None) -> Size:
    """What a filter makes of a value; `sizes` are those of its arguments, `number` is the one that stands there."""
    more = sum(size.most for size in sizes)
    if name in _SMALL:
        return Size(NUMBER)
    if name in _SAME:
        return inner
    if name in ("int", "float", "default", "fromjson"):  # the value, or what was given instead
        structured = name == "fromjson" or any(size.structured for size in (inner, *sizes))
        return Size(max(inner.most, more, NUMBER), structured)
    if name == "truncate" and (number is not None or not sizes):
        cut = (255 if number is None else max(number, 0)) * 4 + 16
        return Size(min(inner.printed, cut) + sum(size.printed for size in sizes))
    if name == "indent":
        width = WIDEST_INDENT if sizes and number is None else number or 4
        return Size(min((inner.printed + 1) * (1 + max(width, 0)), MAX_BYTES))
    if name in _ESCAPING:
        return Size(min(max(as_part(inner), inner.printed), MAX_BYTES), name == "lines")
    factor = _FACTORS.get(name, 1 + more)  # of replace and join: each byte may become so much more
    return Size(min((inner.printed + 1) * factor, MAX_BYTES))


def _called(node: nodes.Call, known: Known) -> Size:
    name = node.node.name if isinstance(node.node, nodes.Name) else ""
    argument = node.args[0] if node.args else None
    if name == "read":
        if isinstance(argument, nodes.Const) and isinstance(argument.value, str):
            return Size(known.file(argument.value))
        root, parts = _path(argument) if argument is not None else (None, ())
        return Size(known.file((root.name, *parts) if isinstance(root, nodes.Name) else None))
    if name == "range" and all(isinstance(arg, nodes.Const) and isinstance(arg.value, int) for arg in node.args):
        last = max((arg.value for arg in node.args if isinstance(arg, nodes.Const)), default=0)
        return Size(min(last * (len(str(last)) + 1) + 2, MAX_BYTES), True)
    return UNBOUNDED
