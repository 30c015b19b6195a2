"""What a scanner of bash scripts works with: values' places, commands with their words, and what is open."""

import re
from dataclasses import dataclass, field

from flowcraft.pipeline.expressions.commands import Word

HEREDOC = re.compile(r"<<(-?)[ \t]*((?:[^\s;&|()<>'\"\\]|\\.|'[^'\n]*'|\"[^\"\n]*\")+)")
# Characters that mean nothing in a frame of this kind, taken many at once; values begin with `$`.
ORDINARY = {
    "code": re.compile(r"[^\s#\\`$'\"()<>;&|\[]+"),
    "double": re.compile(r"[^\\`$\"]+"),
    "single": re.compile(r"[^\\'$]+"),
    "comment": re.compile(r"[^\n$]+"),
}
# Frames in which bash would not expand a value, why not, and what to do.
REFUSED = {
    "single": ("the shell does not expand a value inside '...'", 'use "..." around it'),
    "raw": ("the shell does not expand a value in a heredoc whose end word is quoted", "write <<EOF without quotes"),
    "backtick": ("a value inside `...` would be read twice", "use $(...)"),
    "brace": ("a value inside ${...} would be read as code", "put it into a variable first: name=${{ x }}"),
    "delimiter": ("a value cannot be the end word of a heredoc", "use a fixed word, such as EOF"),
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A value's place; `quoted` needs no quotes of its own, `number` stands where bash calculates.

    `option_of` is the command that would take a value which begins with `-` as an option; `decides` says what
    the value has a part in that no result may decide; `split` that bash would make several words of it.
    """

    start: int
    end: int
    quoted: bool = False
    number: bool = False
    option_of: str = ""
    decides: str = ""
    split: bool = False


@dataclass(slots=True)
class Command:
    """A command: the values in its words, on its stdin (`fed`), and in what is inside of it; what pipes into it.

    It shares the stdin of the loop, group or subshell that it stands in (`outer`), unless it reads a file.
    """

    words: list[Word] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)
    upstream: "Command | None" = None
    outer: "Command | None" = None
    reads_file: bool = False

    def stdin(self) -> tuple[int, ...]:
        """The values that may come to it on stdin."""
        found: list[int] = []
        around: Command | None = self
        while around:
            found += around.fed
            above = None if around.reads_file else around.upstream
            while above:
                found += [value for word in above.words for value in word.values] + above.inner + above.fed
                above = above.upstream
            around = None if around.reads_file else around.outer
        return tuple(found)

    @property
    def is_empty(self) -> bool:
        return not (self.words or self.fed or self.inner)


@dataclass(slots=True)
class Frame:
    """Something that is open; `word` with its `values` is the next word of the current command.

    `inside` tells the kinds of code apart: $( <( >( ( and `data`, whose words are no commands. `target` says that
    this word is a file or stdin. `seen` are all values in it, `opened` where in them each open compound begins, with
    what it is as a command; `scope` is that of a subshell.
    """

    kind: str
    start: int
    close: str = ""
    inside: str = ""
    depth: int = 0
    cases: int = 0
    pattern: bool = False
    tabs: bool = False
    word: str = ""
    values: list[int] = field(default_factory=list)
    command: Command = field(default_factory=Command)
    target: str = ""
    seen: list[int] = field(default_factory=list)
    opened: list[tuple[int, Command]] = field(default_factory=list)
    scope: Command | None = None
    quotes: bool = True

    def next_command(self, upstream: Command | None = None) -> None:
        """Begin another command."""
        self.command = Command(upstream=upstream, outer=self.opened[-1][1] if self.opened else self.scope)


def heredoc(match: re.Match[str], reader: Command) -> Frame:
    """The frame of a here-document, which its command reads."""
    word = match[2]
    plain = re.sub(r"\\(.)|['\"]", r"\1", word)
    return Frame("heredoc" if plain == word else "raw", match.start(), plain, tabs=match[1] == "-", command=reader)
