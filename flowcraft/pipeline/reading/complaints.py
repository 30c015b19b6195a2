"""Collects what is wrong with the parts of a document."""

from collections.abc import Iterable

from flowcraft.core.document import Document, Place
from flowcraft.core.problems import Problem


class Complaints:
    """The problems of one document, and those of files it names."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def at(self, place: Place, message: str, code: str, hint: str | None = None, *, at: str = "value") -> None:
        """Something is wrong at `place`; `at` says whether with its value or its key."""
        self.problems.append(self.document.problem(place, message, code=code, hint=hint, at=at))

    def each(self, place: Place, messages: Iterable[str], code: str) -> None:
        """Several things are wrong with one value."""
        for message in messages:
            self.at(place, message, code)
