"""Globs as patterns of paths: whether a path fits one, and whether one path could fit two of them."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import PurePosixPath

_SPECIAL = re.compile(r"[*?\[]")
_MEMBER = re.compile(r"(.)-(.)|.", re.DOTALL)  # of a class
_SIGNS = {"*": "[*]", "?": "[?]"}  # as themselves
_PLAIN = {"*": "[^/]*", "?": "[^/]"}
_NOTHING = r"(?!)"
_LAST = 0x10FFFF
_ANY = ((0, ord("/") - 1), (ord("/") + 1, _LAST))
MAX_COMPARED = 1 << 20  # characters of one glob times those of another
MAX_STARS = 3  # that a regular expression may try in all their ways
_SPECIAL_ENDS = re.compile(r"[*?\]]")


def matches(glob: str, path: str) -> bool:
    """Whether the path (relative, with slashes) fits; `**` stands for any folders, `src/**` for all below src."""
    if glob.count("*") <= MAX_STARS:
        return _pattern(glob).fullmatch(path) is not None
    return _cross(_parts(glob), path.split("/"), "**", _fits)


def escapes(name: str) -> bool:
    """Whether a path leaves its folder by its text alone."""
    pure = PurePosixPath(name)
    return pure.is_absolute() or ".." in pure.parts or "\0" in name


def is_plain(glob: str) -> bool:
    """Whether it names one path."""
    return _SPECIAL.search(glob) is None


def literal(path: str) -> str:
    """The glob that fits this path alone."""
    return _SPECIAL.sub(r"[\g<0>]", path)


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


class Route:
    """A glob as it is walked down folders; `at` has a bit for each number of parts that lie behind."""

    def __init__(self, glob: str) -> None:
        self._parts = _parts(glob)
        self.start = self._open(1)

    def into(self, at: int, name: str, *, link: bool = False) -> int:
        """Where one is after a name, 0 if nothing fits; `**` does not go through a link."""
        behind = 0
        for place in self._places(at):
            part = self._parts[place]
            if part == "**":
                behind |= 0 if link else 1 << place
            elif _named(part, name):
                behind |= 2 << place
        return self._open(behind)

    def is_end(self, at: int) -> bool:
        """Whether the names so far fit the whole glob."""
        return at >> len(self._parts) == 1

    def goes_on(self, at: int) -> bool:
        """Whether something below may fit."""
        return at & (1 << len(self._parts)) - 1 != 0

    def names(self, at: int) -> list[str] | None:
        """The only names that can come next; None if it takes a look into the folder to know."""
        parts = {self._parts[place] for place in self._places(at)}
        return sorted(parts) if all(map(is_plain, parts)) else None

    def _places(self, at: int) -> Iterator[int]:
        at &= (1 << len(self._parts)) - 1
        while at:
            yield (at & -at).bit_length() - 1
            at &= at - 1

    def _open(self, at: int) -> int:
        """With what lies behind `**` if it stands for no folder; two of them never follow each other."""
        for place in self._places(at):
            at |= (2 << place) if self._parts[place] == "**" else 0
        return at


def overlap(one: str, other: str) -> bool:
    """Whether a path could fit both; in doubt, which is where they are longer than any path, yes."""
    return len(one) * len(other) > MAX_COMPARED or _cross(_parts(one), _parts(other), "**", _fit)


def fixed_ends(glob: str) -> tuple[list[str], list[str]]:
    """The parts before the first `**`, and from the end back to the last one; without one all, and then a slash."""
    parts = _parts(glob)
    if "**" not in parts:
        return [*parts, "/"], [*reversed(parts), "/"]
    return parts[: parts.index("**")], parts[::-1][: parts[::-1].index("**")]


def plain_ends(part: str) -> tuple[str, str]:
    """The text before the first sign of a pattern and that after the last; those of parts that overlap are alike."""
    return _SPECIAL.split(part, maxsplit=1)[0], _SPECIAL_ENDS.split(part)[-1]


def _parts(glob: str) -> list[str]:
    found = [part for part in glob.split("/") if part not in ("", ".")]
    found = [part for part, after in zip(found, [*found[1:], ""], strict=False) if not part == after == "**"]
    return [*found, "*"] if found and found[-1] == "**" else found


@lru_cache(maxsize=1 << 15)
def _named(part: str, name: str) -> bool:
    """Whether a name fits a part; as fast as can be where many names are looked at."""
    if part.count("*") <= MAX_STARS:
        return _pattern(part).fullmatch(name) is not None
    return _fits(part, name)


def _fits(part: str, name: str) -> bool:
    """Whether a name fits a part."""
    return _cross(_pieces(part), [_SIGNS.get(sign, sign) for sign in name], "*", _share)


def _fit(one: str, other: str) -> bool:
    """Whether one name could fit both parts."""
    if is_plain(one) and is_plain(other):
        return one == other
    return _cross(_pieces(one), _pieces(other), "*", _share)


def _cross(one: Sequence[str], other: Sequence[str], star: str, alike: Callable[[str, str], bool]) -> bool:
    """Whether something fits both, one sign after the other, where a star stands for any number of them.

    Both are read side by side: `at` has a bit for each place in the other where one can be.
    """
    end = 1 << len(other)
    stars = sum(1 << place for place, its in enumerate(other) if its == star)
    like = {
        sign: sum(1 << place for place, its in enumerate(other) if its != star and alike(sign, its))
        for sign in set(one) - {star}
    }
    at = 1 | (stars & 1) << 1
    for sign in one:  # behind a star one can be at all places from the first on
        at = -(at & -at) & (2 * end - 1) if sign == star else (at & like[sign]) << 1 | at & stars
        at |= (at & stars) << 1
    return at & end != 0


def _share(one: str, other: str) -> bool:
    """Whether some character fits both signs."""
    return any(max(a, c) <= min(b, d) for a, b in _ranges(one) for c, d in _ranges(other))


@lru_cache(maxsize=1024)
def _ranges(piece: str) -> tuple[tuple[int, int], ...]:
    """The characters that fit a sign."""
    if piece == "?":
        return _ANY
    if len(piece) == 1:
        return ((ord(piece), ord(piece)),)
    inner = piece[1:-1]
    members = (one.groups() if one[1] else (one[0], one[0]) for one in _MEMBER.finditer(inner.removeprefix("!")))
    spans = sorted((ord(first), ord(last)) for first, last in members)
    if any(first > last for first, last in spans):
        return ()
    if inner.startswith("!"):
        spans = [
            (a + 1, b - 1)
            for a, b in zip([-1, *_ends(spans)], [*(first for first, _ in spans), _LAST + 1], strict=True)
        ]
    return tuple((max(a, c), min(b, d)) for a, b in spans for c, d in _ANY if max(a, c) <= min(b, d))


def _ends(spans: Sequence[tuple[int, int]]) -> list[int]:
    """The last character of each span or of one before it."""
    return list(accumulate((last for _, last in spans), max))


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
