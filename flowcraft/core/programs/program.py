"""A program that has been started: its pipes, its group, its end; the only user of `subprocess`.

Every program gets a session of its own, so that all it starts can be signalled together. Its end is
observed without reaping it: as long as it is not reaped nobody else can get the number of its group.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO

from flowcraft.core.errors import ProcessError
from flowcraft.core.scope import Scope

STOP_GRACE_S = 2.0  # between TERM and KILL: long enough for a CLI agent to flush, short enough for Ctrl-C
DRAIN_S = 1.0  # for helpers that still write when the program has ended (`cmd > >(tee log)`)
KILLED_DRAIN_S = 0.2  # the pipes of a killed group end at once, those of another session never
POLL_S = 0.05  # how late a cancel, or an exit that leaves pipes open, may be noticed
BLOCK_BYTES = 65536

# errno of a failed start -> what happened, what to do
START_FAILURES = {
    errno.ENOENT: ("was not found", "install it, or give its full path; it is looked for in PATH"),
    errno.EACCES: ("may not be executed", "chmod +x it, or check the rights of its folders"),
    errno.ENOEXEC: ("is not a program", "a script needs a first line such as #!/bin/sh"),
    errno.E2BIG: ("was given too long arguments", "pass long text on stdin or in a file"),
    errno.EMFILE: ("was not started: too many open files", "raise `ulimit -n` or run less at once"),
    errno.EAGAIN: ("was not started: too many processes", "raise `ulimit -u` or run less at once"),
    errno.ENOMEM: ("was not started: not enough memory", "run less at once"),
}


class Program:
    """A started program; its pipes do not block. `feed` False gives it an empty stdin.

    `env` replaces the whole environment. Raises ProcessError if it cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        feed: bool,
    ) -> None:
        self.argv = tuple(argv)
        self._process = _start(self.argv, cwd, env, subprocess.PIPE if feed else subprocess.DEVNULL)
        self.pid = self._process.pid
        self.stdin = self._process.stdin
        self.stdout, self.stderr = _open(self._process.stdout), _open(self._process.stderr)
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)

    @property
    def returncode(self) -> int | None:
        """How it has ended, negative for a signal; None until it is reaped."""
        return self._process.returncode

    @property
    def exited(self) -> bool:
        """Whether it has ended, reaped or not."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # reaped by another thread, or by the system (SIGCHLD ignored)
            return True

    def await_exit(self, seconds: float) -> None:
        """Wait until it has ended, but not for longer than `seconds`."""
        until, pause_s = time.monotonic() + seconds, 0.0005
        while not self.exited and time.monotonic() < until:
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, POLL_S)

    def signal(self, number: int) -> None:
        """Signal all of its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; macOS says EPERM of a zombie
            os.killpg(self.pid, number)

    def reap(self) -> None:
        """Kill what is left of its group and wait for its end; its pipes stay open."""
        if self._process.returncode is None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Close its pipes."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.close()

    def disown(self) -> None:
        """After a fork: it is the parent's child, and only the parent may hold its pipes."""
        self._process.returncode = -signal.SIGKILL
        self.close()

    @property
    def _pipes(self) -> list[IO[bytes]]:
        return [pipe for pipe in (self.stdin, self.stdout, self.stderr) if pipe]


class Capture:
    """The first `head` and the last `tail` bytes of an output."""

    def __init__(self, head: int, tail: int) -> None:
        self._head_bytes, self._tail_bytes = head, tail
        self._head, self._tail = bytearray(), bytearray()
        self._dropped = 0

    @property
    def truncated(self) -> bool:
        return self._dropped > 0 or len(self._tail) > self._tail_bytes

    def add(self, chunk: bytes) -> None:
        room = self._head_bytes - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 2 * self._tail_bytes + BLOCK_BYTES:  # rarely, so that it costs little
            self._trim()

    def value(self) -> bytes:
        """What is kept, with a note in the gap if there is one."""
        self._trim()
        note = f"\n[... {self._dropped} bytes left out ...]\n" if self._dropped and self._head_bytes else ""
        return bytes(self._head) + note.encode() + bytes(self._tail)

    def _trim(self) -> None:
        surplus = max(0, len(self._tail) - self._tail_bytes)
        del self._tail[:surplus]
        self._dropped += surplus


def read_some(pipe: IO[bytes]) -> bytes | None:
    """What is there; b"" at the end, None if nothing is there yet."""
    try:
        return os.read(pipe.fileno(), BLOCK_BYTES)
    except BlockingIOError:
        return None


def write_some(pipe: IO[bytes], data: memoryview) -> int:
    """How much of `data` the pipe has taken; raises BrokenPipeError if nobody reads it any more."""
    try:
        return os.write(pipe.fileno(), data[:BLOCK_BYTES])
    except BlockingIOError:
        return 0


def turn_s(limits: Scope) -> float:
    """How long to wait before the limits have to be looked at again."""
    left_s = limits.remaining_s()
    return POLL_S if left_s is None else min(POLL_S, left_s)


def program_name(argv: Sequence[str]) -> str:
    """The program in quotes, for messages; the rest of a command line may hold a prompt or a secret."""
    return repr(os.path.basename(argv[0]))


def last_lines(output: bytes, count: int = 10) -> str:
    """The last lines of an output as text, for an error."""
    return "\n".join(output[-8192:].decode("utf-8", "replace").strip().splitlines()[-count:])


def ending(returncode: int) -> str:
    """How a program has ended, in words: `exit code 3` or `signal SIGKILL`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"signal {signal.Signals(-returncode).name}"
    except ValueError:  # real-time signals have no names
        return f"signal {-returncode}"


def _start(
    argv: Sequence[str], cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None, stdin: int
) -> "subprocess.Popen[bytes]":
    if not argv or not argv[0]:
        raise ProcessError("there is no command to start", argv=argv, returncode=None, hint="name a program")
    try:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        what, hint = _why_not_started(argv[0], cwd, env, error)
        raise ProcessError(what, argv=argv, returncode=None, hint=hint) from error
    except ValueError as error:  # a NUL, or half of a surrogate pair
        what = f"{program_name(argv)} was given an argument or a variable that no program can receive: {error}"
        raise ProcessError(what, argv=argv, returncode=None, hint="pass such text on stdin or in a file") from error


def _why_not_started(
    program: str, cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None, error: OSError
) -> tuple[str, str | None]:
    if cwd is not None and not os.path.isdir(cwd):
        return f"the folder '{os.fspath(cwd)}' to run '{program}' in does not exist", "create it, or name another one"
    path = (os.environ if env is None else env).get("PATH")
    if error.errno == errno.ENOENT and shutil.which(program, path=path):
        return f"the interpreter of '{program}' was not found", "look at what its first line (#!) names"
    what, hint = START_FAILURES.get(error.errno or 0, (f"was not started: {error.strerror}", None))
    return f"'{program}' {what}", hint


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # we have asked for it
    return pipe
