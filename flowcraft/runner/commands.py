"""The run stage: a bash script or a program in the workspace, with an environment of its own.

The child gets an allowed part of our environment (never keys and tokens) and what the stage sets. Values reach
it as variables and arguments, never as text of the script. What it prints is read with the
run's secrets taken out.
"""

import codecs
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowcraft.core.errors import ExpressionError, ProcessError, StageError
from flowcraft.core.masking import Mask
from flowcraft.core.programs.process import Completed, run
from flowcraft.core.scope import Scope
from flowcraft.pipeline.argv import advice, decided_by, uses_in
from flowcraft.pipeline.expr import Template
from flowcraft.pipeline.expressions.commands import ends_options
from flowcraft.pipeline.expressions.engine import Files
from flowcraft.pipeline.expressions.shell import OPTION
from flowcraft.runner.answers import exact
from flowcraft.runner.events import Channel, Event, TextPiece
from flowcraft.runner.origins import is_given
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.work import Execution, Task

# What programs need to find themselves and each other; nothing here holds a credential.
PASSED_ON = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR"),
        *("TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "VIRTUAL_ENV"),
        *("SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CI"),
    )
)
BASH = ("-euo", "pipefail")
MAX_SCRIPT_BYTES = 64 * 1024  # Linux takes no argument longer than 128 KiB: longer scripts go by file
STDERR_CHARACTERS = 64 * 1024  # of the end of stderr, kept in the record
SHOWN_LINES = 10  # of stderr, in the error

_LONG = (
    "make a file of the text (output: {save: text.txt} where it comes from) and give its path,"
    " or cut it: ${{ ... | truncate(20000) }}"
)


def execute_command(task: Task, work: Execution, emit: Callable[[Event], None], scope: Scope) -> Outcome:
    """Carry out a run stage. Raises ProcessError or StageError if it cannot be started, Cancelled if stopped."""
    mask = Mask(work.secrets)
    output, errors = _Output(task, "stdout", mask, emit), _Output(task, "stderr", mask, emit)
    limits: dict[str, Any] = {"timeout_s": task.timeout_s, "scope": scope}
    try:
        with _prepared(work) as (argv, env):
            done = run(argv, cwd=work.cwd, env=env, on_output=output.add, on_error=errors.add, **limits)
    except ProcessError as error:
        hint = _LONG if work.script is None and _too_long(error) else error.hint
        return _not_ended(task, error, mask, hint)
    finally:
        output.close()
        errors.close()
    return _ended(task, done, mask)


def arguments(words: Sequence[Template], names: Mapping[str, Any], files: Files, given: Set[str]) -> tuple[str, ...]:
    """The words of a command in list form.

    Raises ExpressionError for a result that would choose the program, or be read as an option of it: behind another
    option, too, since only the program knows which of them take a value. What a person gives may be one, and so may
    what follows `--` or the code of `bash -c`.
    """
    if any("${" in word.source for word in words):
        _decide_nothing(words, given)
    made: list[str] = []
    for word in words:
        text = word.text(names, files)
        is_result = not is_given(word, given) and word.source.lstrip().startswith("${")
        if made and is_result and not ends_options(made) and OPTION.match(text):
            said = f"{text[:40]!r} would be an option of '{made[0]}', and comes from a result"
            hint = f"write -- before it, or both in one: run: [{made[0]}, ..., '--name={word.source}']"
            raise ExpressionError(said, expression=word.source, code="FC210", hint=hint)
        made.append(text)
    return tuple(made)


def variables(env: Mapping[str, Template], given: Set[str]) -> None:
    """Raise ExpressionError for a result in a variable that decides what programs do, such as BASH_ENV."""
    for name, value in env.items():
        use = decided_by(name) if "${" in value.source else None
        if use and not is_given(value, given):
            hint = advice(use, value.source)
            raise ExpressionError(use.message, expression=value.source, code="FC210", hint=hint)


def _decide_nothing(words: Sequence[Template], given: Set[str]) -> None:
    for use in uses_in(tuple(word.source for word in words)):
        for word in (words[number] for number in use.values):
            if not is_given(word, given):
                hint = advice(use, word.source)
                raise ExpressionError(use.message, expression=word.source, code="FC210", hint=hint)


def _ended(task: Task, done: Completed, mask: Mask) -> Outcome:
    stdout, stderr = mask.text(_text(done.stdout)), mask.text(_text(done.stderr))[-STDERR_CHARACTERS:]
    value: Any = stdout.removesuffix("\n")
    error = rejected = None
    if done.returncode:
        error = mask.text(str(done.error()))
        error += _tail(stderr)
    elif done.truncated:
        error, value = f"it has written too much: {len(done.stdout)} bytes of it are kept", None
    elif task.shape.json:
        read = exact(stdout, task.shape.schema)
        reasons = "; ".join(reason.removeprefix("the answer ") for reason in read.reasons)
        error = f"its output was not accepted: {reasons}" if reasons else None
        value, rejected = (None, stdout) if error else (read.value, None)
    return Outcome(
        path=task.path,
        kind="run",
        status="failed" if error else "succeeded",
        output=value,
        error=error,
        exit_code=done.returncode,
        stderr=stderr,
        rejected=rejected,
    )


def _too_long(error: ProcessError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.E2BIG


def _not_ended(task: Task, error: ProcessError, mask: Mask, hint: str | None) -> Outcome:
    return Outcome(
        path=task.path,
        kind="run",
        status="failed",
        error=mask.text(str(error)) + _tail(mask.text(error.output)),
        hint=hint,
        exit_code=error.returncode,
        stderr=mask.text(error.output),
    )


class _Output:
    """Passes what is written on as text while it arrives, where somebody listens."""

    def __init__(self, task: Task, channel: Channel, mask: Mask, emit: Callable[[Event], None]) -> None:
        self._path = task.path
        self._channel = channel
        self._listened_to = task.streamed
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._mask = mask.stream()
        self._emit = emit

    def add(self, chunk: bytes) -> None:
        self._tell(self._mask.add(self._decode(chunk)))

    def close(self) -> None:
        self._tell(self._mask.add(self._decode(b"", True)) + self._mask.end())

    def _tell(self, text: str) -> None:
        if text and self._listened_to:
            self._emit(TextPiece(self._path, text, self._channel))


@contextmanager
def _prepared(work: Execution) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The words and the environment of the program; a long script lies in a file until it has ended."""
    env = {**_own_environment(), **work.env}
    if work.script is None:
        yield list(work.argv), env
    elif len(work.script.encode()) <= MAX_SCRIPT_BYTES:
        yield [_bash(env), *BASH, "-c", work.script], env
    else:
        with tempfile.TemporaryDirectory(prefix="flowcraft-") as folder:
            yield [_bash(env), *BASH, private_file(Path(folder) / "script", work.script)], env


def _own_environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith("LC_")}


def _bash(env: Mapping[str, str]) -> str:
    bash = shutil.which("bash", path=env.get("PATH"))
    if bash is None:
        raise StageError(
            "bash was not found", hint="install it, or write the command as a list: run: [program, argument]"
        )
    return bash


def private_file(path: Path, text: str) -> str:
    """Write a new file that only we can read; returns its path."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return str(path)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _tail(stderr: str) -> str:
    lines = stderr.strip().splitlines()[-SHOWN_LINES:]
    return "".join(f"\n  {line[:500]}" for line in lines)
