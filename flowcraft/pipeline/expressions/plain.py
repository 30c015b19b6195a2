"""What can be done without an engine: filling templates that are nothing but text and dotted names, as most are.

Jinja2 takes a whole millisecond for their code. Only what is sure to be the same is done; else the answer is None,
and the parser and the engine do it, with their own errors.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flowcraft.pipeline.expressions.data import MAX_NUMBER
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
    if found is None:
        return None
    made: list[str | Path] = []
    end = 0
    for match in found:
        path = tuple((match["name"] or "").split("."))
        if not path[0] or path[0] in _FUNCTIONS or match["name_filters"]:
            return None
        made += (source[end : match.start()], path)
        end = match.end()
    return (*made, source[end:])


def filled(found: Plain, scope: Mapping[str, Any], *, typed: bool = False) -> str | None:
    """The text; None if a name leads to anything but text and whole numbers.

    Where values are `typed`, it is also None for a number alone.
    """
    numbers = not typed or len(found) != 3 or found[0] or found[2]  # a text, a name, a text
    texts = []
    for part in found:
        text = part if part.__class__ is str else _value(part, scope)
        if text.__class__ is int and numbers and -MAX_NUMBER <= text <= MAX_NUMBER:
            text = str(text)
        if text.__class__ is not str:
            return None
        texts.append(text)
    text = "".join(texts)
    return text if len(text) <= MAX_TEXT else None


def _value(path: str | Path, scope: Mapping[str, Any]) -> Any:
    """What the names lead to; None for nothing."""
    value: Any = scope
    for name in path:
        # Most are dicts, and asking whether something is a Mapping takes long.
        if (value.__class__ is not dict and not isinstance(value, Mapping)) or name not in value:
            return None
        value = value[name]
    return value


@lru_cache(maxsize=4096)  # asked for when a file is read, and again when a stage starts
def values(source: str) -> list[re.Match[str]] | None:
    """The values of a template, if all are names with filters, numbers and booleans, and not very many."""
    found = list(VALUE.finditer(source))
    if len(found) != source.count("${{") or "${%" in source:
        return None
    # Each token has one character at least.
    return found if len(source) <= MAX_TOKENS or sum(len(match[0]) for match in found) <= MAX_TOKENS else None
