"""Tokens -> a checked Jinja2 tree: only the nodes, filters, tests and functions of the language.

The check is a list of what is allowed, made on the parsed tree before anything runs. Every node's
`lineno` is its offset in the text (see lexer).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from jinja2 import TemplateSyntaxError, nodes
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flowcraft.core.globs import escapes, mistake
from flowcraft.core.problems import did_you_mean
from flowcraft.pipeline.expressions.filters import FILTERS
from flowcraft.pipeline.expressions.lexer import Piece, fail, template_tokens
from flowcraft.pipeline.expressions.lists import TESTS

FUNCTIONS = ("glob", "range", "read")
MAX_DEPTH = 60
MAX_BLOCKS = 10
MAX_BRANCHES = 50

_ALLOWED = frozenset(
    (
        nodes.Template,
        nodes.Output,
        nodes.TemplateData,
        nodes.For,
        nodes.If,
        nodes.Name,
        nodes.Const,
        nodes.List,
        nodes.Tuple,
        nodes.Dict,
        nodes.Pair,
        nodes.Getattr,
        nodes.Getitem,
        nodes.Slice,
        nodes.Filter,
        nodes.Test,
        nodes.Call,
        nodes.Keyword,
        nodes.CondExpr,
        nodes.And,
        nodes.Or,
        nodes.Not,
        nodes.Neg,
        nodes.Pos,
        nodes.Compare,
        nodes.Operand,
        nodes.Concat,
        nodes.Add,
        nodes.Sub,
        nodes.Mul,
        nodes.Div,
        nodes.FloorDiv,
        nodes.Mod,
        nodes.Pow,
    )
)
_LEAVES = frozenset((nodes.Const, nodes.Name, nodes.TemplateData))
_FOREIGN_FUNCTIONS = {
    "len": "write: x | length",
    "str": "write: x | string",
    "int": "write: x | int",
    "float": "write: x | float",
    "contains": "write: a in b",
    "fromJSON": "write: x | fromjson",
    "toJSON": "write: x | tojson",
    "join": "write: x | join(', ')",
    "format": "write: a ~ b",
    "success": "write: stages.x.ok",
    "failure": "write: not stages.x.ok",
    "always": "leave the condition out: a skipped stage does not stop those below it",
}
# Names that Jinja2 itself gives a meaning.
_TAKEN = ("self", "super", "caller", "varargs", "kwargs")
_NULLS = ("null", "nil", "undefined", "NULL", "Null")
_MESSAGES = {
    "got 'end of print statement'": "the expression ends too early",
    "unexpected 'end of print statement'": "the expression ends too early",
    "got 'end of statement block'": "the statement ends too early",
    "unexpected 'end of statement block'": "the statement ends too early",
    "unexpected 'end of template'": "the expression ends too early",
    "Unexpected end of template": "a statement is not closed",
    "got 'end of template'": "the expression ends too early",
}

Tree = TypeVar("Tree", bound=nodes.Node)

_WORD = re.compile(r"\w+|\S")
_PARSER = ImmutableSandboxedEnvironment()


def expression_tree(text: str, tokens: Iterable[Token]) -> nodes.Expr:
    """The tree of one expression; raises ExpressionError."""
    parser = _parser(tokens)
    try:
        found = parser.parse_expression()
    except (TemplateSyntaxError, RecursionError) as error:
        _refuse(text, error)
    if not parser.stream.eos:
        _unexpected(text, parser.stream.current.lineno)
    return _checked(text, found)


def template_tree(text: str, parts: list[Piece]) -> nodes.Template:
    """The tree of a template; raises ExpressionError."""
    try:
        found = _parser(template_tokens(text, parts)).parse()
    except (TemplateSyntaxError, RecursionError) as error:
        _refuse(text, error)
    return _checked(text, found)


def _parser(tokens: Iterable[Token]) -> Parser:
    # The parser's own stream of an empty text is exchanged for ours.
    parser = Parser(_PARSER, "")
    parser.stream = TokenStream(iter(tokens), None, None)
    return parser


def _refuse(text: str, error: TemplateSyntaxError | RecursionError) -> NoReturn:
    if isinstance(error, RecursionError):
        fail(text, 0, "this is nested too deep", hint="do this work in a run stage")
    message = str(error.message)
    at = min(error.lineno, max(0, len(text) - 1))
    ours = next((ours for theirs, ours in _MESSAGES.items() if theirs in message), None)
    if ours:
        fail(text, at, ours)
    _unexpected(text, at)


def _unexpected(text: str, at: int) -> NoReturn:
    if text[at : at + 1] == "=":
        fail(text, at, "a single '=' does not compare", hint="write '=='")
    word = _WORD.match(text, at)
    shown = word[0] if word else "the end"
    fail(text, at, f"'{shown}' is not expected here", hint="between two values there is one of: and or == in | ~")


def _checked(text: str, tree: Tree) -> Tree:
    for node, blocks in _walked(text, tree):
        if type(node) not in _ALLOWED:
            what = type(node).__name__.lower()
            fail(text, node.lineno, f"'{what}' is not part of the expression language")
        if blocks > MAX_BLOCKS:
            fail(text, node.lineno, f"statements are nested more than {MAX_BLOCKS} deep")
        check = _CHECKS.get(type(node))
        if check:
            check(text, node)
    return tree


def _walked(text: str, tree: nodes.Node) -> Iterator[tuple[nodes.Node, int]]:
    """All nodes, each with how many statements are around it; not recursive."""
    stack = [(tree, 0, 0)]
    while stack:
        node, depth, blocks = stack.pop()
        if depth > MAX_DEPTH:
            fail(text, node.lineno, "this is nested too deep", hint="do this work in a run stage")
        yield node, blocks
        if type(node) in _LEAVES:
            continue
        inner = blocks + isinstance(node, (nodes.For, nodes.If))
        stack.extend((child, depth + 1, inner) for child in node.iter_child_nodes())


def _check_filter(text: str, node: nodes.Filter) -> None:
    _known(text, node, "filter", FILTERS)


def _check_test(text: str, node: nodes.Test) -> None:
    _known(text, node, "test", TESTS)


def _known(text: str, node: nodes.Filter | nodes.Test, what: str, known: Iterable[str]) -> None:
    if node.name not in known:
        at = text.find(node.name, node.lineno)
        hint = did_you_mean(node.name, known) or f"known: {', '.join(sorted(known))}"
        fail(text, at if at >= 0 else node.lineno, f"there is no {what} '{node.name}'", hint=hint)
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        fail(text, node.lineno, "'*' before an argument is not part of the expression language")


def _check_call(text: str, node: nodes.Call) -> None:
    if isinstance(node.node, nodes.Getattr):
        name = node.node.attr
        hint = f"use a filter: x | {name}" if name in FILTERS else "use a filter, such as: x | length"
        fail(text, node.node.lineno, f"there are no methods: '.{name}(...)'", hint=hint)
    if not isinstance(node.node, nodes.Name):
        fail(text, node.lineno, "only functions can be called")
    name = node.node.name
    if name not in FUNCTIONS:
        known = f"write: x | {name}" if name in FILTERS else f"known: {', '.join(FUNCTIONS)}"
        hint = _FOREIGN_FUNCTIONS.get(name, known)
        fail(text, node.node.lineno, f"there is no function '{name}'", hint=hint)
    if node.dyn_args is not None or node.dyn_kwargs is not None or node.kwargs:
        fail(text, node.lineno, f"{name}() takes plain arguments only")
    if name != "range" and node.args and isinstance(node.args[0], nodes.Const):
        _check_path(text, node, name, node.args[0].value)


def _check_path(text: str, node: nodes.Call, function: str, path: Any) -> None:
    """What a path that stands in the file does wrong in every run."""
    if not isinstance(path, str) or not path:
        return
    if escapes(path):
        hint = "use a path relative to the workspace, without '..'"
        fail(text, node.node.lineno, f"{function}: {path} leaves the workspace", code="FC131", hint=hint)
    if function == "glob" and (wrong := mistake(path)):
        fail(text, node.node.lineno, f"{function}: {path} {wrong[0]}", code="FC131", hint=wrong[1])


def _check_for(text: str, node: nodes.For) -> None:
    if node.recursive:
        fail(text, node.lineno, "'recursive' is not part of the expression language")
    if any(name.name == "loop" for name in node.target.find_all(nodes.Name)) or (
        isinstance(node.target, nodes.Name) and node.target.name == "loop"
    ):
        fail(text, node.lineno, "'loop' is taken", hint="use another name")


def _check_name(text: str, node: nodes.Name) -> None:
    if node.name in _NULLS:
        fail(text, node.lineno, f"'{node.name}' is not a value", hint="write 'none', or 'x is defined'")
    if node.name in _TAKEN:
        fail(text, node.lineno, f"there is no '{node.name}' here")


def _check_if(text: str, node: nodes.If) -> None:
    if len(node.elif_) > MAX_BRANCHES:
        fail(text, node.lineno, f"this has more than {MAX_BRANCHES} branches")


def _check_tuple(text: str, node: nodes.Tuple) -> None:
    if node.ctx == "load":
        fail(text, node.lineno, "this is several values, not one", hint="for a list write [a, b]")


_CHECKS: dict[type[nodes.Node], Callable[[str, Any], None]] = {
    nodes.Filter: _check_filter,
    nodes.Test: _check_test,
    nodes.Call: _check_call,
    nodes.For: _check_for,
    nodes.If: _check_if,
    nodes.Name: _check_name,
    nodes.Tuple: _check_tuple,
}
