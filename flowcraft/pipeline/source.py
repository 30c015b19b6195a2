"""Where the parts of a pipeline stand in its file, for what goes wrong while it runs; parsed again only then."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowcraft.core import document as documents
from flowcraft.core.document import Document, Place
from flowcraft.core.errors import DocumentError, ExpressionError, FlowcraftError, StageError

SHOWN_CHARACTERS = 80  # of a template that failed

_WORD = re.compile(r"\$\{[{%]|&&|\|\||[!=]==?|\w+|\S")
_BELOW = ("stages", "finally")  # what stands there has a place of its own


def word_at(text: str, offset: int) -> str:
    """What to mark of a template that is wrong at `offset`."""
    word = _WORD.match(text, offset)
    return word[0] if word else ""


def occurrence(text: str, offset: int, word: str) -> int:
    """How often the word stands in the text before the one at `offset`."""
    return text[: offset + len(word) - 1].count(word) if word else 0


class Source:
    """The text of a pipeline file and its name; `files` are the names of texts that it takes from other files."""

    def __init__(self, document: Document, files: Mapping[str, str]) -> None:
        self._file, self._text, self._files = document.file, document.text, files
        self._parsed: Document | None = None

    def place(self, path: Place, *, at: str = "value") -> str:
        """`file:line:column` of a part."""
        return self._shown(self._document.position(path, at=at))

    def place_in(self, path: Place, template: str, offset: int) -> str:
        """`file:line:column` of a place in a template that stands somewhere below `path`."""
        if name := self._files.get(template):
            start = template.rfind("\n", 0, offset) + 1
            return f"{name}:{template.count(chr(10), 0, offset) + 1}:{offset - start + 1}"
        found = next((one for top in (path, ("defaults",)) for one in self._holding(top, template)), path)
        word = word_at(template, offset)
        before = occurrence(template, offset, word)
        return self._shown(self._document.position(found, snippet=word or None, occurrence=before))

    def _shown(self, position: tuple[int, int]) -> str:
        return f"{self._file}:{position[0]}:{position[1]}"

    @property
    def _document(self) -> Document:
        if self._parsed is None:
            self._parsed = documents.parse(self._text, self._file)
        return self._parsed

    def _holding(self, path: Place, text: str) -> Iterator[Place]:
        value: Any = self._document.data
        for part in path:
            if isinstance(value, list) and isinstance(part, int):
                value = value[part]
            else:
                value = value.get(part) if isinstance(value, dict) else None
        yield from _holding(value, path, text)


def _holding(value: Any, path: Place, text: str) -> Iterator[Place]:
    """The places of a text in data."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in _BELOW:
                yield from _holding(inner, (*path, name), text)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _holding(inner, (*path, number), text)
    elif isinstance(value, str) and value == text:
        yield path


@dataclass(frozen=True, slots=True)
class Where:
    """A part of a pipeline file, of which something can be said while the pipeline runs."""

    source: Source
    path: Place = ()

    def failure(self, error: FlowcraftError, *keys: str, about: str = "") -> StageError:
        """The error with the place of the expression that has failed, or else of what stands under these keys."""
        if isinstance(error, ExpressionError):
            place = self.source.place_in((*self.path, *keys), error.expression, error.offset)
            shown = _excerpt(error.expression, error.offset)
            return StageError(f"{place}: {error.code}: {about}{error.message}, in: {shown}", hint=error.hint)
        place = self.source.place((*self.path, *keys))
        if isinstance(error, DocumentError):
            problem = error.problems[0]
            return StageError(f"{place}: {problem.code}: {problem.message}", hint=problem.hint)
        return StageError(f"{place}: {error}", hint=error.hint)


def _excerpt(text: str, offset: int) -> str:
    # The line of the place, and no more of it than a terminal line holds.
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    line = text[start : end if end >= 0 else len(text)]
    if len(line) > SHOWN_CHARACTERS:
        cut = max(0, offset - start - SHOWN_CHARACTERS // 2)
        line = f"...{line[cut : cut + SHOWN_CHARACTERS]}..."
    return line.strip()
