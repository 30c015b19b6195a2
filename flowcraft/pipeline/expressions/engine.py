"""A checked tree -> a function of the scope: Jinja2's immutable sandbox, with every operation measured.

Dots and brackets read maps and lists and never Python attributes. Operators work on plain data,
within bounds. Before each part the engine notes its offset, so that a failure knows its place.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jinja2 import Template as Code
from jinja2 import TemplateError, Undefined, nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from flowcraft.core.errors import UsageError
from flowcraft.pipeline.expressions.data import (
    Missing,
    Refused,
    defined,
    field_of,
    items,
    kind_of,
    number,
    text_of,
    whole,
)
from flowcraft.pipeline.expressions.filters import FILTERS, measured
from flowcraft.pipeline.expressions.lists import TESTS
from flowcraft.pipeline.expressions.work import ITEM, MAX_ITERATIONS, Work

# These names cannot be written in a template.
_WORK, _AT, _EACH, _WEIGHED, _SLICE, _CONCAT = " work", " at", " each", " weighed", " slice", " concat"
_RESULT = "result"
_LOOP_FIELDS = ("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem")

FAILURES = (TemplateError, Refused, UsageError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError)


class Files(Protocol):
    """What `glob()` and `read()` do; both raise UsageError. `spend` is told how many names were looked at."""

    def glob(self, pattern: str, spend: Callable[[int], None] | None = None) -> list[str]: ...

    def read(self, path: str) -> str: ...


class Engine(ImmutableSandboxedEnvironment):
    """The sandbox with the operators and the field access of the language."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)
    intercepted_unops = frozenset(ImmutableSandboxedEnvironment.default_unop_table)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, LoopContext):
            return getattr(obj, argument) if argument in _LOOP_FIELDS else Missing(f"a loop has no '{argument}'")
        return field_of(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        work: Work = context[_WORK]
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            work.room(len(left) + len(right))
            return left + right
        if operator == "+" and isinstance(left, list) and isinstance(right, list):
            work.charge(ITEM * (len(left) + len(right)))
            return left + right
        for value in (left, right):
            defined(value)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                hint = "to join texts write: a ~ b" if operator == "+" else None
                raise Refused(f"'{operator}' does not work on {kind_of(left)} and {kind_of(right)}", hint)
        return number(_calculated(operator, number(left), number(right)))

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        return -number(arg) if operator == "-" else number(arg)


def _calculated(operator: str, left: float, right: float) -> Any:
    if operator == "**" and abs(right) > 64:
        raise Refused("the exponent is too large")
    if operator in ("/", "//", "%") and right == 0:
        raise Refused("this divides by zero")
    made = ImmutableSandboxedEnvironment.default_binop_table[operator](left, right)
    if isinstance(made, complex):
        raise Refused("this has no real result")
    return made


class _Prepared(NodeTransformer):
    """The tree with what the engine needs to count and to know the place."""

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        found: list[nodes.Expr] = []
        for child in node.nodes:
            found += [child] if isinstance(child, nodes.TemplateData) else [_at(_start(child)), child]
        node.nodes = found
        return node

    def visit_If(self, node: nodes.If) -> nodes.Node:
        self.generic_visit(node)
        # `at` gives '' and so does not change the outcome.
        node.test = nodes.Or(_at(_start(node.test)), node.test, lineno=node.lineno)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        place = nodes.Const(_start(node.iter), lineno=node.lineno)
        node.iter = _filter(_EACH, node.iter, place)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filter(_WEIGHED, node.expr)
        for operand in node.ops:
            operand.expr = _filter(_WEIGHED, operand.expr)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(_CONCAT, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        parts = (node.arg.start, node.arg.stop, node.arg.step)
        nothing = nodes.Const(None, lineno=node.lineno)
        return _filter(_SLICE, node.node, *(nothing if part is None else part for part in parts))


def _start(node: nodes.Node) -> int:
    """Where an expression begins; an operator's own place is in its middle."""
    places = [node.lineno, *(inner.lineno for inner in node.find_all(nodes.Node))]
    return min((place for place in places if place is not None), default=0)


def _at(offset: int) -> nodes.Filter:
    return _filter(_AT, nodes.Const(offset, lineno=offset))


def _filter(name: str, node: nodes.Node, *args: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def compiled(tree: nodes.Template | nodes.Expr) -> Code:
    """Code for a template, or for one expression."""
    if not isinstance(tree, nodes.Template):
        target = nodes.Name(_RESULT, "store", lineno=1)
        tree = nodes.Template([nodes.Assign(target, tree, lineno=1)], lineno=1)
    return _ENGINE.from_string(_Prepared().visit(tree))


def printed(code: Code, scope: Mapping[str, Any], files: Files | None, work: Work) -> str:
    """The text of a template."""
    context = code.new_context(_names(scope, files, work))
    return "".join(map(work.printed, code.root_render_func(context)))


def evaluated(code: Code, scope: Mapping[str, Any], files: Files | None, work: Work) -> Any:
    """The value of an expression; may be Undefined."""
    context = code.new_context(_names(scope, files, work))
    for _ in code.root_render_func(context):
        pass
    return context.vars[_RESULT]


def _names(scope: Mapping[str, Any], files: Files | None, work: Work) -> dict[str, Any]:
    def glob(pattern: Any = None) -> list[str]:
        found = _files(files).glob(_name("glob", pattern), work.charge)
        work.charge(ITEM * len(found))
        return found

    def read(path: Any = None) -> str:
        text = _files(files).read(_name("read", path))
        work.room(len(text))
        return text

    def numbers(*bounds: Any) -> list[int]:
        if not 1 <= len(bounds) <= 2:
            raise Refused("range takes one or two numbers", "range(3) is 0, 1, 2; range(1, 4) is 1, 2, 3")
        found = range(*(whole(bound, "range", 1 << 31) for bound in bounds))
        if len(found) > MAX_ITERATIONS:
            raise Refused(f"a range has at most {MAX_ITERATIONS} numbers")
        work.charge(ITEM * len(found))
        return list(found)

    return {**scope, "glob": glob, "read": read, "range": numbers, _WORK: work}


def _files(files: Files | None) -> Files:
    if files is None:
        raise Refused("no files can be read here")
    return files


def _name(function: str, path: Any) -> str:
    if isinstance(path, str):
        return path
    raise Refused(f"{function} needs a path", f"{function}('docs/a.md')")


@pass_context
def _note_place(context: Context, offset: int) -> str:
    context[_WORK].offset = offset
    return ""


@pass_context
def _each(context: Context, value: Any, offset: int) -> list[Any]:
    work: Work = context[_WORK]
    work.offset = offset
    found = items(value, "a loop")
    work.loop(len(found))
    return found


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    context[_WORK].weigh(value)
    return value


@pass_context
def _sliced(context: Context, value: Any, *bounds: Any) -> Any:
    if isinstance(value, Undefined) or not isinstance(value, (str, list, tuple)):
        return field_of(value, "[:]")
    if any(bound is not None and (isinstance(bound, bool) or not isinstance(bound, int)) for bound in bounds):
        raise Refused("the bounds of a slice are whole numbers")
    context[_WORK].charge(len(value))
    return value[slice(*bounds)]


@pass_context
def _concatenated(context: Context, values: list[Any]) -> str:
    parts = [text_of(value) for value in values]
    context[_WORK].room(sum(map(len, parts)))
    return "".join(parts)


@pass_context
def _finalized(context: Context, value: Any) -> str:
    text = text_of(value)
    context[_WORK].charge(len(text))
    return text


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    @pass_context
    def apply(context: Context, value: Any, *args: Any, **more: Any) -> Any:
        return measured(function, context[_WORK], value, *args, **more)

    return apply


def _engine() -> Engine:
    engine = Engine(undefined=Missing, finalize=_finalized, optimized=False, autoescape=False, cache_size=0)
    engine.globals.clear()
    engine.filters = {name: _counted(function) for name, function in FILTERS.items()}
    engine.filters |= {
        _AT: _note_place,
        _EACH: _each,
        _WEIGHED: _weighed,
        _SLICE: _sliced,
        _CONCAT: _concatenated,
    }
    engine.tests = {name: _counted(function) for name, function in TESTS.items()}
    return engine


_ENGINE = _engine()
