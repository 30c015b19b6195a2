"""A program that answers one prompt and ends: its output as it arrives, and how it ended.

One thread runs the program; the thread that has asked takes the output from a short queue.
"""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType

from flowcraft.core.errors import DeadlineError, ProcessError, TransportError
from flowcraft.core.programs.process import MAX_OUTPUT_BYTES, Completed, run
from flowcraft.core.scope import Scope
from flowcraft.core.values import Timeouts

GLANCE_S = 0.05  # how late a cancel may be noticed
_QUEUED = 256  # blocks; then the program has to wait


class OneShot:
    """A running program; iterate over its output, then look at `completed`. A context manager.

    Pieces are pairs of `stdout` or `stderr` and bytes; nothing of the program is left when the block ends.
    Raises TransportError if it floods, DeadlineError if it is silent for longer than `limits` say or the scope's
    time is over, Cancelled if the scope was; ProcessError if it cannot be started.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        scope: Scope,
        limits: Timeouts,
        env: Mapping[str, str],
        cwd: str | None,
        stdin: bytes = b"",
    ) -> None:
        self._name, self._caller, self._limits = name, scope, limits
        self._own = Scope(parent=scope)
        self._pieces: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_QUEUED)
        self._completed: Completed | None = None
        self._error: BaseException | None = None
        self._start = partial(run, argv, env=env, cwd=cwd, stdin=stdin, scope=self._own)
        self._thread = threading.Thread(target=self._run, name=f"run of {name}", daemon=True)

    @property
    def completed(self) -> Completed:
        """How it ended; known when all its output was taken."""
        assert self._completed, "take its output first"
        return self._completed

    def __enter__(self) -> "OneShot":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own.cancel()
        self._thread.join()
        self._own.close()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        size, since, silence_s = 0, time.monotonic(), self._limits.first_event
        while True:
            try:
                piece = self._pieces.get(timeout=GLANCE_S)
            except queue.Empty:
                self._caller.check()
                if time.monotonic() - since >= silence_s:
                    raise DeadlineError(
                        f"{self._name} has written nothing for {silence_s:g} s",
                        hint="check that it is logged in, or raise llm.timeouts.first_event and idle",
                    ) from None
                continue
            if piece is None:
                break
            size, since, silence_s = size + len(piece[1]), time.monotonic(), self._limits.idle
            if size > MAX_OUTPUT_BYTES:
                raise TransportError(
                    f"{self._name} wrote more than {MAX_OUTPUT_BYTES >> 20} MiB and was stopped",
                    hint="run it by hand to see what it writes; only the answer is wanted",
                )
            yield piece
        self._end()

    def _end(self) -> None:
        self._caller.check()
        if isinstance(self._error, ProcessError) and self._caller.expired:
            raise DeadlineError(
                f"{self._name} was not done within the time limit", hint="raise llm.timeouts.total"
            ) from self._error
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            self._completed = self._start(
                on_output=lambda data: self._put(("stdout", data)),
                on_error=lambda data: self._put(("stderr", data)),
            )
        except BaseException as error:  # raised again in the thread that waits
            self._error = error
        finally:
            self._put(None)

    def _put(self, piece: tuple[str, bytes] | None) -> None:
        while not self._own.cancelled:
            try:
                self._pieces.put(piece, timeout=GLANCE_S)
                return
            except queue.Full:
                continue
