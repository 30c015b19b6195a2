"""A YAML file or text -> plain data that knows where each key and value stands.

Strict YAML: the core scalars of YAML 1.2, no duplicate keys, no tags but the core ones, one document,
capped in size, depth and number of values (aliases counted as expanded). Codes of the problems:

FC001  not the YAML that was meant        FC006  a key stands twice
FC002  too large, too deep, or wrong in   FC007  a tag such as !x
       more than 100 places               FC008  a key that is not text
FC005  the file cannot be read, is empty
       or is not UTF-8 text               FC009  a number that cannot be used
"""

import contextlib
import errno
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from flowcraft.core.errors import DocumentError
from flowcraft.core.problems import Problem, nearest, ordered
from flowcraft.core.reading import nodes
from flowcraft.core.reading.secrets import masked
from flowcraft.core.reading.syntax import Finding

MAX_BYTES = 1 << 20
# A wrong file of 1 MiB must neither take long to explain nor fill the terminal.
MAX_PROBLEMS = 100

_SMALLER = "make it smaller, or put a part of it into a file of its own"
_SOMETHING = "write something into it, or name another file; `flowcraft init` makes an example"

# The keys and numbers that lead to a value.
Place = Sequence[str | int]

# What YAML cannot hold (YAML 1.2.2, section 5.1), lone surrogates included; and a byte order mark in
# the middle, which nobody sees and parsers read differently.
_CHARACTERS = "\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_UNPRINTABLE = re.compile(f"[^{_CHARACTERS}]")
_PRINTABLE = re.compile(f"[{_CHARACTERS}]*")  # takes half the time where nothing is wrong


class Document:
    """A text as `data` (dict, list, str, int, float, bool, None), and the places of its parts.

    `file` is its name as messages show it. Data that an alias repeats is one shared object.
    """

    def __init__(self, file: str, text: str, tree: nodes.Tree, error: type[DocumentError] = DocumentError) -> None:
        self.file = file
        self.text = text
        self.data: Any = tree.data
        self._error = error
        self._errors: list[Problem] = []
        self._root = tree.root
        self._spans = tree.spans
        self._starts: list[int] | None = None
        self._shown: dict[int, str] = {}

    def position(
        self, path: Place, *, at: str = "value", snippet: str | None = None, occurrence: int = 0
    ) -> tuple[int, int]:
        """Line and column, both from 1, of what `problem` would mark: a value, a key, or a text in the value."""
        return self._line_and_column(self._marked(path, at, snippet, occurrence)[0])

    def problem(  # noqa: PLR0913 - a place, a message and how to mark it
        self,
        path: Place,
        message: str,
        *,
        code: str,
        hint: str | None = None,
        at: str = "value",
        snippet: str | None = None,
        occurrence: int = 0,
        severity: str = "error",
        quiet: bool = False,
    ) -> Problem:
        """The problem at `path`; where nothing stands there, at the nearest part around it.

        With `snippet` the mark goes under that text inside the value, its `occurrence`-th from 0,
        however the value is quoted or folded; under the start of the value if it is not found.
        A `quiet` problem does not quote its line, which may hold a secret.

        Of more than MAX_PROBLEMS errors the first are raised, as the error that the document was loaded with.
        """
        start, end = self._marked(path, at, snippet, occurrence)
        problem = self._problem(Finding(start, end, message, code, hint), severity)
        problem = replace(problem, source=None) if quiet else problem
        if severity == "error":
            self._count(problem)
        return problem

    def _count(self, problem: Problem) -> None:
        if len(self._errors) == MAX_PROBLEMS:
            message = f"more than {MAX_PROBLEMS} problems; these are the first"
            raise self._error([Problem(file=self.file, code="FC002", message=message), *ordered(self._errors)])
        self._errors.append(problem)

    def _marked(self, path: Place, at: str, snippet: str | None, occurrence: int) -> tuple[int, int]:
        start, end = self._span(path, at)
        return self._inside(start, end, snippet, occurrence) if snippet else (start, end)

    def _span(self, path: Place, at: str) -> tuple[int, int]:
        span, value = self._root, self.data
        for part in path:
            inner = self._spans.get(id(value), {}).get(part) if isinstance(value, (dict, list)) else None
            if inner is None:
                break
            span, value = inner, value[part]
        return span[:2] if at == "key" else span[2:]

    def _inside(self, start: int, end: int, snippet: str, occurrence: int) -> tuple[int, int]:
        found = re.compile(_as_written(snippet)).finditer(self.text, start, end)
        match = next(islice(found, occurrence, None), None)
        return match.span() if match else (start, end)

    def _problem(self, finding: Finding, severity: str = "error") -> Problem:
        line, column = self._line_and_column(finding.start)
        source = self._line(line)
        # A mark stays in its line and does not run on under blanks.
        room = len(source.rstrip()) - column + 1
        return Problem(
            file=self.file,
            line=line,
            column=column,
            code=finding.code,
            message=finding.message,
            hint=finding.hint or (_SMALLER if finding.code == "FC002" else None),
            source=source,
            width=max(1, min(finding.end - finding.start, room)),
            severity=severity,
        )

    @property
    def _line_starts(self) -> list[int]:
        if self._starts is None:
            # Other line ends are made "\n" without moving anything.
            lines = self.text.replace("\r\n", " \n").replace("\r", "\n").split("\n")
            self._starts = [0, *accumulate(map((1).__add__, map(len, lines[:-1])))]
        return self._starts

    def _line_and_column(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def _line(self, number: int) -> str:
        # Kept: a file of JSON may be one line of 1 MiB with all its problems in it.
        if number not in self._shown:
            starts = [*self._line_starts[number - 1 : number + 1], len(self.text)]
            # One character for one, so that columns stay; a terminal must not obey the file.
            line = _UNPRINTABLE.sub("\ufffd", self.text[starts[0] : starts[1]].rstrip("\r\n"))
            self._shown[number] = masked(line)
        return self._shown[number]


def load(path: Path, *, error: type[DocumentError] = DocumentError, blank: Any = None) -> Document:
    """Read and parse the file; raises `error` with all its problems.

    `blank` is what a file without any content stands for; without it, such a file is a problem.
    """
    file = shown(path)
    try:
        content = _content(path)
    except (OSError, ValueError) as cause:
        message, hint = _unreadable(path, cause)
        raise error([Problem(file=file, code="FC005", message=message, hint=hint)]) from cause
    if len(content) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES >> 20} MiB"
        raise error([Problem(file=file, code="FC002", message=message, hint=_SMALLER)])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error([_undecodable(file, content, cause)]) from cause
    return parse(text, file, error=error, blank=blank)


