"""Templates that are nothing but text and dotted names, as most are: filled without making code for them.

Making code takes Jinja2 a millisecond, and most templates are rendered once. Only what is sure to give the same
text is done here: every name must lead to text, and all of it must be of ordinary size. Else the answer is None,
and the engine does it, with its own errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flowcraft.pipeline.expressions.lexer import Piece
from flowcraft.pipeline.expressions.work import MAX_TEXT

Path = tuple[str, ...]
Plain = tuple[str | Path, ...]

# What a first name never stands for: words of the language, and the functions, which hide a value of that name.
_TAKEN = frozenset(("true", "True", "false", "False", "none", "None", "not", "and", "or", "in", "is", "if", "else"))
_FUNCTIONS = frozenset(("glob", "read", "range", "loop"))


def plain(source: str, parts: Sequence[Piece]) -> Plain | None:
    """The template as texts and paths of names; None if there is more to it."""
    found: list[str | Path] = []
    for part in parts:
        if part.kind == "text":
            found.append(source[part.start : part.end])
            continue
        path = _path(part)
        if path is None:
            return None
        found.append(path)
    return tuple(found)


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


def _path(part: Piece) -> Path | None:
    if part.kind != "value" or part.trims != (False, False):
        return None
    kinds = ["dot" if number % 2 else "name" for number in range(len(part.tokens))]
    if [token.type for token in part.tokens] != kinds or kinds[-1:] != ["name"]:
        return None
    names = tuple(str(token.value) for token in part.tokens[::2])
    return None if names[0] in _TAKEN | _FUNCTIONS else names
