"""What can be done without a tree of Jinja2, which takes it a tenth of a millisecond, and code for it a whole one.

Templates that are nothing but text and dotted names, as most are, are filled here, and what they and plain conditions
(`stages.a.ok and stages.b.output.risk != 'low'`) use is told. Only what is sure to be the same as with a tree is
said; else the answer is None, and the parser and the engine do it, with their own errors.
"""

import re
from collections.abc import Mapping
from typing import Any

from flowcraft.pipeline.expressions.filters import FILTERS
from flowcraft.pipeline.expressions.lexer import MAX_TOKENS
from flowcraft.pipeline.expressions.references import (
    KEEPS_PROSE,
    NO_STAGES,
    Comparison,
    Facts,
    Reference,
    shown_path,
)
from flowcraft.pipeline.expressions.work import MAX_TEXT

Path = tuple[str, ...]
Plain = tuple[str | Path, ...]

# As first names these are functions of the engine, whatever value has that name.
_FUNCTIONS = frozenset(("glob", "read", "range", "loop"))

# A dotted name, with nothing that Jinja2 or the language itself gives a meaning; short, so that no tree is too deep.
_NAME = (
    r"(?!(?:[tT]rue|[fF]alse|[nN]one|not|and|or|in|is|if|else|null|NULL|Null|nil|undefined"
    r"|self|super|caller|varargs|kwargs)\b)[a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*){0,10}(?!\w)"
)
_NUMBER = r"\d{1,18}(?:\.\d{1,18})?(?!\w)"
_LITERAL = rf"""(?:'[^'\\$|]*'|"[^"\\$|]*"|-?{_NUMBER}|(?:true|false|none)(?!\w))"""
_FILTERS = rf"((?:\s*\|\s*[a-z]+(?!\w)(?:\s*\(\s*(?:{_LITERAL}(?:\s*,\s*{_LITERAL})*\s*)?\))?){{0,3}})"
_FILTER = re.compile(r"\|\s*([a-z]+)", re.ASCII)
_VALUE = re.compile(rf"\$\{{\{{\s*(?:({_NAME}){_FILTERS}|-?{_NUMBER}|true|false)\s*\}}\}}", re.ASCII)
_OPERAND = rf"""(?:({_NAME}){_FILTERS}|'([^'\\$]*)'|{_NUMBER}|true(?!\w)|false(?!\w))"""
_PART = re.compile(rf"\s*(not\s+)?{_OPERAND}(?:\s*(==|!=|<=|>=|<|>)\s*{_OPERAND})?\s*(?:(and|or)(?!\w)|\Z)", re.ASCII)
_MAX_PARTS = 20


def template_facts(source: str) -> Facts | None:
    """What a template of texts, names with filters, numbers and booleans uses; None if there is more to it."""
    found = _values(source)
    if found is None or not all(_known(match[2]) for match in found if match[2]):
        return None
    return Facts(tuple([_reference(match, 1) for match in found if match[1]]))


def condition_facts(source: str) -> Facts | None:
    """What names, literals and comparisons of them use that are joined by `and`, or by `or`; None for all else."""
    if len(source) > MAX_TOKENS:  # each has one character at least
        return None
    references: list[Reference] = []
    comparisons: list[Comparison] = []
    shows: list[frozenset[str]] = []
    given, joint, at = NO_STAGES, None, 0
    for _ in range(_MAX_PARTS):
        match = _PART.match(source, at)
        if match is None or not _known(f"{match[3] or ''}{match[7] or ''}") or joint not in (None, match[9] or joint):
            return None
        joint, at = match[9] or joint, match.end()
        references += [_reference(match, name, given) for name in (2, 6) if match[name]]
        comparisons += _compared(match, given)
        shows.append(_shown(match, True))
        given |= _shown(match, joint == "and")
        if not match[9]:
            union = frozenset().union(*shows) if joint == "and" else frozenset.intersection(*shows)
            return Facts(tuple(references), tuple(comparisons), union)
    return None


def plain(source: str) -> Plain | None:
    """The template as texts and paths of names; None if there is more to it."""
    found = _values(source)
    if found is None or not all(_is_name(match) for match in found):
        return None
    parts: list[str | Path] = []
    end = 0
    for match in found:
        parts += (source[end : match.start()], tuple(match[1].split(".")))
        end = match.end()
    return (*parts, source[end:])


def filled(found: Plain, scope: Mapping[str, Any]) -> str | None:
    """The text; None if a name leads to anything but text."""
    texts = []
    for part in found:
        if isinstance(part, str):
            texts.append(part)
            continue
        value: Any = scope
        for name in part:
            # Most are dicts, and asking whether something is a Mapping takes long.
            if (value.__class__ is not dict and not isinstance(value, Mapping)) or name not in value:
                return None
            value = value[name]
        if value.__class__ is not str:
            return None
        texts.append(value)
    text = "".join(texts)
    return text if len(text) <= MAX_TEXT else None


def _values(source: str) -> list[re.Match[str]] | None:
    """The values of a template, if all are names with filters, numbers and booleans, and not very many."""
    found = list(_VALUE.finditer(source))
    if len(found) != source.count("${{") or "${%" in source:
        return None
    # Each token has one character at least.
    return found if len(source) <= MAX_TOKENS or sum(len(match[0]) for match in found) <= MAX_TOKENS else None


def _is_name(value: re.Match[str]) -> bool:
    return bool(value[1]) and not value[2] and value[1].split(".", 1)[0] not in _FUNCTIONS


def _known(filters: str) -> bool:
    return all(name in FILTERS for name in _FILTER.findall(filters))


def _reference(match: re.Match[str], group: int, given: frozenset[str] = NO_STAGES) -> Reference:
    """The name in this group, whose filters are in the next."""
    name, filters = match[group], match[group + 1]
    optional = bool(filters) and _FILTER.findall(filters)[0] == "default"
    return Reference(tuple(name.split(".")), match.start(group), name, optional, False, given)


def _compared(part: re.Match[str], given: frozenset[str]) -> list[Comparison]:
    """The name of a part that is compared with a literal text."""
    if part[5] not in ("==", "!="):
        return []
    return [
        Comparison(Reference(tuple(part[name].split(".")), part.start(name), part[name], given=given), part[text])
        for name, text in ((2, 8), (6, 4))
        if part[name] and part[text] is not None and "." in part[name] and _is_prose(part[name + 1])
    ]


def _is_prose(filters: str) -> bool:
    return all(name in KEEPS_PROSE for name in _FILTER.findall(filters))


def _shown(part: re.Match[str], outcome: bool) -> frozenset[str]:
    """The stages that must have run if a part came out like this."""
    if not part[2] or part[3] or part[5] or bool(part[1]) is outcome:
        return NO_STAGES
    return shown_path(part[2].split("."))
