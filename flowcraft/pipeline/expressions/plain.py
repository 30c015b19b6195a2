"""What can be done without an engine: filling templates that are nothing but text and dotted names, as most are.

Jinja2 takes a whole millisecond for their code. Only what is sure to be the same is done; else the answer is None,
and the parser and the engine do it, with their own errors.
"""

import re
from collections.abc import Mapping
from typing import Any

from flowcraft.pipeline.expressions.lexer import MAX_TOKENS
from flowcraft.pipeline.expressions.work import MAX_TEXT

Path = tuple[str, ...]
Plain = tuple[str | Path, ...]

# As first names these are functions of the engine, whatever value has that name.
_FUNCTIONS = frozenset(("glob", "read", "range", "loop"))

# A dotted name, with nothing that Jinja2 or the language itself gives a meaning; short, so that no tree is too deep.
NAME = (
    r"(?!(?:[tT]rue|[fF]alse|[nN]one|not|and|or|in|is|if|else|null|NULL|Null|nil|undefined"
    r"|self|super|caller|varargs|kwargs)\b)[a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*){0,10}(?!\w)"
)
NUMBER = r"\d{1,18}(?:\.\d{1,18})?(?!\w)"
_LITERAL = rf"""(?:'[^'\\$|]*'|"[^"\\$|]*"|-?{NUMBER}|(?:true|false|none)(?!\w))"""
NAME_FILTERS = rf"(?:\s*\|\s*[a-z]+(?!\w)(?:\s*\(\s*(?:{_LITERAL}(?:\s*,\s*{_LITERAL})*\s*)?\))?){{0,3}}"
VALUE = re.compile(
    rf"\$\{{\{{\s*(?:(?P<name>{NAME})(?P<name_filters>{NAME_FILTERS})|-?{NUMBER}|true|false)\s*\}}\}}", re.ASCII
)


def parts(source: str) -> Plain | None:
    """The template as texts and paths of names; None if there is more to it."""
    found = values(source)
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


def values(source: str) -> list[re.Match[str]] | None:
    """The values of a template, if all are names with filters, numbers and booleans, and not very many."""
    found = list(VALUE.finditer(source))
    if len(found) != source.count("${{") or "${%" in source:
        return None
    # Each token has one character at least.
    return found if len(source) <= MAX_TOKENS or sum(len(match[0]) for match in found) <= MAX_TOKENS else None


def _is_name(value: re.Match[str]) -> bool:
    name = value["name"]
    return bool(name) and not value["name_filters"] and name.split(".", 1)[0] not in _FUNCTIONS
