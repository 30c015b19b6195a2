"""Expressions, templates and scripts of a pipeline: `${{ value }}` and `${% statement %}`.

    Expression("stages.a.output.risk != 'low'").condition(scope)
    Template("Design: ${{ stages.a.output }}").text(scope)
    Script('git commit -m "${{ inputs.title }}"').render(scope)

`scope` holds plain data: dicts, lists, str, numbers, booleans, None. A value is rendered once and never
read as a template itself. All failures are ExpressionError with the offset in the text. Nothing is
parsed before it is needed; what is parsed is kept by text.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Template as Code
from jinja2 import Undefined, UndefinedError, nodes

from flowcraft.core.errors import ExpressionError, UsageError
from flowcraft.pipeline.expressions import commands, engine, plain, quoting, shell, uses
from flowcraft.pipeline.expressions.data import Null, Refused, defined, field_of, kind_of, text_of
from flowcraft.pipeline.expressions.engine import Files
from flowcraft.pipeline.expressions.lexer import Piece, bare, fail, pieces
from flowcraft.pipeline.expressions.references import Comparison, Facts, Reference, facts, from_results
from flowcraft.pipeline.expressions.syntax import expression_tree, template_tree
from flowcraft.pipeline.expressions.work import Work

Scope = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Expression:
    """A bare expression, as in `if:`; a `${{ }}` around the whole of it is accepted."""

    source: str

    @property
    def references(self) -> tuple[Reference, ...]:
        """The dotted names it uses; raises ExpressionError if it cannot be read."""
        return _expression_facts(self.source).references

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The dotted names it compares with literal text."""
        return _expression_facts(self.source).comparisons

    @property
    def is_static(self) -> bool:
        """Whether it is the same in every run."""
        return not self.references and "glob" not in self.source and "read" not in self.source

    @property
    def shows(self) -> frozenset[str]:
        """The ids of the stages that must have run if this is true: `a` of `stages.a.ok and ...`."""
        return _expression_facts(self.source).shows

    def value(self, scope: Scope, files: Files | None = None) -> Any:
        """What it stands for; nothing (undefined) is an error."""
        return _value(self.source, 0, _expression_code(self.source), self.references, scope, files)

    def condition(self, scope: Scope, files: Files | None = None) -> bool:
        """True or False; any other value is an error (FC301)."""
        value = self.value(scope, files)
        if value is not True and value is not False:
            fail(
                self.source,
                0,
                f"a condition must be true or false, and this is {kind_of(value)}",
                code="FC301",
                hint="compare it: x == 'yes', x | length > 0, x is not none",
            )
        return value


