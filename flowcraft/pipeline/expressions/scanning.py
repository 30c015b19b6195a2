"""Where in a bash script something stands: in which quotes, brackets or heredoc, in which word of which command.

A scanner, not a parser. It follows values through plain assignments, loops, substitutions and pipes of the same
script; in doubt it takes the stricter reading.
"""

import re
from collections.abc import Callable, Sequence

from flowcraft.pipeline.expressions import commands
from flowcraft.pipeline.expressions.commands import PROCESS, VALUE, Use
from flowcraft.pipeline.expressions.frames import HEREDOC, ORDINARY, REFUSED, Command, Frame, Slot, heredoc
from flowcraft.pipeline.expressions.lexer import fail
from flowcraft.pipeline.expressions.variables import DERIVED
from flowcraft.pipeline.expressions.words import Words

_REDIRECTION = re.compile(r"&>>?|<<<|>>|>&|>\||<&|<>|[<>]")
_SEPARATOR = re.compile(r"\|\||&&|;;&|;;|;&|\|&|[;&|\n]|\s")
_COMPARES = r"-(?:eq|ne|lt|le|gt|ge)"
_CALCULATES = re.compile(rf"(?:^|\s)(?:{_COMPARES}|-[vR])(?:\s|$)")
_BEFORE = re.compile(rf'(?:{_COMPARES}|-[vR])\s+"?$')
_BEHIND = re.compile(rf'"?\s+{_COMPARES}\s')
_ASSIGNED = re.compile(r"\w+\+?=")
_VARIABLE = re.compile(r"\$(\w+|[@*])")
_BRACED = re.compile(r"\$\{([#!]?)(\w+|[@*])(\[[@*]\])?(@[A-Za-z]|\})?")
_NAME = re.compile(r"[A-Za-z_]\w*")
_MAX_FRAMES = 100


