"""What can be said of a run before it starts: the values of its inputs, and the order of its stages."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from flowcraft.core.errors import UsageError
from flowcraft.core.masking import Unshown
from flowcraft.core.problems import did_you_mean
from flowcraft.core.schema import check_value
from flowcraft.pipeline.model import Input, Pipeline, Stage


def order(stages: Sequence[Stage]) -> list[tuple[Stage, ...]]:
    """The stages in levels: those of one level can run at the same time, after the levels before it."""
    open_needs = {stage.id: len(set(stage.needs)) for stage in stages}
    after: dict[str, list[str]] = {stage.id: [] for stage in stages}
    for stage in stages:
        for need in set(stage.needs):
            after[need].append(stage.id)
    level = dict.fromkeys((name for name, count in open_needs.items() if not count), 0)
    waiting = deque(level)
    while waiting:
        name = waiting.popleft()
        for follower in after[name]:
            level[follower] = max(level.get(follower, 0), level[name] + 1)
            open_needs[follower] -= 1
            if not open_needs[follower]:
                waiting.append(follower)
    levels: list[list[Stage]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for stage in stages:
        levels[level[stage.id]].append(stage)
    return [tuple(found) for found in levels]


def bind(
    pipeline: Pipeline, given: Mapping[str, object], env: Mapping[str, str], *, advice: str = "-i {}=..."
) -> dict[str, Any]:
    """A value for every input: given, from its variable in `env`, or the default; `advice` is how to give one.

    Text stands for a number, boolean, list or map where the input takes one and no text (as on a
    command line). Raises UsageError with all that is wrong; never tells the value of a secret.
    """
    given, env = Unshown(given), Unshown(env)
    known = [one.name for one in pipeline.inputs]
    problems = [_unknown(name, known) for name in given if name not in known]
    values: dict[str, Any] = Unshown()
    for one in pipeline.inputs:
        if one.name in given:
            values[one.name] = _typed(given[one.name], one.schema)
        elif one.env is not None and one.env in env:
            values[one.name] = _typed(env[one.env], one.schema)
        elif one.required:
            problems.append(_missing(one, advice.format(one.name)))
            continue
        else:
            values[one.name] = one.default
            continue
        problems += _misfits(one, values[one.name])
    if problems:
        raise UsageError("\n".join(problems), hint=_usage(pipeline))
    return values


def _unknown(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known) if known else "this pipeline takes no inputs"
    return f"there is no input '{name}'" + (f": {hint}" if hint else "")


def _missing(one: Input, advice: str) -> str:
    about = f" ({one.description})" if one.description else ""
    variable = f", or set {one.env}" if one.env else ""
    return f"input '{one.name}'{about} is missing: {advice}{variable}"


def _usage(pipeline: Pipeline) -> str | None:
    parts = [
        f"{one.name} ({one.schema.get('type', 'any')}{'' if one.required else ', optional'})" for one in pipeline.inputs
    ]
    return f"inputs of '{pipeline.name}': {', '.join(parts)}" if parts else None


def _typed(value: object, schema: Mapping[str, Any]) -> Any:
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(value, str) or not isinstance(kinds, list) or "string" in kinds:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # the schema says what is wrong with it


def _misfits(one: Input, value: Any) -> list[str]:
    reasons = check_value(value, one.schema)
    if reasons and one.secret:
        return [f"the secret input '{one.name}' does not fit its schema"]
    subject = f"input '{one.name}'"
    return [
        reason.replace("the answer", subject, 1) if reason.startswith("the answer") else f"{subject}: {reason}"
        for reason in reasons
    ]
