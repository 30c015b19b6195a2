"""A pipeline file -> a Pipeline, or all that is wrong with it: shape, then meaning, sorted by place.

Reads the pipeline file and the files it names; opens no connection and runs nothing.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path

from flowcraft.core import document as documents
from flowcraft.core.document import MAX_PROBLEMS, Document
from flowcraft.core.errors import PipelineError
from flowcraft.core.problems import Guesses, Problem, ordered
from flowcraft.pipeline import model
from flowcraft.pipeline.checking.check import meaning
from flowcraft.pipeline.checking.graph import Graph
from flowcraft.pipeline.checking.lookalikes import lookalikes
from flowcraft.pipeline.checking.writers import conflicts
from flowcraft.pipeline.reading.build import Builder
from flowcraft.pipeline.reading.shape import shape

MAX_INCLUDED = 100  # pipelines that one pipeline uses, directly or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline(model.Pipeline):
    """A pipeline as its file describes it, checked: `run_pipeline` takes one as often as you like."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Pipeline":
        """The pipeline of a YAML file; raises PipelineError with all its problems, and those of pipelines it uses."""
        return load(Path(path))


def load(path: Path, *, models: Collection[str] | None = None, document: Document | None = None) -> Pipeline:
    """The pipeline of a file; raises PipelineError with its problems, and those of pipelines it uses.

    With `models`, the names of models that a stage may use are held against it. `document` is the file, if it has been
    read already.
    """
    loader = _Loader(models)
    pipeline = loader.load(path, ()) if document is None else loader.built(document, path, ())
    if loader.problems or pipeline is None:
        raise PipelineError(ordered(loader.problems))
    return replace(pipeline, warnings=tuple(ordered(loader.warnings))) if loader.warnings else pipeline


class _Loader:
    """Loads a pipeline and those it uses, each file once."""

    def __init__(self, models: Collection[str] | None) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._models = models
        self._loaded: dict[Path, Pipeline | None] = {}

    def load(self, path: Path, users: tuple[Path, ...]) -> Pipeline | None:
        """The pipeline, as far as it is usable; `users` are the files that use it."""
        try:
            document = documents.load(path, error=PipelineError)
        except PipelineError as error:
            self.problems += error.problems
            return None
        return self.built(document, path, users)

    def built(self, document: Document, path: Path, users: tuple[Path, ...]) -> Pipeline | None:
        """The pipeline of a file that has been read."""
        users = (*users, path.resolve())
        found = shape(document)
        builder = Builder(document, path, self._models, lambda used: self._used(used, users))
        pipeline = builder.pipeline()
        guesses = Guesses()
        graphs = [Graph(document, level, guesses) for level in builder.levels]
        found += builder.material.complaints.problems
        for graph in graphs:
            found += graph.problems
        found += meaning(pipeline, graphs, builder.material.sites, guesses)
        found += conflicts(document, graphs)
        self.problems += found
        self.warnings += islice(lookalikes(builder.material.sites), MAX_PROBLEMS)
        if found:
            return None
        return Pipeline(**{field.name: getattr(pipeline, field.name) for field in fields(pipeline)})

    def _used(self, path: Path, users: tuple[Path, ...]) -> Pipeline | str | None:
        if path in users:
            names = " -> ".join(user.name for user in (*users[users.index(path) :], path))
            return f"these pipelines use each other: {names}"
        if path not in self._loaded:
            if len(self._loaded) >= MAX_INCLUDED:
                return f"more than {MAX_INCLUDED} pipelines are used"
            self._loaded[path] = None
            self._loaded[path] = self.load(path, users)
        return self._loaded[path]