@dataclass(frozen=True, slots=True)
class Template:
    """Text with `${{ }}` and `${% %}`; a lone `${{ x }}` keeps the type of its value."""

    source: str

    @property
    def references(self) -> tuple[Reference, ...]:
        """The dotted names it uses; raises ExpressionError if it cannot be read."""
        return _template_facts(self.source).references

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The dotted names it compares with literal text."""
        return _template_facts(self.source).comparisons

    @property
    def is_static(self) -> bool:
        """Whether it is plain text."""
        return "$" not in self.source or all(part.kind == "text" for part in _pieces(self.source))

    def render(self, scope: Scope, files: Files | None = None) -> Any:
        """The value of a lone `${{ x }}`, else the text."""
        if (simple := self._simply(scope, typed=True)) is not None:
            return simple
        parts = _pieces(self.source)
        if len(parts) == 1 and parts[0].kind == "value":
            code = _piece_code(self.source, parts[0])
            return _value(self.source, parts[0].start, code, self.references, scope, files)
        return self.text(scope, files)

    def text(self, scope: Scope, files: Files | None = None) -> str:
        """The text, also of a lone `${{ x }}`."""
        if (simple := self._simply(scope)) is not None:
            return simple
        if self.is_static:
            return self.source
        code, work = _template_code(self.source), Work()
        try:
            return engine.printed(code, scope, files, work)
        except engine.FAILURES as error:
            raise _failure(error, self.source, work.offset, self.references, scope) from error

    def _simply(self, scope: Scope, *, typed: bool = False) -> str | None:
        """The text, if there is nothing but names of texts and numbers in it; `typed` a number alone is none."""
        if "$" not in self.source:
            return self.source
        found = _plain_parts(self.source)
        return None if found is None else plain.filled(found, scope, typed=typed)


@dataclass(frozen=True, slots=True)
class Script:
    """A bash script in which each `${{ x }}` becomes a variable: no value is ever read by the shell."""

    source: str

    @property
    def references(self) -> tuple[Reference, ...]:
        """The dotted names it uses; raises ExpressionError if it cannot be read."""
        return _script_facts(self.source).references

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The dotted names it compares with literal text."""
        return _script_facts(self.source).comparisons

    @property
    def is_static(self) -> bool:
        """Whether no value goes into it."""
        return not _slots(self.source)

    def check(self) -> None:
        """Raise ExpressionError (FC210) where a value, or a result, would be more than data."""
        parts = _slots(self.source)
        places = quoting.slots(self.source, [(part.start, part.end) for part in parts])
        for part, place in zip(parts, places, strict=True):
            if place.decides and from_results(_piece_facts(self.source, part).references):
                fail(self.source, part.start, place.decides, code="FC210", hint=commands.advice(place.decides))

    def render(
        self,
        scope: Scope,
        files: Files | None = None,
        *,
        spill: shell.Spill | None = None,
        given: Callable[[Template], bool] | None = None,
    ) -> tuple[str, dict[str, str]]:
        """The script and the variables it needs in its environment.

        `spill(name, text)` puts a value that is too large for the environment into a file and
        returns its path. `given` says whether a value may be an option of a command, as what a person has given may.
        """
        parts = _slots(self.source)
        places = quoting.slots(self.source, [(part.start, part.end) for part in parts])
        values = []
        for part, place in zip(parts, places, strict=True):
            references = _piece_facts(self.source, part).references
            value = _value(self.source, part.start, _piece_code(self.source, part), references, scope, files)
            try:
                text = text_of(value)
            except Refused as error:
                raise _failure(error, self.source, part.start, references, scope) from error
            written = self.source[part.start : part.end]
            if given and place.decides and not given(Template(written)):
                fail(self.source, part.start, place.decides, code="FC210", hint=commands.advice(place.decides))
            if given and shell.is_option(place, text) and not given(Template(written)):
                said = f"{text[:40]!r} would be an option of '{place.option_of}', and comes from a result"
                hint = f'write -- before it, or both in one: --name="{written}"'
                fail(self.source, part.start, said, code="FC210", hint=hint)
            values.append((value, text))
        return shell.filled(self.source, places, values, spill)


def parts_of(source: str) -> list[tuple[str, str]]:
    """The parts of a template as they are written: text, value or statement."""
    return [(part.kind, source[part.start : part.end]) for part in _pieces(source)]


def tree_of(source: str) -> nodes.Template:
    """The tree of a template, which must not be changed; raises ExpressionError if it cannot be read."""
    return template_tree(source, list(_pieces(source)))


def lone_value(source: str) -> nodes.Expr | None:
    """The tree of the only value of a template that is nothing else, which keeps its type; None for other texts."""
    parts = _pieces(source)
    return expression_tree(source, parts[0].tokens) if len(parts) == 1 and parts[0].kind == "value" else None


def bare_text(source: str) -> str:
    """The text of an expression without what may stand around the whole of it."""
    return source.strip().removeprefix("${{").removesuffix("}}").strip()


def expression_of(source: str) -> nodes.Expr:
    """The tree of a bare expression; raises ExpressionError if it cannot be read."""
    return expression_tree(source, bare(source))


@lru_cache(maxsize=4096)
def _pieces(source: str) -> tuple[Piece, ...]:
    return tuple(pieces(source))


@lru_cache(maxsize=4096)
def _plain_parts(source: str) -> plain.Plain | None:
    return plain.parts(source)


@lru_cache(maxsize=4096)
def _slots(source: str) -> tuple[Piece, ...]:
    """The values in a script; statements are refused."""
    found = _pieces(source)
    for part in found:
        if part.kind == "statement":
            hint = "use the shell's own if and for, or make the text in a stage of its own"
            fail(source, part.start, "there are no statements in a script, only values", hint=hint)
    return tuple(part for part in found if part.kind == "value")