class Scanner:
    """Reads a script once: `slots` and the commands of `words` are what it finds."""

    def __init__(self, script: str, spans: Sequence[tuple[int, int]]) -> None:
        self.script = script
        self.spans = dict(spans)
        self.at = 0
        self.frames = [Frame("code", 0)]
        self.waiting: list[Frame] = []  # heredocs that begin on the next line
        self.slots: list[Slot] = []
        self.words = Words()
        self.split: set[int] = set()
        self.options: dict[int, str] = {}

    def scan(self) -> None:
        """Read all of it; raises ExpressionError (FC210) where bash would not expand a value."""
        for start, end in self.spans.items():
            self._go(start)
            if self.at > start:
                hint = "to have the sign itself, write ${{ '${{' }}"
                fail(self.script, start, "a value cannot stand behind a backslash", code="FC210", hint=hint)
            self.slots.append(self._slot(start, end))
        self._go(len(self.script))
        for frame in self.frames:
            if frame.kind == "code":
                self.words.end_command(frame)

    def _go(self, end: int) -> None:
        while self.at < end:
            _STEPS[self.frames[-1].kind](self, self.frames[-1], self.script[self.at])

    def _slot(self, start: int, end: int) -> Slot:
        around = self._around()
        kinds = [frame.kind for frame in around]
        refused = next((REFUSED[kind] for kind in kinds if kind in REFUSED), None)
        if refused:
            fail(self.script, start, refused[0], code="FC210", hint=refused[1])
        code = around[-1]
        number = (
            "arithmetic" in kinds
            or any(self._calculates(frame) for frame in around)
            or commands.is_index(code.command.words, code.word)
        )
        option_of = self._option_of(around)
        self._put((len(self.slots),), VALUE)
        self.at = end
        quoted = any(kind in ("double", "heredoc", "arithmetic", "comment") for kind in kinds)
        return Slot(start, end, quoted, number, option_of)

    def _option_of(self, around: Sequence[Frame]) -> str:
        """The command that would take what comes next as an option, if it looks like one."""
        code = around[-1]
        begins = [frame.kind for frame in around] in (["code"], ["double", "code"]) and code.word in ("", "\0")
        if not begins or code.target or code.inside == "data" or code.pattern:
            return ""
        return commands.option_of(code.command.words, self.script)

    def _put(self, values: tuple[int, ...], mark: str) -> None:
        """Note values in the word that is being read, or in what a heredoc gives to its command."""
        around = self._around()
        kinds = [frame.kind for frame in around]
        if not values or "comment" in kinds or "arithmetic" in kinds or "test" in kinds:
            return
        code = around[-1]
        code.seen += values
        if "heredoc" in kinds:
            around[kinds.index("heredoc")].command.fed += values
        else:
            code.word += mark
            code.values += values

    # Variables that hold values.

    def _read(self, name: str, start: int, *, plain: bool = True) -> None:
        """A variable is read at `start`, up to here; `plain` says that nothing is done to its text."""
        held = self.words.variables.get(name)
        if held is None:
            return
        around = self._around()
        kinds = [frame.kind for frame in around]
        index = "brace" in kinds and self.script[start - 1] in "[:" and "-A" not in self.script
        if held.whole and (index or "arithmetic" in kinds or ("test" in kinds and self._is_operand(around, start))):
            self.words.numbers.update(held.values)
            return
        if held.begins and plain and (command := self._option_of(around)):
            self.options.update(dict.fromkeys(held.values, command))
        code = around[-1]
        if len(around) == 1 and (code.command.words or not _ASSIGNED.match(code.word)):
            self.split.update(held.values)
        self._put(held.values, VALUE if held.whole and plain else DERIVED)

    def _is_operand(self, around: Sequence[Frame], start: int) -> bool:
        test = next(frame for frame in around if frame.kind == "test")
        return bool(_BEFORE.search(self.script[test.start : start]) or _BEHIND.match(self.script, self.at))

    def _bare_name(self) -> bool:
        """Take a name as bash does where it calculates: as the variable."""
        match = _NAME.match(self.script, self.at)
        if match is None:
            return False
        start, self.at = self.at, match.end()
        held = self.words.variables.get(match[0])
        around = self._around()
        if held and held.whole and (around[0].kind != "test" or self._is_operand(around, start)):
            self.words.numbers.update(held.values)
        return True

    def _braced(self) -> None:
        """${name...}: what is done to the values of the variable."""
        match = _BRACED.match(self.script, self.at)
        held = self.words.variables.get(match[2]) if match else None
        if match and held and (match[1] == "!" or match[4] == "@P"):
            self.words.uses.append(Use("code", held.values))
        elif match and held and match[1] != "#" and match[4] != "@Q":
            self._read(match[2], self.at, plain=match[4] == "}")

    def _around(self) -> list[Frame]:
        """The open frames from the innermost to the nearest command."""
        found = []
        for frame in reversed(self.frames):
            found.append(frame)
            if frame.kind == "code":
                break
        return found

    def _calculates(self, frame: Frame) -> bool:
        if frame.kind != "test":
            return False
        end = self.script.find("]]", self.at)
        return bool(_CALCULATES.search(self.script, frame.start, end if end >= 0 else len(self.script)))

    def _push(self, kind: str, width: int, close: str = "") -> None:
        if len(self.frames) >= _MAX_FRAMES:
            fail(self.script, self.at, "the script is nested too deep")
        self.frames.append(Frame(kind, self.at, close))
        self.at += width

    def _pop(self, width: int = 1) -> None:
        self.frames.pop()
        self.at += width

    # One function per kind of frame; each moves on by at least one character.

    def code(self, frame: Frame, c: str) -> None:
        if c == "#" and not frame.word:
            self._push("comment", 1)
        elif c == "\\":
            frame.word += self._escaped()
        elif self._common(c) or self._quote(c):
            frame.word += "\0" if c in "'\"" else c
        elif c in "()":
            self._bracket(frame, c)
        elif c in "<>" or self.script.startswith("&>", self.at):
            self._redirect(frame)
        elif c.isspace() or c in ";&|":
            self._separator(frame, c)
        elif self._is_test(frame):
            self._push("test", 2)
        else:
            frame.word += self._ordinary("code")

    def _escaped(self) -> str:
        """What a backslash and the character behind it are in a word; nothing at the end of a line."""
        escaped = self.script[self.at + 1 : self.at + 2]
        self.at += 2
        return "" if escaped == "\n" else f"\0{escaped}"

    def test(self, frame: Frame, c: str) -> None:
        if self.script.startswith("]]", self.at) and self.script[self.at - 1].isspace():
            self._pop(2)
        elif not (self._common(c) or self._quote(c) or self._bare_name()):
            self.at += 1

    def double(self, frame: Frame, c: str) -> None:
        if c == '"':
            self._pop()
        elif not self._common(c):
            self._around()[-1].word += self._ordinary("double")

    def single(self, frame: Frame, c: str) -> None:
        if c == "\\" and frame.close == "$":  # $'...' has escapes, '...' has none
            self.at += 2
        elif c == "'":
            self._pop()
        else:
            self._around()[-1].word += self._ordinary("single")

    def brace(self, frame: Frame, c: str) -> None:
        if c == "}":
            self._pop()
        elif not (self._common(c) or (c == '"' and self._quote(c)) or (self._unquoted() and self._quote(c))):
            calculated = self.script[self.at - 1] in "[:"
            if not (calculated and self._bare_name()):
                self.at += 1

    def arithmetic(self, frame: Frame, c: str) -> None:
        if not frame.depth and self.script.startswith(frame.close, self.at):
            self._pop(len(frame.close))
        elif not (self._common(c) or (c == '"' and self._quote(c)) or self._bare_name()):
            frame.depth += (c in "([") - (c in ")]")
            self.at += 1

    def backtick(self, frame: Frame, c: str) -> None:
        if c == "`":
            self._pop()
        else:
            self.at += 2 if c == "\\" else 1

    def comment(self, frame: Frame, c: str) -> None:
        if c == "\n":
            self.frames.pop()
        else:
            self._ordinary("comment")

    def heredoc(self, frame: Frame, c: str) -> None:
        if self.script[self.at - 1] == "\n" and self._at_end_word(frame):
            return
        if frame.kind == "raw" or not self._common(c):
            self.at += 1

    def _ordinary(self, kind: str) -> str:
        """Take this character, and all behind it that mean no more."""
        match = ORDINARY[kind].match(self.script, self.at)
        start, self.at = self.at, match.end() if match else self.at + 1
        return self.script[start : self.at]

    def _at_end_word(self, frame: Frame) -> bool:
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
            self._open("$(", 2)
        elif c == "$" and self.script.startswith("$[", self.at):
            self._push("arithmetic", 2, "]")
        elif c == "$" and self.script.startswith("${", self.at) and self.at not in self.spans:
            self._braced()
            self._push("brace", 2)
        elif c == "$" and (match := _VARIABLE.match(self.script, self.at)):
            start, self.at = self.at, match.end()
            self._read(match[1], start)
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

    def _open(self, inside: str, width: int, upstream: Command | None = None) -> None:
        self._push("code", width, ")")
        self.frames[-1].inside = inside
        self.frames[-1].command.upstream = upstream
        if inside == "(":
            outer = self.frames[-2].command
            self.frames[-1].scope = self.frames[-1].command.outer = outer

    def _close(self, frame: Frame) -> None:
        """The end of $(...), (...), <(...), and of the words of an array."""
        self.words.end_command(frame)
        self._pop()
        outer = self._around()[-1]
        values = tuple(frame.seen)
        if frame.inside == "(":
            outer.command.inner += values
            outer.seen += values
        elif frame.inside == "data":
            self._put(values, VALUE)
        elif frame.inside == "<(":
            outer.word += PROCESS
            outer.values += values
            outer.seen += values
        elif frame.inside == "$(" and not frame.quotes:
            self._put(values, DERIVED)

    def _bracket(self, frame: Frame, c: str) -> None:
        if c == ")" and frame.close == ")" and not frame.cases:
            self._close(frame)
        elif c == ")" or frame.pattern:  # of a case
            frame.pattern = frame.pattern and c == "("
            self.words.end_word(frame)
            frame.next_command()
            self.at += 1
        elif (
            self.script.startswith("((", self.at)
            and not frame.word
            and [word.text for word in frame.command.words] in ([], ["for"])
        ):
            self._push("arithmetic", 2, "))")
        elif frame.word[-1:] in ("=", "@", "!", "?", "*", "+"):
            self._open("data", 1)
        else:
            self.words.end_command(frame)
            self._open("(", 1)

    def _redirect(self, frame: Frame) -> None:
        if frame.word.isdigit():  # the number of a descriptor
            frame.word = ""
        self.words.end_word(frame)
        if self.script[self.at + 1 : self.at + 2] == "(":
            inside = self.script[self.at : self.at + 2]
            self._open(inside, 2, frame.command if inside == ">(" else None)
        elif not self.script.startswith("<<<", self.at) and (match := HEREDOC.match(self.script, self.at)):
            if any(match.start() < start < match.end() for start in self.spans):
                self._push("delimiter", 2)
                return
            self.waiting.append(heredoc(match, frame.command))
            self.at = match.end()
        else:
            found = _REDIRECTION.match(self.script, self.at)
            frame.target = found[0] if found else "<"
            self.at += len(frame.target)

    def _separator(self, frame: Frame, c: str) -> None:
        self.words.end_word(frame)
        found = _SEPARATOR.match(self.script, self.at)
        sign = found[0] if found else c
        self.at += len(sign)
        if c in "\n;&|":
            self.words.end_command(frame, piped=sign in ("|", "|&"))
            frame.pattern = frame.pattern or (sign in (";;", ";&", ";;&") and frame.cases > 0)
        if c == "\n" and self.waiting:
            self.frames += reversed(self.waiting)
            self.waiting = []

    def _is_test(self, frame: Frame) -> bool:
        return (
            not frame.word and not frame.command.words and re.compile(r"\[\[\s").match(self.script, self.at) is not None
        )


_STEPS: dict[str, Callable[[Scanner, Frame, str], None]] = {
    "code": Scanner.code,
    "test": Scanner.test,
    "double": Scanner.double,
    "single": Scanner.single,
    "brace": Scanner.brace,
    "arithmetic": Scanner.arithmetic,
    "backtick": Scanner.backtick,
    "comment": Scanner.comment,
    "heredoc": Scanner.heredoc,
    "raw": Scanner.heredoc,
    "delimiter": Scanner.comment,
}
