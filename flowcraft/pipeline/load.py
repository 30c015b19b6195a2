"""A pipeline file -> a Pipeline, or all that is wrong with it: shape, then meaning, sorted by place.

Reads the pipeline file and the files it names; opens no connection and runs nothing.
"""

from collections.abc import Collection
from pathlib import Path

from flowcraft.core import document as documents
from flowcraft.core.errors import PipelineError
from flowcraft.core.problems import ordered
from flowcraft.pipeline.build import Builder
from flowcraft.pipeline.check import meaning
from flowcraft.pipeline.graph import Graph
from flowcraft.pipeline.model import Pipeline
from flowcraft.pipeline.shape import shape


def load(path: Path, *, models: Collection[str] | None = None) -> Pipeline:
    """The pipeline of a file; raises PipelineError with all its problems.

    With `models`, the names of models that a stage may use are held against it.
    """
    document = documents.load(path, error=PipelineError)
    problems = shape(document)
    builder = Builder(document, path, models)
    pipeline = builder.pipeline()
    graph = Graph(document, pipeline.stages)
    problems += [*builder.complaints.problems, *graph.problems, *meaning(pipeline, graph, builder.sites)]
    if problems:
        raise PipelineError(ordered(problems))
    return pipeline
