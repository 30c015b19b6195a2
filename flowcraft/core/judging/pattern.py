"""Regular expressions that cannot hang: time grows with the text times the pattern, never faster.

For patterns in schemas of users, held against what models write; `re` needs years for `^(a+)+$`.
Knows what JSON Schema recommends (RFC 8927 and ECMA-262 without look-around and back references):
literals, classes, `.`, groups, `|`, `* + ? {n,m}`, `^`, `$`. Simulates all ways at once (Thompson 1968).
"""

from collections.abc import Callable
from functools import lru_cache

# "{n,m}" counts as what it repeats.
MAX_SIZE = 1000
# Places looked at in one search, well under a second; only a long text against a large pattern comes so far.
MAX_EFFORT = 3_000_000
_MAX_DEPTH = 50
_MAX_CACHED = 5000
_NOT_CACHED: frozenset[int] = frozenset((-1,))

Test = Callable[[str], bool]
# An instruction: what the next character must be (None: nothing is read), an edge of the text that
# must be here ("^", "$" or ""), and where to go on.
_Step = tuple[Test | None, str, tuple[int, ...]]
# A part of the pattern that has been read; appends its instructions, and may be asked to again.
_Part = Callable[[list[_Step]], None]

_DIGIT: Test = lambda c: "0" <= c <= "9"  # noqa: E731 - a table of one-liners
_WORD: Test = lambda c: c == "_" or (c.isascii() and c.isalnum())  # noqa: E731
_SPACE: Test = lambda c: c.isspace() or c == "\ufeff"  # noqa: E731
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_HEX = {"x": 2, "u": 4}


class TooHard(Exception):
    """A search was given up."""


class Pattern:
    """A pattern that can be searched for, by several threads at once; made by `compiled`."""

    def __init__(self, text: str) -> None:
        self._program = _Compiler(text).program()
        self._cache: dict[tuple[frozenset[int], str], frozenset[int] | None] = {}

    def search(self, text: str) -> bool:
        """Whether it matches anywhere in `text`; raises TooHard where that would take too long."""
        threads, effort, edge = frozenset((0,)), 0, "^"
        for character in text:
            key = (threads, edge + character)
            following = self._cache.get(key, _NOT_CACHED)
            if following is _NOT_CACHED:
                if len(self._cache) >= _MAX_CACHED:
                    self._cache.clear()
                following = self._cache[key] = self._after(threads, character, edge)
                effort += 10 * len(threads)
                if effort > MAX_EFFORT:
                    raise TooHard
            if following is None:
                return True
            threads, edge = following, ""
        return self._reached(threads, edge + "$") is None

    def _after(self, threads: frozenset[int], character: str, edge: str) -> frozenset[int] | None:
        """The threads after one more character; None if the match was already complete."""
        reached = self._reached(threads, edge)
        if reached is None:
            return None
        following = {0}
        for place in reached:
            test, _, targets = self._program[place]
            if test and test(character):
                following.update(targets)
        return frozenset(following)

    def _reached(self, threads: frozenset[int], edges: str) -> set[int] | None:
        """All places that the threads can be in without reading; None if one of them is the end."""
        reached: set[int] = set()
        waiting = list(threads)
        while waiting:
            place = waiting.pop()
            if place in reached:
                continue
            reached.add(place)
            test, edge, targets = self._program[place]
            if not targets:
                return None
            if test is None and edge in edges:  # "" is in every text
                waiting += targets
        return reached


@lru_cache(maxsize=256)
def compiled(text: str) -> Pattern:
    """The pattern; raises ValueError, in words for its writer, if it is wrong or needs what is not known."""
    return Pattern(text)


