"""A program that lives long and is spoken to line by line: an agent, a model server.

One thread per child empties its pipes, so that it can never block on a full one; whoever wants a line
waits for it here. What children are left is ended when the interpreter ends, and closed after a fork.
"""

import atexit
import os
import selectors
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO

from flowcraft.core.errors import ProcessError
from flowcraft.core.programs.program import (
    DRAIN_S,
    KILLED_DRAIN_S,
    STOP_GRACE_S,
    Capture,
    Program,
    last_lines,
    program_name,
    read_some,
    turn_s,
    write_some,
)
from flowcraft.core.scope import Scope

MAX_LINE_BYTES = 16 * 1024 * 1024
PIPE_BLOCKS = 16  # a pipe holds at most 1 MiB; whoever still writes must not hold us
LAST_WORDS_S = 0.25  # a program that dies closes stdout first; what it says on stderr belongs to its end
LINE_COST_BYTES = 64  # what a waiting line takes in memory besides its own bytes
MAX_WAITING_BYTES = 64 * 1024 * 1024  # of lines that nobody has read; beyond it the child has to wait


class Child:
    """A long-lived program; thread-safe, and a context manager.

    Its stdin stays open until `stop`, so a program that reads it to the end notices when we die, however
    we die. Lines of stdout wait here until they are read; of stderr the last `stderr_bytes` are kept.
    `env` replaces the whole environment. Raises ProcessError if it cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stderr_bytes: int = 65536,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._program = Program(argv, cwd=cwd, env=env, feed=True)
        self._max_line_bytes = max_line_bytes
        self._stderr = Capture(head=0, tail=stderr_bytes)
        self._lines: deque[bytes] = deque()
        self._partial = bytearray()
        self._waiting_bytes = 0
        self._ended = self._stopped = False
        self._changed = threading.Condition()  # guards the six fields above
        self._writing = threading.Lock()  # one writer at a time, and none while stdin is closed
        self._stopping = threading.Lock()
        self._wake, self._waker = socket.socketpair()
        self._pump = threading.Thread(target=self._read, name=f"pipes of {self.pid}", daemon=True)
        _children.add(self)
        self._pump.start()

    @property
    def pid(self) -> int:
        return self._program.pid

    @property
    def alive(self) -> bool:
        """Whether the program itself is still running."""
        return not self._program.exited

    @property
    def returncode(self) -> int | None:
        """How it has ended, negative for a signal; known after `stop`."""
        return self._program.returncode

    @property
    def stderr(self) -> bytes:
        """The last of what it has written to stderr."""
        with self._changed:
            return self._stderr.value()

    def read_line(self, timeout_s: float | None = None, scope: Scope | None = None) -> bytes | None:
        """The next line of stdout with its newline; b"" at the end, None if the time limit came first.

        The limit is the earlier one of `timeout_s` and the scope's. Raises Cancelled if the scope was,
        ProcessError if the line is too long.
        """
        limits = Scope(timeout_s, parent=scope)
        give_up_at: float | None = None
        try:
            with self._changed:
                while not self._lines and not self._ended:
                    limits.check()
                    if give_up_at is None and not self.alive:  # a grandchild may hold the pipe for ever
                        give_up_at = time.monotonic() + DRAIN_S
                    if give_up_at is not None and time.monotonic() >= give_up_at:
                        return b""
                    if limits.expired:
                        return None
                    self._changed.wait(turn_s(limits))
                return self._take()
        finally:
            limits.close()

    def write(self, data: bytes, timeout_s: float | None = None, scope: Scope | None = None) -> None:
        """Write all of `data` to its stdin.

        Raises ProcessError if it has ended or does not read within the time limit, Cancelled if the scope was.
        """
        limits = Scope(timeout_s, parent=scope)
        left = memoryview(data)
        try:
            with self._writing:
                while left:
                    limits.check()
                    if limits.expired:
                        raise self.error("does not read its input")
                    left = left[self._write_once(left, turn_s(limits)) :]
        finally:
            limits.close()

    def error(self, what: str, *, hint: str | None = None) -> ProcessError:
        """An error about this program (`what` follows its name), with the last lines of its stderr."""
        return ProcessError(
            f"{program_name(self._program.argv)} {what}",
            argv=self._program.argv,
            returncode=self.returncode,
            output=last_lines(self.stderr),
            hint=hint,
        )

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End it and all that it has started: stdin closed and TERM, `grace_s`, KILL; may be called again."""
        with self._stopping:
            if self.returncode is not None:
                return
            self._stopped = True  # before the locks below are asked for: it makes their owners let go
            with self._changed:
                self._changed.notify_all()
            with self._writing:
                if self._program.stdin:
                    self._program.stdin.close()
            self._program.signal(signal.SIGTERM)
            self._program.await_exit(grace_s)
            self._program.reap()
            self._pump.join(KILLED_DRAIN_S)
            self._waker.send(b"x")
            self._pump.join()
            self._release()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take(self) -> bytes:
        if not self._lines:
            return b""
        line = self._lines.popleft()
        self._waiting_bytes -= len(line) + LINE_COST_BYTES
        self._changed.notify_all()
        if len(line) > self._max_line_bytes:
            raise self.error(f"wrote a line of more than {self._max_line_bytes} bytes")
        return line

    def _write_once(self, data: memoryview, seconds: float) -> int:
        if self._stopped or self._program.stdin is None:
            raise self.error("has ended")
        with selectors.PollSelector() as ready:
            ready.register(self._program.stdin, selectors.EVENT_WRITE)
            ready.select(seconds)
        try:
            return write_some(self._program.stdin, data)
        except OSError as error:
            raise self.error("has ended") from error

    def _read(self) -> None:
        """The pump thread: both pipes into memory until they end or `stop` wakes us."""
        over_at: float | None = None  # when the end of stdout is told: the last words on stderr may come after it
        with selectors.PollSelector() as ready:
            ready.register(self._wake, selectors.EVENT_READ)
            ready.register(self._program.stdout, selectors.EVENT_READ, self._add_output)
            ready.register(self._program.stderr, selectors.EVENT_READ, self._add_error)
            while len(ready.get_map()) > 1:
                left_s = None if over_at is None else max(0.0, over_at - time.monotonic())
                found = [key for key, _ in ready.select(left_s)]
                if any(key.data is None for key in found):  # the pipes have had their time: what is there, no more
                    for key in list(ready.get_map().values()):
                        self._empty(key)
                    break
                for key in found:
                    if self._read_block(key) == b"":
                        ready.unregister(key.fileobj)
                        if key.fileobj is self._program.stdout:
                            over_at = time.monotonic() + LAST_WORDS_S
                if left_s == 0.0:
                    self._end_output()
                    over_at = None
        self._end_output()

    def _end_output(self) -> None:
        with self._changed:
            if self._partial:
                self._enqueue()
            self._ended = True
            self._changed.notify_all()

    def _read_block(self, key: selectors.SelectorKey) -> bytes | None:
        pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]  # we registered nothing else
        chunk = read_some(pipe)
        if chunk:
            key.data(chunk)
        return chunk

    def _empty(self, key: selectors.SelectorKey) -> None:
        blocks = PIPE_BLOCKS if key.data else 0
        while blocks and self._read_block(key):
            blocks -= 1

    def _add_error(self, chunk: bytes) -> None:
        with self._changed:
            self._stderr.add(chunk)

    def _add_output(self, chunk: bytes) -> None:
        with self._changed:
            while self._waiting_bytes > MAX_WAITING_BYTES and not self._stopped:
                self._changed.wait()
            *whole, rest = chunk.split(b"\n")
            for part in whole:
                self._keep(part + b"\n")
                self._enqueue()
            self._keep(rest)
            self._changed.notify_all()

    def _enqueue(self) -> None:
        self._lines.append(bytes(self._partial))
        self._waiting_bytes += len(self._partial) + LINE_COST_BYTES
        self._partial.clear()

    def _keep(self, part: bytes) -> None:
        # One byte more than allowed is kept, which is how `_take` knows; the rest of such a line is dropped.
        self._partial += part[: max(0, self._max_line_bytes + 1 - len(self._partial))]

    def _release(self) -> None:
        self._program.close()
        self._wake.close()
        self._waker.close()
        _children.discard(self)

    def _disown(self) -> None:
        self._stopped = self._ended = True
        self._program.disown()
        self._release()


_children: "weakref.WeakSet[Child]" = weakref.WeakSet()


def _stop_all() -> None:
    for child in list(_children):
        child.stop()


def _disown_all() -> None:
    for child in list(_children):
        child._disown()  # noqa: SLF001 - the hook belongs to the class


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
