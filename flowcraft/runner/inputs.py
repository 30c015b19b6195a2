"""What a run is given: values checked against the inputs of the pipeline, and which of them are secret."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from flowcraft.core.errors import UsageError
from flowcraft.core.problems import did_you_mean
from flowcraft.core.schema import check_value
from flowcraft.pipeline.model import Input, Pipeline
from flowcraft.runner.masking import SHOWN


def resolved(pipeline: Pipeline, given: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every input: as given, from its variable, or its default.

    Text stands for a number, boolean, list or map where the input is one (as on a command line).
    Raises UsageError with everything that is wrong.
    """
    values: dict[str, Any] = {}
    problems, hints = [], []
    known = {one.name for one in pipeline.inputs}
    for name in given:
        if name not in known:
            problems.append(f"pipeline '{pipeline.name}' has no input '{name}'")
            hints.append(did_you_mean(name, known) or "it takes no inputs")
    for one in pipeline.inputs:
        found = _found(one, given)
        if not found and one.required:
            problems.append(f"input '{one.name}' is missing{f': {one.description}' if one.description else ''}")
            hints.append(f"-i {one.name}=..." + (f", or set {one.env}" if one.env else ""))
        value = _typed(found[0], one.schema) if found else one.default
        if found:
            problems += _misfits(one, value)
        values[one.name] = value
    if problems:
        raise UsageError("\n".join(problems), hint="; ".join(dict.fromkeys(hints)) or None)
    return values


def shown(pipeline: Pipeline, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs for a record: secrets are named, their values are not."""
    secret = {one.name for one in pipeline.inputs if one.secret}
    return {name: SHOWN if name in secret and value is not None else value for name, value in values.items()}


def secret_texts(pipeline: Pipeline, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts that must not come out of the run."""
    found = (values[one.name] for one in pipeline.inputs if one.secret)
    return tuple(value if isinstance(value, str) else json.dumps(value) for value in found if value is not None)


def _found(one: Input, given: Mapping[str, Any]) -> list[Any]:
    if one.name in given:
        return [given[one.name]]
    return [os.environ[one.env]] if one.env and one.env in os.environ else []


def _typed(value: Any, schema: Mapping[str, Any]) -> Any:
    kinds = schema.get("type")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds or ())
    if not isinstance(value, str) or not kinds or "string" in kinds:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _misfits(one: Input, value: Any) -> Iterable[str]:
    reasons = check_value(value, one.schema)
    if reasons and one.secret:  # a reason may quote the value
        return [f"input '{one.name}' does not fit its schema"]
    return [f"input '{one.name}': {reason}" for reason in reasons]
