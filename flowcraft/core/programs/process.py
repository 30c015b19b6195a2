"""Run a program to its end: in time, within memory, and with nothing left of it.

A pipe's end is never trusted alone, because a grandchild may hold it for ever: what is still open when
the program has ended is read for a bounded time and then left. Encodings are the business of the callers.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from flowcraft.core.errors import ProcessError
from flowcraft.core.programs.program import (
    DRAIN_S,
    KILLED_DRAIN_S,
    STOP_GRACE_S,
    Capture,
    Program,
    ending,
    last_lines,
    program_name,
    read_some,
    turn_s,
    write_some,
)
from flowcraft.core.scope import Scope

MAX_OUTPUT_BYTES = 16 * 1024 * 1024  # of each output

Listener = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that has ended; `returncode` is negative for a signal.

    `truncated` says that an output was longer than the limit; it then holds its beginning and its end.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    seconds: float

    def error(self, what: str | None = None, *, hint: str | None = None) -> ProcessError:
        """The error to raise where a failure of this program cannot be accepted; `what` follows its name."""
        return ProcessError(
            f"{program_name(self.argv)} {what or 'ended with ' + ending(self.returncode)}",
            argv=self.argv,
            returncode=self.returncode,
            output=last_lines(self.stderr) or last_lines(self.stdout),
            hint=hint,
        )


def run(  # noqa: PLR0913 - as many as a program has sides
    argv: Sequence[str],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float | None = None,
    scope: Scope | None = None,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
    on_output: Listener | None = None,
    on_error: Listener | None = None,
) -> Completed:
    """Run a program to its end; a non-zero exit is an answer, not an error.

    `env` replaces the whole environment. `on_output` gets stdout as it arrives, `on_error` stderr. What the program has
    started is killed with it, unless it made a session of its own.
    Raises ProcessError if it cannot be started or reaches a time limit, Cancelled if the scope was.
    """
    limits = Scope(timeout_s, parent=scope)
    try:
        limits.check()
        started = time.monotonic()
        program = Program(argv, cwd=cwd, env=env, feed=bool(stdin))
        with _Exchange(program, stdin, max_output_bytes, (on_output, on_error)) as exchange:
            in_time = exchange.until_exit(limits)
        completed = exchange.completed(time.monotonic() - started)
    finally:
        limits.close()
    if in_time:
        return completed
    limits.check()
    limit = timeout_s if timeout_s is not None and completed.seconds >= timeout_s else completed.seconds
    raise completed.error(f"ran longer than its limit of {limit:.3g} s and was stopped", hint="raise its time limit")


class _Exchange:
    """One program from start to end: feeds its stdin, gathers its output, ends its group."""

    def __init__(
        self, program: Program, stdin: bytes, max_output_bytes: int, listeners: tuple[Listener | None, Listener | None]
    ) -> None:
        half = max_output_bytes // 2
        self._program = program
        self._left = memoryview(stdin)
        self._on_output, self._on_error = listeners
        self._stdout = Capture(half, max_output_bytes - half)
        self._stderr = Capture(half, max_output_bytes - half)
        self._ready = selectors.PollSelector()  # has no descriptor of its own
        self._ready.register(program.stdout, selectors.EVENT_READ, self._gather_output)
        self._ready.register(program.stderr, selectors.EVENT_READ, self._gather_error)
        if program.stdin:
            self._ready.register(program.stdin, selectors.EVENT_WRITE, self._feed)

    def __enter__(self) -> "_Exchange":
        return self

    def until_exit(self, limits: Scope) -> bool:
        """Exchange until the program ends by itself; False if it has to be stopped."""
        while not self._program.exited:
            if limits.cancelled or limits.expired:
                return False
            self._turn(turn_s(limits))
        self._drain(DRAIN_S)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the program if it still runs, kill what is left of its group, and reap it."""
        if error:
            self._on_output = self._on_error = None  # one of them may be what has raised
        try:
            if not self._program.exited:
                self._program.signal(signal.SIGTERM)
                self._drain(STOP_GRACE_S)
            self._program.signal(signal.SIGKILL)
            self._drain(KILLED_DRAIN_S)
        finally:  # also when Ctrl-C comes a second time
            self._program.reap()
            self._program.close()

    def completed(self, seconds: float) -> Completed:
        return Completed(
            argv=self._program.argv,
            returncode=self._program.returncode or 0,
            stdout=self._stdout.value(),
            stderr=self._stderr.value(),
            truncated=self._stdout.truncated or self._stderr.truncated,
            seconds=seconds,
        )

    def _drain(self, seconds: float) -> None:
        """Go on until the program and its pipes have ended, but not for longer than `seconds`."""
        until = time.monotonic() + seconds
        while (self._ready.get_map() or not self._program.exited) and time.monotonic() < until:
            self._turn(0.01)

    def _turn(self, seconds: float) -> None:
        if not self._ready.get_map():  # the pipes usually end a moment before the program does
            self._program.await_exit(seconds)
            return
        for key, _ in self._ready.select(seconds):
            key.data()

    def _feed(self) -> None:
        pipe = self._program.stdin
        assert pipe
        try:
            self._left = self._left[write_some(pipe, self._left) :]
        except OSError:  # it does not want to read all of it, which is its right
            self._left = self._left[:0]
        if not self._left:
            self._ready.unregister(pipe)
            pipe.close()

    def _gather_output(self) -> None:
        chunk = self._gather(self._program.stdout)
        self._stdout.add(chunk)
        if chunk and self._on_output:
            self._on_output(chunk)

    def _gather_error(self) -> None:
        chunk = self._gather(self._program.stderr)
        self._stderr.add(chunk)
        if chunk and self._on_error:
            self._on_error(chunk)

    def _gather(self, pipe: IO[bytes]) -> bytes:
        chunk = read_some(pipe)
        if chunk == b"":
            self._ready.unregister(pipe)
        return chunk or b""
