"""What is known of a stage's result before it runs, as JSON Schema."""

from collections.abc import Mapping
from typing import Any

from flowcraft.pipeline.model import Approval, Command, Group, Inclusion, Prompt, Stage

FILES: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "files": {"type": "array", "items": {"type": "string"}},
        "deleted": {"type": "array", "items": {"type": "string"}},
        "text": {"type": "string"},
    },
    "required": ["files", "deleted", "text"],
}
DECISION: Mapping[str, Any] = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "comment": {"type": "string"}, "by": {"type": "string"}},
    "required": ["approved", "comment", "by"],
}
TEXT: Mapping[str, Any] = {"type": "string"}


def result(stage: Stage) -> Mapping[str, Any]:
    """The schema of `stages.<id>.output`; empty where nothing is known."""
    found = one_result(stage)
    return {"type": "array", "items": found} if stage.each else found


def one_result(stage: Stage) -> Mapping[str, Any]:
    """The schema of the result for one item."""
    work = stage.work
    if isinstance(work, Approval):
        return DECISION
    if isinstance(work, Group):
        return {"type": "object", "properties": {inner.id: result(inner) for inner in work.stages}}
    if isinstance(work, Inclusion):
        return {"type": "object", "properties": {name: {} for name in work.pipeline.outputs}}
    if stage.output.format == "files":
        return FILES
    if stage.output.format == "json":
        return stage.output.schema or {}
    return TEXT if isinstance(work, (Prompt, Command)) else {}


def is_prose(stage: Stage) -> bool:
    """Whether the result is free text of a model."""
    return isinstance(stage.work, Prompt) and stage.output.format == "text" and stage.each is None
