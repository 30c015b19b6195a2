"""Where each template and expression of a pipeline stands, and how a problem with it is marked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flowcraft.core.document import Document
from flowcraft.core.errors import ExpressionError
from flowcraft.core.problems import Problem
from flowcraft.pipeline.expr import Expression, Script, Template
from flowcraft.pipeline.included import TextFile

_WORD = re.compile(r"\$\{[{%]|&&|\|\||[!=]==?|\w+|\S")


@dataclass(frozen=True, slots=True)
class Site:
    """A template at a place; `stage` is the number of its stage (None: the outputs), `key` what it is for."""

    item: Expression | Template | Script
    document: Document
    path: Sequence[str | int]
    key: str
    stage: int | None = None
    file: TextFile | None = None

    def problem(self, message: str, *, code: str, hint: str | None = None, offset: int = 0, text: str = "") -> Problem:
        """A problem with the part of the template that is `text`, at `offset`."""
        if self.file:
            return self.file.problem(offset, len(text), message, code=code, hint=hint)
        source = self.item.source
        before = source[: offset + len(text) - 1].count(text) if text else 0
        return self.document.problem(self.path, message, code=code, hint=hint, snippet=text or None, occurrence=before)

    def failure(self, error: ExpressionError) -> Problem:
        """An expression that cannot be read, as a problem."""
        word = _WORD.match(error.expression, error.offset)
        text = word[0] if word else ""
        return self.problem(error.message, code=error.code, hint=error.hint, offset=error.offset, text=text)
