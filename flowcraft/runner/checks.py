"""What must hold for a result: expressions first, then commands, then questions to a model; all that fail are told.

Values of the result reach a command as variables and a question as text; nothing of it is read as a template.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flowcraft.core.errors import ExpressionError, FlowcraftError, StageError
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.routing import Named
from flowcraft.pipeline.expressions.data import indented
from flowcraft.pipeline.expressions.work import MAX_TEXT
from flowcraft.pipeline.model import Check
from flowcraft.runner.answers import reading, sent_back
from flowcraft.runner.books import Books
from flowcraft.runner.commands import arguments, execute_command, private_file
from flowcraft.runner.origins import is_given
from flowcraft.runner.work import Contract, Execution, Shape, Task
from flowcraft.runner.workspace import Workspace

MAX_COMMAND = 1000  # characters of a command that is told; its arguments may be as long as an answer
MAX_REASON = 4000  # characters of what a command has printed, sent back to the model
NO_VERDICT = "the model that should judge gave no verdict; the check can name another: {ask: ..., model: ...}"
VERDICT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"accepted": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["accepted", "reason"],
    "additionalProperties": False,
}
JUDGE = (
    "You judge a result. Answer with one JSON object and nothing else: "
    '{"accepted": true or false, "reason": "what is wrong, in a sentence; empty if accepted"}'
)


@dataclass(slots=True)
class Judge:
    """Holds results of one task to its contract; its `books` count what a model is asked, `env` is for commands."""

    task: Task
    books: Books
    env: Mapping[str, str]

    def reasons(self, value: Any) -> tuple[str, ...]:
        """Why the value is not accepted; empty if it is. Raises FlowcraftError if a check cannot be made."""
        contract = self.task.contract
        if not contract.checks:
            return ()
        names = {**contract.names, "output": value}
        for group in ("that", "run", "ask"):
            checks = [check for check in contract.checks if getattr(check, group) is not None]
            found = [reason for check in checks if (reason := self._judged(check, names, contract))]
            if found:
                return tuple(found)
        return ()

    def _judged(self, check: Check, names: Mapping[str, Any], contract: Contract) -> str:
        files = Workspace(contract.cwd)
        if check.that is not None:
            return self._expression(check, names, files)
        try:
            made = self._command if check.run is not None else self._question
            reason = made(check, names, files)
        except ExpressionError as error:
            raise contract.where.failure(error, "check") if contract.where else error from error
        # What the check would say of a bad result is not known to be true where nobody has judged.
        return _said(check, names, files, reason) if reason and reason != NO_VERDICT else reason

    def _expression(self, check: Check, names: Mapping[str, Any], files: Workspace) -> str:
        assert check.that is not None
        try:
            if check.that.condition(names, files):
                return ""
        except ExpressionError as error:
            # The candidate lacks what the check looks at: a reason to reject it, unless it is the file's fault.
            return f"the check `{check.that.source}` cannot be made: {error.message}"
        return _said(check, names, files, f"this does not hold: {check.that.source}")

    def _command(self, check: Check, names: Mapping[str, Any], files: Workspace) -> str:
        assert check.run is not None
        with tempfile.TemporaryDirectory(prefix="flowcraft-") as folder:

            def spill(name: str, text: str) -> str:
                return private_file(Path(folder) / name, text)

            given = self.task.contract.given
            script, env = None, dict(self.env)
            if check.run.script:
                known = partial(is_given, given=given)
                script, values = check.run.script.render(names, files, spill=spill, given=known)
                env |= values
            argv = arguments(check.run.argv, names, files, given)
            work = Execution(
                cwd=self.task.contract.cwd, script=script, argv=argv, env=env, secrets=self.task.contract.secrets
            )
            task = self.task._replace(work=work, contract=Contract(), shape=Shape())
            outcome = execute_command(task, work, self.books.emit, self.books.scope)
        if outcome.ok:
            return ""
        shown = check.run.script.source.strip() if check.run.script else " ".join(argv)
        shown = shown if len(shown) <= MAX_COMMAND else f"{shown[:MAX_COMMAND]}..."
        printed = "\n".join(part for part in (str(outcome.output or ""), outcome.stderr or "") if part.strip())
        how = f"exit code {outcome.exit_code}" if outcome.exit_code is not None else str(outcome.error).split("\n")[0]
        return f"`{shown}` failed ({how}):\n{printed[-MAX_REASON:]}".rstrip(":\n")

    def _question(self, check: Check, names: Mapping[str, Any], files: Workspace) -> str:
        assert check.ask is not None
        text = check.ask.text(names, files)
        if "output" not in {reference.path[0] for reference in check.ask.references}:
            value = names["output"]
            shown = value if isinstance(value, str) else indented(value)
            if len(shown) > MAX_TEXT:
                hint = "name the part that is to be judged: ask: ... ${{ output | truncate(20000) }}"
                raise StageError(f"the result is longer than {MAX_TEXT} characters: too long to be judged", hint=hint)
            text = f"{text}\n\nThe result:\n{shown}"
        messages = [LLMMessage("system", JUDGE), LLMMessage("user", text)]
        named = Named(check.model.text(names, files), "stage") if check.model else None
        for _ in range(2):
            response = self.books.verdict(named, messages)
            read = reading(response.content, VERDICT)
            if not read.reasons:
                return "" if read.value["accepted"] else read.value["reason"] or "it was judged as not good enough"
            again = f"Your answer was not accepted: {sent_back(read.reasons, '; ')}"
            messages += [LLMMessage("assistant", response.content or "(nothing)"), LLMMessage("user", again)]
        return NO_VERDICT


def _said(check: Check, names: Mapping[str, Any], files: Workspace, reason: str) -> str:
    if check.say is None:
        return reason
    try:
        return check.say.text(names, files)
    except FlowcraftError:
        return reason


def key_of(checks: Sequence[Check], values: Mapping[str, Any]) -> str:
    """What the checks say and depend on, as text."""
    if not checks:
        return ""
    said = [
        [part.source for part in (check.that, check.ask, check.model, check.say) if part is not None]
        + ([check.run.script.source] if check.run and check.run.script else [])
        + [word.source for word in (check.run.argv if check.run else ())]
        for check in checks
    ]
    return json.dumps([said, values], sort_keys=True, ensure_ascii=True, default=str)