@lru_cache(maxsize=4096)
def _expression_facts(source: str) -> Facts:
    found = uses.condition_facts(source)
    return facts(source, expression_tree(source, bare(source))) if found is None else found


@lru_cache(maxsize=4096)
def _template_facts(source: str) -> Facts:
    found = uses.template_facts(source)
    return facts(source, template_tree(source, list(_pieces(source)))) if found is None else found


@lru_cache(maxsize=4096)
def _script_facts(source: str) -> Facts:
    found = uses.template_facts(source) if "${%" not in source else None
    if found is not None:
        return found
    each = [facts(source, expression_tree(source, part.tokens)) for part in _slots(source)]
    return Facts(
        tuple(reference for one in each for reference in one.references),
        tuple(comparison for one in each for comparison in one.comparisons),
    )


@lru_cache(maxsize=4096)
def _piece_facts(source: str, part: Piece) -> Facts:
    return facts(source, expression_tree(source, part.tokens))


# Compiling changes the tree, so each kind of code is made from a tree of its own.
@lru_cache(maxsize=1024)
def _expression_code(source: str) -> Code:
    return engine.compiled(expression_tree(source, bare(source)))


@lru_cache(maxsize=1024)
def _template_code(source: str) -> Code:
    return engine.compiled(template_tree(source, list(_pieces(source))))


@lru_cache(maxsize=1024)
def _piece_code(source: str, part: Piece) -> Code:
    return engine.compiled(expression_tree(source, part.tokens))


def _value(text: str, at: int, code: Code, references: tuple[Reference, ...], scope: Scope, files: Files | None) -> Any:
    work = Work()
    work.offset = at
    try:
        value = engine.evaluated(code, scope, files, work)
        defined(value)
        work.weigh(value)
    except engine.FAILURES as error:
        raise _failure(error, text, work.offset, references, scope) from error
    return value


def _failure(
    error: Exception, text: str, offset: int, references: tuple[Reference, ...], scope: Scope
) -> ExpressionError:
    """The error as the user sees it: the name that has no value, if that is the reason."""
    if isinstance(error, ExpressionError):
        return error
    lost = _lost(references, scope, offset) if isinstance(error, UndefinedError | Null) else None
    if lost is None:
        hint = getattr(error, "hint", None)
        return ExpressionError(_reason(error), expression=text, offset=offset, code="FC300", hint=hint)
    if isinstance(error, Null):
        message = f"'{lost}' is null"
    elif len(lost.path) == 1:
        message = f"there is no '{lost}' here"
    else:
        message = f"'{lost}' has no value: {_reason(error)}"
    hint = f"give a fallback: {lost} | default('...')"
    return ExpressionError(message, expression=text, offset=lost.offset, code="FC300", hint=hint)


def _lost(references: tuple[Reference, ...], scope: Scope, offset: int) -> Reference | None:
    """The first name at or behind this place that has no value."""
    for reference in sorted(references, key=lambda item: (item.offset < offset, item.offset)):
        if reference.optional or reference.dynamic:
            continue
        value: Any = scope
        for part in reference.path:
            value = field_of(value, part)
        if value is None or isinstance(value, Undefined):
            return reference
    return None


def _reason(error: Exception) -> str:
    message = str(error)
    if isinstance(error, RecursionError):
        return "a value is nested too deep"
    if isinstance(error, UndefinedError) and (unknown := _UNDEFINED.fullmatch(message)):
        return f"there is no '{unknown[1]}'"
    if isinstance(error, TypeError) and (compared := _COMPARED.search(message)):
        left, right = (_KINDS.get(name, name) for name in (compared[2], compared[3]))
        return f"'{compared[1]}' does not work on {left} and {right}"
    if isinstance(error, Refused | UsageError | UndefinedError):
        return message
    return f"this cannot be calculated: {message or type(error).__name__}"


_UNDEFINED = re.compile(r"'([^']+)' is undefined")
_COMPARED = re.compile(r"'(\S+)' not supported between instances of '(\w+)' and '(\w+)'")
_KINDS = {"str": "text", "int": "a number", "float": "a number", "bool": "a boolean", "NoneType": "null"}
_KINDS |= {"dict": "a map", "list": "a list", "tuple": "a list"}
