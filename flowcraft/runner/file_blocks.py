"""Whole files in the text of an answer: a line with the path, then a fenced block; `PATH (deleted)` alone deletes.

Nothing that may be a file is left out without a word: a block without a path and a path without a block are reasons
to reject the answer. A block below a sentence that names no file is an example, which is told and not written.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_PATH = 1024  # characters of a line that may be a path

_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})([^`]*)$")
_NOTE = re.compile(r"\((deleted|no newline at end(?: of file)?)\)$", re.IGNORECASE)
_BULLET = re.compile(r"(?:[-*]|\d+[.)])\s+")
_WRAP = re.compile(r"(?:#{1,6}\s+|[-*]\s+|\d+[.)]\s+)?(?:(?:file|path)\s*:\s*)?", re.IGNORECASE)
_ENDING = re.compile(r"\.[A-Za-z]\w{0,15}$")
_KNOWN = re.compile(r"[A-Z][A-Z_-]+|[A-Z]\w*file")  # README, Makefile
_STOPS = ".,;!?"
_AROUND = "*`'\"()[]:,;"  # what stands around a word of a sentence


@dataclass(frozen=True, slots=True)
class Change:
    """One file of an answer; `text` None deletes it."""

    path: str
    text: str | None
    final_newline: bool = True


class Found(NamedTuple):
    """The files of an answer in its order, why it cannot be used, and which blocks are not taken as files."""

    changes: tuple[Change, ...]
    reasons: tuple[str, ...]
    examples: tuple[str, ...]


class _Part(NamedTuple):
    """A block with the line above it (empty if there is none), or with `text` None a line without a block."""

    number: int
    line: str
    text: str | None = None
    info: str = ""
    below: str = ""
    closed: bool = True


class _Line(NamedTuple):
    """What a line says if it is a path: its text, bare of all signs around it."""

    path: str
    note: str
    quoted: bool
    colon: bool


def blocks(answer: str, may_write: Callable[[str], bool], exists: Callable[[str], bool]) -> Found:
    """The files of an answer. A line of several words is a path where `may_write` and `exists` leave no doubt."""
    known = _Names(may_write, exists)
    parts = list(_parts(answer.replace("\r\n", "\n").split("\n")))
    changes, reasons, left = [], [], []
    for part in parts:
        read = _read(part.line)
        path = read.path if known.is_path(read) else ""
        if not part.closed:
            reasons.append(f"the block of {path or 'a file'} has no end: give the complete text")
        elif path and part.text is not None:
            changes.append(Change(path, part.text, not read.note))
        elif path and read.note == "deleted":
            changes.append(Change(path, None))
        else:
            left.append((part, path))
    given = {change.path for change in changes}
    lost = [_lost(part, path, known, given) for part, path in left]
    examples = [
        f"the block in line {part.number} has no path and was not taken as a file"
        for part, _ in left
        if part.text is not None
    ]
    return Found(tuple(changes), (*reasons, *filter(None, lost)), tuple(examples))


def _parts(lines: Sequence[str]) -> Iterator[_Part]:
    heading: _Part | None = None
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        fence = _FENCE.match(line)
        at += 1
        if fence is None or fence[1]:
            if line.strip():
                if heading:
                    yield heading._replace(below=line)
                heading = _Part(number, line)
            continue
        above = heading.line if heading else ""
        if heading and _read(above).note == "deleted":  # complete without a block
            yield heading
            above = ""
        end = next((n for n in range(at, len(lines)) if _closes(lines[n], fence[2])), None)
        text = "\n".join(lines[at:end])
        yield _Part(number, above, text, fence[3].strip(), closed=end is not None)
        heading, at = None, len(lines) if end is None else end + 1
    if heading:
        yield heading


def _closes(line: str, fence: str) -> bool:
    bare = line.rstrip()
    return len(bare) >= len(fence) and not bare.strip(fence[0])


def _read(line: str) -> _Line:
    text = line.strip()
    note = _NOTE.search(text)
    text = text[: note.start()].rstrip() if note else text
    wrap = _WRAP.match(text)
    text = text[wrap.end() if wrap else 0 :].strip("* ")
    colon = text.endswith(":")
    text = text.rstrip(":").strip("* ")
    quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "`'\"" and text[0] not in text[1:-1]
    return _Line(text.strip("`'\" "), note[1].lower() if note else "", quoted, colon)


@dataclass(frozen=True, slots=True)
class _Names:
    """Tells paths from sentences."""

    may_write: Callable[[str], bool]
    exists: Callable[[str], bool]

    def is_path(self, line: _Line) -> bool:
        path = line.path
        if not path or len(path) > MAX_PATH or "://" in path:
            return False
        if len(path.split()) > 1:
            return self.exists(path) or self._is_path_of_words(line)
        bare = path.rstrip(_STOPS)
        if "/" in path or "." in bare or self.exists(path):
            return True
        return path == bare and (
            bool(_KNOWN.fullmatch(path)) or bool(line.note) or (path[0].isupper() and not line.colon)
        )

    def _is_path_of_words(self, line: _Line) -> bool:
        words = line.path.split()
        if line.quoted:
            return "/" in line.path or bool(_ENDING.search(line.path))
        if not _ENDING.search(line.path) or any(_ENDING.search(word.strip(_AROUND)) for word in words[:-1]):
            return False
        if "/" in words[0]:
            return True
        return not line.colon and not any(self._rather(line.path, part) for part in _ends(line.path))

    def _rather(self, path: str, part: str) -> bool:
        """Whether the last words of a line are meant, and the first are a sentence."""
        if self.may_write(part) and not self.may_write(path):
            return True
        folder = part.partition("/")[0]
        return self.exists(part) or (folder != part and self.exists(folder))

    def alone(self, path: str) -> bool:
        """Whether a path that stands without a block is no word of a sentence."""
        first, *more = path.split()
        shown = "/" in first or (not more and _ENDING.search(path)) or self.exists(path)
        return bool(shown) and self.may_write(path)

    def meant(self, part: _Part) -> str:
        """The path that a sentence above a block, or the fence itself, seems to mean."""
        words = part.line.split()
        ends = {*words[:1], *words[-1:], *part.info.replace(":", " ").split()[-1:]}
        bare = sorted(word.strip(_AROUND).rstrip(_STOPS) for word in ends)
        return next((word for word in bare if _ENDING.search(word) and self.may_write(word)), "")


def _ends(path: str) -> Iterator[str]:
    return (path[match.end() :] for match in re.finditer(r"\s+", path))


def _lost(part: _Part, path: str, known: _Names, given: set[str]) -> str:
    """Why a part that is no file may be meant as one; empty if it is prose."""
    if part.text is None:
        # A list of files that the answer speaks of is prose, but for one with a block that is moved in.
        listed = _BULLET.match(part.line.strip()) and not _FENCE.match(part.below)
        if not path or path in given or listed or not known.alone(path):
            return ""
        return f"{path} has no text: its block goes right below it, with the fence at the start of the line"
    where = f"the block in line {part.number} has no path"
    if not part.line:
        return f"{where}: write it on a line of its own above the block, or leave the block out"
    meant = known.meant(part)
    return f"{where}: if it is {meant}, write that alone on the line above" if meant and meant not in given else ""