def parse(
    text: str,
    file: str,
    *,
    error: type[DocumentError] = DocumentError,
    blank: Any = None,
    parser: Any = nodes.FastestParser,
) -> Document:
    """The document that `text` is; `file` is the name to show. Raises `error` with all its problems."""
    text = text.removeprefix("\ufeff")
    strange = _UNPRINTABLE.search(text, next(_PRINTABLE.finditer(text)).end())
    if len(text) > MAX_BYTES:
        tree = _refused(f"the text is larger than {MAX_BYTES >> 20} MiB", code="FC002")
    elif strange:
        message = f"the character U+{ord(strange.group()):04X} cannot stand in YAML"
        hint = 'remove it, or write it as an escape in double quotes, such as "\\x1b"'
        tree = _refused(message, strange.start(), code="FC005", hint=hint)
    else:
        tree = nodes.read(text, parser)
        if tree.data is None and tree.root[0] == tree.root[1] and not tree.findings:
            tree.data = blank
            tree.findings = [] if blank is not None else [Finding(0, 0, "the file is empty", "FC005", _SOMETHING)]
    document = Document(file, text, tree, error)
    if tree.findings:
        raise error(ordered(document._problem(finding) for finding in tree.findings))  # noqa: SLF001
    return document


def shown(path: Path) -> str:
    """The path as messages show it: relative to the working directory where it is below it."""
    with contextlib.suppress(ValueError, OSError):
        path = path.absolute().relative_to(Path.cwd())
    # Names on disk may hold bytes that are no text, and control characters.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def _content(path: Path) -> bytes:
    # Not blocking: opening a FIFO would wait for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("this is a folder" if stat.S_ISDIR(mode) else "this is not a regular file")
        return file.read(MAX_BYTES + 1)


def _unreadable(path: Path, cause: Exception) -> tuple[str, str | None]:
    """What went wrong when the file was opened, and a hint."""
    if isinstance(cause, FileNotFoundError):
        close = nearest(path.name, _neighbours(path.parent))
        return f"no file {shown(path)}", f"did you mean {shown(path.parent / close)}?" if close else None
    if isinstance(cause, PermissionError):
        return "you are not allowed to read this file", f"chmod u+r {shown(path)}"
    if isinstance(cause, OSError):
        if cause.errno == errno.EISDIR:
            return "this is a folder", "name a file"
        return f"the file cannot be read: {cause.strerror or cause}", None
    return str(cause), "name a file of YAML text"


def _neighbours(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, 1000)]
    except (OSError, ValueError):
        return []


def _undecodable(file: str, content: bytes, cause: UnicodeDecodeError) -> Problem:
    before = content[: cause.start]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    message = "the file is UTF-16, not UTF-8" if wide else f"the byte 0x{content[cause.start]:02x} is not UTF-8 text"
    return Problem(file=file, line=line, column=column, code="FC005", message=message, hint="save the file as UTF-8")


def _refused(message: str, place: int = 0, *, code: str, hint: str | None = None) -> nodes.Tree:
    return nodes.Tree(findings=[Finding(place, place + 1, message, code, hint)])


def _as_written(snippet: str) -> str:
    """A pattern for the ways in which a scalar's source may write `snippet`: folded, or with escapes."""
    ways = {"'": "''?", '"': r'\\?"', "\\": r"\\{1,2}"}
    words = ("".join(ways.get(c, re.escape(c)) for c in word) for word in snippet.split())
    return r"(?:\s|\\[nt])+".join(words)
