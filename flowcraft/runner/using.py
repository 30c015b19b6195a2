"""What a used pipeline and a stage with a budget bring along: inputs of its own, secrets, a cap."""

import os
from collections.abc import Mapping
from typing import Any

from flowcraft.core.errors import StageError, UsageError
from flowcraft.core.schema import check_value
from flowcraft.pipeline.model import Pipeline
from flowcraft.pipeline.plan import bind
from flowcraft.runner.budget import Budget, limits


def fitting(used: Pipeline, name: str, value: Any, path: str) -> None:
    """Raise StageError if a value is not what the input `name` of a used pipeline takes."""
    one = next(one for one in used.inputs if one.name == name)
    if reasons := check_value(value, one.schema):
        said = "; ".join(reason.replace("the answer", "it", 1) for reason in reasons)
        said = "it is secret, and not what its schema says" if one.secret else said
        raise StageError(f"the input '{name}' of '{path}' does not fit: {said}", hint="look at its `with`")


def entered(used: Pipeline, given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The inputs of a used pipeline; values keep their types. Raises StageError."""
    try:
        return bind(used, given, os.environ)
    except UsageError as error:
        raise StageError(f"'{path}' cannot start: {error.message}", hint=error.hint) from error


def inner_budget(given: Mapping[str, Any]) -> Budget | None:
    """The budget of a stage, if it has one."""
    return Budget(limits(given)) if given else None
