"""Which names a tree uses, where, and what is known where they are used; facts, no judgement.

A reference is `optional` under `default` and `is defined`. `given` are stages of which the condition
around it has shown that they ran: in `x.output if x.ok else ''` the first is safe.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jinja2 import nodes

_CHAIN = re.compile(r"[^\W\d]\w*(?:\s*\.\s*\w+|\s*\[\s*(?:'[^'\n]*'|\"[^\"\n]*\"|-?\d+)\s*\])*")
KEEPS_PROSE = ("trim", "lower", "upper", "string", "default")

Path = tuple[str | int, ...]
NO_STAGES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reference:
    """A dotted name such as `stages.a.output`; `text` is how it is written, from `offset` on.

    `dynamic` means that a calculated part follows: `stages[x]`.
    """

    path: Path
    offset: int
    text: str
    optional: bool = False
    dynamic: bool = False
    given: frozenset[str] = NO_STAGES

    def __str__(self) -> str:
        return ".".join(str(part) for part in self.path)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A dotted name that is compared with a literal text, by ==, != or in."""

    reference: Reference
    literal: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a tree uses; `shows` are the stages that must have run if it is true."""

    references: tuple[Reference, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    shows: frozenset[str] = NO_STAGES


@dataclass(frozen=True, slots=True)
class _Place:
    """What holds at a node: names bound by loops around it, stages known to have run, `default` above it."""

    bound: frozenset[str] = frozenset()
    given: frozenset[str] = NO_STAGES
    optional: bool = False

    def inside(self, given: frozenset[str] = NO_STAGES) -> "_Place":
        return _Place(self.bound, self.given | given)

    def binding(self, names: frozenset[str]) -> "_Place":
        return _Place(self.bound | names, self.given)


def facts(text: str, tree: nodes.Node) -> Facts:
    """The references and comparisons of a tree, by place."""
    found = tuple(_found(text, tree, _Place()))
    references = {item for item in found if isinstance(item, Reference)}
    comparisons = {item for item in found if isinstance(item, Comparison)}
    return Facts(
        tuple(sorted(references, key=lambda item: (item.offset, item.optional))),
        tuple(sorted(comparisons, key=lambda item: (item.reference.offset, item.literal))),
        shown(tree, True),
    )


def _found(text: str, node: nodes.Node, place: _Place) -> Iterator[Reference | Comparison]:
    if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
        yield from _chain(text, node, place)
    elif isinstance(node, nodes.Filter) and node.node is not None:
        optional = node.name == "default"
        yield from _found(text, node.node, _Place(place.bound, place.given, optional))
        yield from _all(text, [*node.args, *node.kwargs], place.inside())
    elif isinstance(node, nodes.Test):
        optional = node.name in ("defined", "undefined", "none")
        yield from _found(text, node.node, _Place(place.bound, place.given, optional))
        yield from _all(text, [*node.args, *node.kwargs], place.inside())
    elif isinstance(node, (nodes.CondExpr, nodes.If)):
        yield from _branches(text, node, place)
    elif isinstance(node, (nodes.And, nodes.Or)):
        yield from _found(text, node.left, place.inside())
        yield from _found(text, node.right, place.inside(shown(node.left, isinstance(node, nodes.And))))
    elif isinstance(node, nodes.For):
        yield from _loop(text, node, place)
    elif isinstance(node, nodes.Compare):
        yield from _compared(text, node, place)
        yield from _all(text, node.iter_child_nodes(), place.inside())
    elif isinstance(node, nodes.Call):
        yield from _all(text, node.args, place.inside())
    else:
        yield from _all(text, node.iter_child_nodes(), place.inside())


def shown(test: nodes.Node, outcome: bool) -> frozenset[str]:
    """The stages that must have run if `test` came out like this."""
    if isinstance(test, nodes.Not):
        return shown(test.node, not outcome)
    if isinstance(test, (nodes.And, nodes.Or)):
        left, right = shown(test.left, outcome), shown(test.right, outcome)
        return left | right if isinstance(test, nodes.And) is outcome else left & right
    if isinstance(test, nodes.Test) and test.name in ("defined", "undefined"):
        path, _, _ = _path(test.node)
        positive = (test.name == "defined") is outcome
        return (
            frozenset({str(path[1])}) if positive and path[:1] == ("stages",) and "output" in path[2:3] else NO_STAGES
        )
    path, rest, _ = _path(test)
    return shown_path(path) if outcome and rest is None else NO_STAGES


def shown_path(path: Sequence[str | int]) -> frozenset[str]:
    """The stage that must have run if the value at `path` is true."""
    return frozenset({str(path[1])}) if len(path) == 3 and path[0] == "stages" and path[2] == "ok" else NO_STAGES


def _all(text: str, several: Iterable[nodes.Node], place: _Place) -> Iterator[Reference | Comparison]:
    for node in several:
        yield from _found(text, node, place)


def _branches(text: str, node: nodes.CondExpr | nodes.If, place: _Place) -> Iterator[Reference | Comparison]:
    yield from _found(text, node.test, place.inside())
    yes, no = place.inside(shown(node.test, True)), place.inside(shown(node.test, False))
    if isinstance(node, nodes.CondExpr):
        yield from _found(text, node.expr1, yes)
        if node.expr2 is not None:
            yield from _found(text, node.expr2, no)
        return
    yield from _all(text, node.body, yes)
    for other in node.elif_:
        yield from _branches(text, other, no)
        no = no.inside(shown(other.test, False))
    yield from _all(text, node.else_, no)


def _loop(text: str, node: nodes.For, place: _Place) -> Iterator[Reference | Comparison]:
    yield from _found(text, node.iter, place.inside())
    names = {node.target.name} if isinstance(node.target, nodes.Name) else set()
    names |= {name.name for name in node.target.find_all(nodes.Name)}
    inner = place.binding(frozenset(names | {"loop"}))
    if node.test is not None:
        yield from _found(text, node.test, inner)
        inner = inner.inside(shown(node.test, True))
    yield from _all(text, node.body, inner)
    yield from _all(text, node.else_, place.inside())


def _chain(text: str, node: nodes.Node, place: _Place) -> Iterator[Reference | Comparison]:
    path, base, offset = _path(node)
    inner = node
    while isinstance(inner, (nodes.Getattr, nodes.Getitem)):
        if isinstance(inner, nodes.Getitem) and not isinstance(inner.arg, nodes.Const):
            yield from _found(text, inner.arg, place.inside())
        inner = inner.node
    if base is not None and not isinstance(base, nodes.Name):
        yield from _found(text, base, place)
    elif path and path[0] not in place.bound:
        match = _CHAIN.match(text, offset)
        dynamic = base is not None
        yield Reference(path, offset, match[0] if match else str(path[0]), place.optional, dynamic, place.given)


def _path(node: nodes.Node) -> tuple[Path, nodes.Node | None, int]:
    """The constant part of a chain from its root on; what it starts with if that is not all; where."""
    parts: list[str | int] = []
    dynamic: nodes.Node | None = None
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        part = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
        if part is None:
            parts, dynamic = [], node
        else:
            parts.append(part)
        node = node.node
    if not isinstance(node, nodes.Name):
        return (), node, node.lineno
    path: Path = (node.name, *reversed(parts))
    return path, node if dynamic is not None else None, node.lineno


def _constant(node: nodes.Node) -> str | int | None:
    if isinstance(node, nodes.Const) and isinstance(node.value, (str, int)) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const) and isinstance(node.node.value, int):
        return -node.node.value
    return None


def _compared(text: str, node: nodes.Compare, place: _Place) -> Iterator[Comparison]:
    left = node.expr
    for operand in node.ops:
        if operand.op in ("eq", "ne"):
            for one, other in ((left, operand.expr), (operand.expr, left)):
                if isinstance(other, nodes.Const) and isinstance(other.value, str):
                    yield from _prose(text, one, other.value, place)
        elif operand.op in ("in", "notin") and isinstance(operand.expr, nodes.List):
            literals = [item.value for item in operand.expr.items if isinstance(item, nodes.Const)]
            if literals and isinstance(literals[0], str):
                yield from _prose(text, left, literals[0], place)
        left = operand.expr


def _prose(text: str, node: nodes.Node, literal: str, place: _Place) -> Iterator[Comparison]:
    while isinstance(node, nodes.Filter) and node.name in KEEPS_PROSE and node.node is not None:
        node = node.node
    for item in _chain(text, node, place) if isinstance(node, (nodes.Getattr, nodes.Getitem)) else ():
        if isinstance(item, Reference) and not item.dynamic:
            yield Comparison(item, literal)


def from_results(references: Iterable[Reference]) -> bool:
    """Whether a stage gives one of these names."""
    return any(reference.path[0] in ("stages", "output") for reference in references)
