"""Globs as patterns of paths: whether a path fits one, and whether one path could fit two of them."""

import re
from functools import lru_cache

_SPECIAL = re.compile(r"[*?\[]")
_MEMBER = re.compile(r"(.)-(.)|.", re.DOTALL)  # of a class
_PLAIN = {"*": "[^/]*", "?": "[^/]"}
_NOTHING = r"(?!)"
_SPECIAL_ENDS = re.compile(r"[*?\]]")


def matches(glob: str, path: str) -> bool:
    """Whether the path (relative, with slashes) fits; `**` stands for any folders, `src/**` for all below src."""
    return _pattern(glob).fullmatch(path) is not None


def is_plain(glob: str) -> bool:
    """Whether it names one path."""
    return _SPECIAL.search(glob) is None


def mistake(glob: str) -> tuple[str, str] | None:
    """Why the text is no glob, and what to write instead; None if it is one."""
    parts = _parts(glob)
    if not parts:
        return "names no file", "to have all files write **"
    for part in parts:
        if "**" in part and part != "**":
            return "has ** beside other signs", "** stands alone between slashes: src/**/*.py"
        pieces = _pieces(part)
        if "[" in pieces:
            return "has a [ that is not closed", "write [[] for the sign itself, or close it: [a-z]"
        if any(_class(piece[1:-1]) == _NOTHING for piece in pieces if len(piece) > 1):
            return "has a range that ends before it begins", "write the smaller sign first: [a-z]"
    return None


def overlap(one: str, other: str) -> bool:
    """Whether a path could fit both; in doubt yes."""
    return _meet(tuple(_parts(one)), tuple(_parts(other)))


def plain_ends(glob: str) -> tuple[str, str]:
    """The text before the first sign of a pattern and that after the last; those of globs that overlap are alike."""
    return _plain_ends("/".join(_parts(glob)))


def _alike(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether one text could begin and end with what two patterns do."""
    (start, end), (other_start, other_end) = one, other
    begin = start.startswith(other_start) or other_start.startswith(start)
    return begin and (end.endswith(other_end) or other_end.endswith(end))


def _plain_ends(pattern: str) -> tuple[str, str]:
    return _SPECIAL.split(pattern, maxsplit=1)[0], _SPECIAL_ENDS.split(pattern)[-1]


def _parts(glob: str) -> list[str]:
    found = [part for part in glob.split("/") if part not in ("", ".")]
    return [*found, "*"] if found and found[-1] == "**" else found


@lru_cache(maxsize=4096)
def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if not one or not other:
        return all(part == "**" for part in (*one, *other))
    if one[0] == "**":
        return _meet(one[1:], other) or _meet(one, other[1:])
    if other[0] == "**":
        return _meet(other, one)
    return _fit(one[0], other[0]) and _meet(one[1:], other[1:])


def _fit(one: str, other: str) -> bool:
    if is_plain(one) and is_plain(other):
        return one == other
    if is_plain(other):
        return _segment(one).fullmatch(other) is not None
    if is_plain(one):
        return _segment(other).fullmatch(one) is not None
    return _alike(_plain_ends(one), _plain_ends(other))


@lru_cache(maxsize=1024)
def _segment(part: str) -> re.Pattern[str]:
    return re.compile(_text(part))


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    pieces = []
    parts = _parts(glob)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        pieces.append("(?:[^/]+/)*" if part == "**" else _text(part) + ("" if last else "/"))
    return re.compile("".join(pieces))


def _text(part: str) -> str:
    """One part of a path as a regular expression."""
    return "".join(
        _class(piece[1:-1]) if len(piece) > 1 else _PLAIN.get(piece) or re.escape(piece) for piece in _pieces(part)
    )


@lru_cache(maxsize=1024)
def _pieces(part: str) -> tuple[str, ...]:
    """The signs of one part: `*`, `?`, classes, single characters; adjacent stars are one, so that none runs away."""
    found, at = [], 0
    part = re.sub(r"\*+", "*", part)
    while at < len(part):
        # A bracket that comes first is one of the class.
        end = part.find("]", at + 2 + part.startswith("!", at + 1)) if part[at] == "[" else -1
        found.append(part[at : max(at, end) + 1])
        at = max(at, end) + 1
    return tuple(found)


def _class(inner: str) -> str:
    """A class of characters, as far as it is one; a slash is in none."""
    members = _MEMBER.sub(
        lambda one: "-".join(map(re.escape, one.groups() if one[1] else one[0])), inner.removeprefix("!")
    )
    made = f"(?!/)[{'^' if inner.startswith('!') else ''}{members}]"
    try:
        re.compile(made)
    except re.error:  # a range backwards: it fits nothing
        return _NOTHING
    return made
