"""The python stage: a function in a process of its own, with a time limit; data goes in and comes out as JSON."""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowcraft.core.errors import StageError
from flowcraft.core.programs.program import program_name
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
            return replace(outcome, output=None, error=_in_its_name(work.target, argv, done))
        return _with_result(task, work.target, outcome, result)


def _in_its_name(target: str, argv: Sequence[str], done: Outcome) -> str:
    """What is said of the child process, said of the function; its last words come first."""
    how, *lines = str(done.error).removeprefix(program_name(argv)).strip().split("\n")
    last = f": {lines[-1].strip()}" if lines and done.exit_code else ""
    return "\n".join((f"the function '{target}' {how}{last}", *lines))


def _with_result(task: Task, target: str, outcome: Outcome, result: Path) -> Outcome:
    try:
        value: Any = json.loads(result.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = "let it return its result, without sys.exit()"
        raise StageError(f"the function '{target}' has ended its process before it returned", hint=hint) from error
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON, or nested too deeply"
        raise StageError(f"the result of the function '{target}' cannot be read: {why}") from error
    reasons = check_value(value, task.shape.schema) if task.shape.schema is not None else []
    if reasons:
        said = "; ".join(reason.removeprefix("the answer ") for reason in reasons)
        return replace(outcome, status="failed", output=None, error=f"its result was not accepted: {said}")
    return replace(outcome, output=value)
