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
_FILTERS = rf"(?:\s*\|\s*[a-z]+(?!\w)(?:\s*\(\s*(?:{_LITERAL}(?:\s*,\s*{_LITERAL})*\s*)?\))?){{0,3}}"
_FILTER = re.compile(r"\|\s*([a-z]+)", re.ASCII)
_VALUE = re.compile(
    rf"\$\{{\{{\s*(?:(?P<name>{_NAME})(?P<name_filters>{_FILTERS})|-?{_NUMBER}|true|false)\s*\}}\}}", re.ASCII
)
_OPERAND = (
    rf"""(?:(?P<SIDE>{_NAME})(?P<SIDE_filters>{_FILTERS})|'(?P<SIDE_text>[^'\\$]*)'|{_NUMBER}|(?:true|false)(?!\w))"""
)
_LEFT, _RIGHT = _OPERAND.replace("SIDE", "left"), _OPERAND.replace("SIDE", "right")
_PART = re.compile(
    rf"\s*(?P<negated>not\s+)?{_LEFT}(?:\s*(?P<sign>==|!=|<=|>=|<|>)\s*{_RIGHT})?\s*(?:(?P<joint>and|or)(?!\w)|\Z)",
    re.ASCII,
)
_SIDES = ("left", "right")
_MAX_PARTS = 20


def template_facts(source: str) -> Facts | None:
    """What a template of texts, names with filters, numbers and booleans uses; None if there is more to it."""
    found = _values(source)
    if found is None or not all(_known(match, "name") for match in found):
        return None
    return Facts(tuple([_reference(match, "name") for match in found if match["name"]]))


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
        if match is None or not all(_known(match, side) for side in _SIDES):
            return None
        if joint and match["joint"] and match["joint"] != joint:
            return None
        joint, at = match["joint"] or joint, match.end()
        references += [_reference(match, side, given) for side in _SIDES if match[side]]
        comparisons += _compared(match, given)
        shows.append(_shown(match, True))
        given |= _shown(match, joint == "and")
        if not match["joint"]:
            union = frozenset().union(*shows) if joint == "and" else frozenset.intersection(*shows)
            return Facts(tuple(references), tuple(comparisons), union)
    return None


def parts(source: str) -> Plain | None:
    """The template as texts and paths of names; None if there is more to it."""
    found = _values(source)
    if found is None or not all(_is_name(match) for match in found):
        return None
    made: list[str | Path] = []
    end = 0
    for match in found:
        made += (source[end : match.start()], tuple(match["name"].split(".")))
        end = match.end()
    return (*made, source[end:])


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
    name = value["name"]
    return bool(name) and not value["name_filters"] and name.split(".", 1)[0] not in _FUNCTIONS


def _known(match: re.Match[str], group: str) -> bool:
    """Whether there are such filters as the name in this group has."""
    return all(name in FILTERS for name in _filters(match, group))


def _filters(match: re.Match[str], group: str) -> list[str]:
    written = match[f"{group}_filters"]
    return _FILTER.findall(written) if written else []


def _reference(match: re.Match[str], group: str, given: frozenset[str] = NO_STAGES) -> Reference:
    name, optional = match[group], _filters(match, group)[:1] == ["default"]
    return Reference(tuple(name.split(".")), match.start(group), name, optional, False, given)


def _compared(part: re.Match[str], given: frozenset[str]) -> list[Comparison]:
    """The name of a part that is compared with a literal text."""
    if part["sign"] not in ("==", "!="):
        return []
    return [
        Comparison(Reference(tuple(name.split(".")), part.start(side), name, given=given), text)
        for side, other in (_SIDES, _SIDES[::-1])
        if (name := part[side]) and (text := part[f"{other}_text"]) is not None
        if "." in name and all(filter_ in KEEPS_PROSE for filter_ in _filters(part, side))
    ]


def _shown(part: re.Match[str], outcome: bool) -> frozenset[str]:
    """The stages that must have run if a part came out like this."""
    if not part["left"] or part["left_filters"] or part["sign"] or bool(part["negated"]) is outcome:
        return NO_STAGES
    return shown_path(part["left"].split("."))