class _Compiler:
    """Recursive descent over the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def program(self) -> list[_Step]:
        steps: list[_Step] = []
        self._alternatives()(steps)
        if self._at < len(self._text):
            raise ValueError("a ')' too many")
        _emit(steps)
        return steps

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise ValueError("the pattern ends too early")
        self._at += 1
        return character

    def _skip(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _alternatives(self) -> _Part:
        ways = [self._sequence()]
        while self._skip("|"):
            ways.append(self._sequence())
        return lambda steps: _emit_one_of(steps, ways)

    def _sequence(self) -> _Part:
        parts = []
        while self._peek() not in ("", "|", ")"):
            part = self._edge() or self._repeated(self._atom())
            parts.append(part)

        def emit(steps: list[_Step]) -> None:
            for part in parts:
                part(steps)

        return emit

    def _edge(self) -> _Part | None:
        edge = self._peek()
        if edge not in ("^", "$"):
            return None
        self._at += 1
        return lambda steps: _emit(steps, None, edge, len(steps) + 1)

    def _repeated(self, part: _Part) -> _Part:
        low, high = self._repetition()
        if (low, high) == (1, 1):
            return part
        return lambda steps: _emit_repeated(steps, part, low, high)

    def _repetition(self) -> tuple[int, int | None]:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if self._peek() in simple:
            bounds = simple[self._take()]
        elif self._peek() == "{":
            bounds = self._bounds()
        else:
            return 1, 1
        self._skip("?")  # a lazy repetition matches the same texts
        if self._peek() in ("*", "+", "?", "{") and self._peek():
            raise ValueError(f"nothing to repeat before '{self._peek()}'")
        return bounds

    def _bounds(self) -> tuple[int, int | None]:
        inside, closed, _ = self._text[self._at + 1 :].partition("}")
        low, comma, high = inside.partition(",")
        if not closed or not low.isdecimal() or (high and not high.isdecimal()) or len(inside) > 9:
            raise ValueError("write a literal '{' as '\\{'")
        self._at += len(inside) + 2
        bounds = (int(low), int(high) if high else None if comma else int(low))
        if bounds[1] is not None and bounds[1] < bounds[0]:
            raise ValueError(f"'{{{inside}}}' counts backwards")
        return bounds

    def _atom(self) -> _Part:
        character = self._take()
        if character == "(":
            return self._group()
        if character in "*+?{":
            raise ValueError(f"nothing to repeat before '{character}'")
        test = self._one(character)
        return lambda steps: _emit(steps, test, "", len(steps) + 1)

    def _one(self, character: str) -> Test:
        if character == ".":
            return lambda c: c not in "\n\r\u2028\u2029"
        if character == "[":
            return self._set()
        if character == "\\":
            escape = self._escape()
            return escape if callable(escape) else escape.__eq__
        return character.__eq__

    def _group(self) -> _Part:
        if self._skip("?") and not self._skip(":"):
            raise ValueError("of groups only '(...)' and '(?:...)' are known")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("groups are nested too deeply")
        part = self._alternatives()
        self._depth -= 1
        if not self._skip(")"):
            raise ValueError("a ')' is missing")
        return part

    def _escape(self) -> Test | str:
        letter = self._take()
        if letter.lower() in _CLASSES:
            test = _CLASSES[letter.lower()]
            return test if letter.islower() else lambda c: not test(c)
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if letter in _HEX:
            digits = self._text[self._at : self._at + _HEX[letter]]
            self._at += len(digits)
            if len(digits) < _HEX[letter] or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
                raise ValueError(f"'\\{letter}' takes {_HEX[letter]} hexadecimal digits")
            return chr(int(digits, 16))
        if letter.isalnum():
            raise ValueError(f"'\\{letter}' is not known")
        return letter

    def _set(self) -> Test:
        negated = self._skip("^")
        tests: list[Test] = []
        characters: set[str] = set()
        while not self._skip("]"):
            low = self._member()
            if callable(low):
                tests.append(low)
            elif self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._take()
                tests.append(_range(low, self._member()))
            else:
                characters.add(low)
        return lambda c: (c in characters or any(test(c) for test in tests)) is not negated

    def _member(self) -> Test | str:
        character = self._take()
        return self._escape() if character == "\\" else character


def _range(low: str, high: Test | str) -> Test:
    if callable(high) or high < low:
        raise ValueError("a range such as a-z must go from a lower to a higher character")
    return lambda c: low <= c <= high


def _emit(steps: list[_Step], test: Test | None = None, edge: str = "", *targets: int) -> None:
    if len(steps) >= MAX_SIZE:
        raise ValueError("the pattern is too large")
    steps.append((test, edge, targets))


def _emit_one_of(steps: list[_Step], ways: list[_Part]) -> None:
    ends = []
    for number, way in enumerate(ways, 1):
        fork = len(steps)
        _emit(steps, None, "", fork + 1)
        way(steps)
        if number < len(ways):
            ends.append(len(steps))
            _emit(steps)
            steps[fork] = (None, "", (fork + 1, len(steps)))
    for end in ends:
        steps[end] = (None, "", (len(steps),))


def _emit_repeated(steps: list[_Step], part: _Part, low: int, high: int | None) -> None:
    for _ in range(low):
        part(steps)
    forks = []
    for _ in range(1 if high is None else high - low):
        forks.append(len(steps))
        _emit(steps)
        part(steps)
    if high is None:
        _emit(steps, None, "", forks[0])
    for fork in forks:
        steps[fork] = (None, "", (fork + 1, len(steps)))
