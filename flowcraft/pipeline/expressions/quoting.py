"""Where in a bash script something stands: in which quotes, brackets or heredoc; a scanner, not a parser.

It decides how a value may come in, and refuses (FC210) where bash would not expand it ('...', quoted
heredocs) or would read it as code (eval, bash -c, `...`, ${...}). In doubt it takes the stricter reading.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flowcraft.pipeline.expressions import commands
from flowcraft.pipeline.expressions.lexer import fail


@dataclass(frozen=True, slots=True)
class Slot:
    """A value's place; `quoted` needs no quotes of its own, `number` stands where bash calculates.

    `option_of` is the command that would take a value which begins with `-` as an option.
    """

    start: int
    end: int
    quoted: bool = False
    number: bool = False
    option_of: str = ""


@dataclass(slots=True)
class _Frame:
    """Something that is open; `words` are the finished ones of the current command, `word` the next.

    `target` says that this word is a file, not an argument.
    """

    kind: str
    start: int
    close: str = ""
    depth: int = 0
    cases: int = 0
    tabs: bool = False
    word: str = ""
    words: list[str] = field(default_factory=list)
    target: bool = False


_HEREDOC = re.compile(r"<<(-?)[ \t]*((?:[^\s;&|()<>'\"\\]|\\.|'[^'\n]*'|\"[^\"\n]*\")+)")
_CALCULATES = re.compile(r"(?:^|\s)-(?:eq|ne|lt|le|gt|ge|v|R)(?:\s|$)")
_ASSIGNMENT = re.compile(r"\w+\+?=.*", re.DOTALL)
_RESERVED = ("then", "do", "else", "elif", "if", "while", "until", "!", "{", "time", "esac", "fi", "done", "}")
_MAX_FRAMES = 100
# Characters that mean nothing in a frame of this kind, taken many at once; values begin with `$`.
_ORDINARY = {
    "code": re.compile(r"[^\s#\\`$'\"()<>;&|\[]+"),
    "double": re.compile(r"[^\\`$\"]+"),
    "single": re.compile(r"[^\\'$]+"),
    "comment": re.compile(r"[^\n$]+"),
}

_REFUSED = {
    "single": ("the shell does not expand a value inside '...'", 'use "..." around it'),
    "raw": ("the shell does not expand a value in a heredoc whose end word is quoted", "write <<EOF without quotes"),
    "backtick": ("a value inside `...` would be read twice", "use $(...)"),
    "brace": ("a value inside ${...} would be read as code", "put it into a variable first: name=${{ x }}"),
    "delimiter": ("a value cannot be the end word of a heredoc", "use a fixed word, such as EOF"),
}
_AS_CODE = ("the value would be run as code here", "pass it as an argument: bash -c 'echo \"$1\"' bash ${{ x }}")


def slots(script: str, spans: Sequence[tuple[int, int]]) -> list[Slot]:
    """How the values at `spans` stand; raises ExpressionError with FC210."""
    return _Scanner(script, spans).scan() if spans else []


class _Scanner:
    def __init__(self, script: str, spans: Sequence[tuple[int, int]]) -> None:
        self.script = script
        self.spans = dict(spans)
        self.at = 0
        self.frames = [_Frame("code", 0)]
        self.waiting: list[_Frame] = []  # heredocs that begin on the next line

    def scan(self) -> list[Slot]:
        found: list[Slot] = []
        for start, end in self.spans.items():
            while self.at < start:
                _STEPS[self.frames[-1].kind](self, self.frames[-1], self.script[self.at])
            if self.at > start:
                hint = "to have the sign itself, write ${{ '${{' }}"
                fail(self.script, start, "a value cannot stand behind a backslash", code="FC210", hint=hint)
            found.append(self._slot(start, end))
        return found

    def _slot(self, start: int, end: int) -> Slot:
        around = self._around()
        kinds = [frame.kind for frame in around]
        refused = next((_REFUSED[kind] for kind in kinds if kind in _REFUSED), None)
        code = around[-1]
        if refused is None and "comment" not in kinds and commands.runs(code.words, code.word):
            refused = _AS_CODE
        if refused:
            fail(self.script, start, refused[0], code="FC210", hint=refused[1])
        number = (
            "arithmetic" in kinds
            or any(self._calculates(frame) for frame in around)
            or commands.is_index(code.words, code.word)
        )
        begins = kinds in (["code"], ["double", "code"]) and code.word in ("", "\0") and not code.target
        option_of = commands.option_of(code.words, self.script) if begins else ""
        code.word += "\1"
        self.at = end
        quoted = any(kind in ("double", "heredoc", "arithmetic", "comment") for kind in kinds)
        return Slot(start, end, quoted, number, option_of)

    def _around(self) -> list[_Frame]:
        """The open frames from the innermost to the nearest command."""
        found = []
        for frame in reversed(self.frames):
            found.append(frame)
            if frame.kind == "code":
                break
        return found

    def _calculates(self, frame: _Frame) -> bool:
        if frame.kind != "test":
            return False
        end = self.script.find("]]", self.at)
        return bool(_CALCULATES.search(self.script, frame.start, end if end >= 0 else len(self.script)))

    def _push(self, kind: str, width: int, close: str = "") -> None:
        if len(self.frames) >= _MAX_FRAMES:
            fail(self.script, self.at, "the script is nested too deep")
        self.frames.append(_Frame(kind, self.at, close))
        self.at += width

    def _pop(self, width: int = 1) -> None:
        self.frames.pop()
        self.at += width

    # One function per kind of frame; each moves on by at least one character.

    def code(self, frame: _Frame, c: str) -> None:
        if c == "#" and not frame.word:
            self._push("comment", 1)
        elif self._common(c) or self._quote(c):
            frame.word += "\0" if c in "'\"" else c
        elif c in "()":
            self._bracket(frame, c)
        elif c in "<>":
            self._redirect(frame)
        elif c.isspace() or c in ";&|":
            self._separator(frame, c)
        elif self._is_test(frame):
            self._push("test", 2)
        else:
            frame.word += self._ordinary("code")

    def test(self, frame: _Frame, c: str) -> None:
        if self.script.startswith("]]", self.at) and self.script[self.at - 1].isspace():
            self._pop(2)
        elif not (self._common(c) or self._quote(c)):
            self.at += 1

    def double(self, frame: _Frame, c: str) -> None:
        if c == '"':
            self._pop()
        elif not self._common(c):
            self._around()[-1].word += self._ordinary("double")

    def single(self, frame: _Frame, c: str) -> None:
        if c == "\\" and frame.close == "$":  # $'...' has escapes, '...' has none
            self.at += 2
        elif c == "'":
            self._pop()
        else:
            self._around()[-1].word += self._ordinary("single")

    def brace(self, frame: _Frame, c: str) -> None:
        if c == "}":
            self._pop()
        elif not (self._common(c) or (c == '"' and self._quote(c)) or (self._unquoted() and self._quote(c))):
            self.at += 1

    def arithmetic(self, frame: _Frame, c: str) -> None:
        if not frame.depth and self.script.startswith(frame.close, self.at):
            self._pop(len(frame.close))
        elif not (self._common(c) or (c == '"' and self._quote(c))):
            frame.depth += (c in "([") - (c in ")]")
            self.at += 1

    def backtick(self, frame: _Frame, c: str) -> None:
        if c == "`":
            self._pop()
        else:
            self.at += 2 if c == "\\" else 1

    def comment(self, frame: _Frame, c: str) -> None:
        if c == "\n":
            self.frames.pop()
        else:
            self._ordinary("comment")

    def heredoc(self, frame: _Frame, c: str) -> None:
        if self.script[self.at - 1] == "\n" and self._at_end_word(frame):
            return
        if frame.kind == "raw" or not self._common(c):
            self.at += 1

    def _ordinary(self, kind: str) -> str:
        """Take this character, and all behind it that mean no more."""
        match = _ORDINARY[kind].match(self.script, self.at)
        start, self.at = self.at, match.end() if match else self.at + 1
        return self.script[start : self.at]

    def _at_end_word(self, frame: _Frame) -> bool:
        end = self.script.find("\n", self.at)
        line = self.script[self.at : end if end >= 0 else len(self.script)]
        if (line.lstrip("\t") if frame.tabs else line) != frame.close:
            return False
        self._pop(len(line))
        return True

    def _common(self, c: str) -> bool:
        """What means the same in and out of double quotes."""
        if c == "\\":
            self.at += 2
        elif c == "`":
            self._push("backtick", 1)
        elif c == "$" and self.script.startswith("$((", self.at):
            self._push("arithmetic", 3, "))")
        elif c == "$" and self.script.startswith("$(", self.at):
            self._push("code", 2, ")")
        elif c == "$" and self.script.startswith("$[", self.at):
            self._push("arithmetic", 2, "]")
        elif c == "$" and self.script.startswith("${", self.at) and self.at not in self.spans:
            self._push("brace", 2)
        else:
            return False
        return True

    def _quote(self, c: str) -> bool:
        if self.script.startswith("$'", self.at):
            self._push("single", 2, "$")
        elif self.script.startswith('$"', self.at):
            self._push("double", 2)
        elif c == "'":
            self._push("single", 1)
        elif c == '"':
            self._push("double", 1)
        else:
            return False
        return True

    def _unquoted(self) -> bool:
        return all(frame.kind not in ("double", "heredoc") for frame in self._around())

    def _bracket(self, frame: _Frame, c: str) -> None:
        if c == "(":
            if self.script.startswith("((", self.at) and not frame.word and not frame.words:
                self._push("arithmetic", 2, "))")
            else:
                self._end_command(frame)
                self._push("code", 1, ")")
        elif frame.close == ")" and not frame.cases:
            self._pop()
        else:  # the pattern of a case
            self._end_command(frame)
            self.at += 1

    def _redirect(self, frame: _Frame) -> None:
        self._end_word(frame)
        if self.script.startswith("<<<", self.at):
            frame.target = True
            self.at += 3
        elif self.script[self.at + 1 : self.at + 2] == "(":
            self._push("code", 2, ")")
        elif match := _HEREDOC.match(self.script, self.at):
            if any(match.start() < start < match.end() for start in self.spans):
                self._push("delimiter", 2)
                return
            self.waiting.append(_heredoc(match))
            self.at = match.end()
        else:
            frame.target = True
            self.at += 1

    def _separator(self, frame: _Frame, c: str) -> None:
        self._end_word(frame)
        if c in "\n;&|":
            self._end_command(frame)
        self.at += 1
        if c == "\n" and self.waiting:
            self.frames += reversed(self.waiting)
            self.waiting = []

    def _end_word(self, frame: _Frame) -> None:
        if frame.word:
            frame.cases += (frame.word == "case" and not frame.words) - (frame.word == "esac" and frame.cases > 0)
            first = not frame.words
            if not (first and (frame.word in _RESERVED or _ASSIGNMENT.fullmatch(frame.word))):
                frame.words.append(frame.word)
            frame.word, frame.target = "", False

    def _end_command(self, frame: _Frame) -> None:
        self._end_word(frame)
        frame.words.clear()

    def _is_test(self, frame: _Frame) -> bool:
        return not frame.word and not frame.words and re.compile(r"\[\[\s").match(self.script, self.at) is not None


def _heredoc(match: re.Match[str]) -> _Frame:
    word = match[2]
    plain = re.sub(r"\\(.)|['\"]", r"\1", word)
    return _Frame("heredoc" if plain == word else "raw", match.start(), plain, tabs=match[1] == "-")


_STEPS: dict[str, Callable[[_Scanner, _Frame, str], None]] = {
    "code": _Scanner.code,
    "test": _Scanner.test,
    "double": _Scanner.double,
    "single": _Scanner.single,
    "brace": _Scanner.brace,
    "arithmetic": _Scanner.arithmetic,
    "backtick": _Scanner.backtick,
    "comment": _Scanner.comment,
    "heredoc": _Scanner.heredoc,
    "raw": _Scanner.heredoc,
    "delimiter": _Scanner.comment,
}
