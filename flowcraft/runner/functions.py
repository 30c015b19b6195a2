"""The python stage: a function in a process of its own, with a time limit; data goes in and comes out as JSON."""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowcraft.core.errors import StageError
from flowcraft.core.schema import check_value
from flowcraft.core.scope import Scope
from flowcraft.runner import function_child
from flowcraft.runner.commands import execute_command, private_file
from flowcraft.runner.events import Event
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.work import Execution, Invocation, Shape, Task


def execute_function(
    task: Task, work: Invocation, emit: Callable[[Event], None], scope: Scope, env: dict[str, str]
) -> Outcome:
    """Carry out a python stage. Raises ProcessError or StageError if it cannot be started, Cancelled if stopped."""
    with tempfile.TemporaryDirectory(prefix="flowcraft-") as folder:
        result = Path(folder) / "result.json"
        call = {"target": work.target, "arguments": work.arguments, "result": str(result)}
        place = private_file(Path(folder) / "call.json", json.dumps(call))
        # By its path and not by `-m`: the module needs nothing of FlowCraft, whatever is installed where it runs.
        argv = (sys.executable, "-u", str(function_child.__file__), place)
        done = execute_command(
            task._replace(shape=Shape()),
            Execution(cwd=work.cwd, argv=argv, env=env, secrets=work.secrets),
            emit,
            scope,
        )
        outcome = replace(done, kind="python", exit_code=None)
        if not outcome.ok:
            return replace(outcome, output=None)
        return _with_result(task, outcome, result)


def _with_result(task: Task, outcome: Outcome, result: Path) -> Outcome:
    try:
        value: Any = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"the function of '{task.path}' has left no result: {error}") from error
    reasons = check_value(value, task.shape.schema) if task.shape.schema is not None else []
    if reasons:
        said = "; ".join(reason.removeprefix("the answer ") for reason in reasons)
        return replace(outcome, status="failed", output=None, error=f"its result was not accepted: {said}")
    return replace(outcome, output=value)
