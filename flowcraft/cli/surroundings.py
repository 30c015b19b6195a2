"""What the program finds around it: standard streams, signals, and a machine that can refuse.

Streams may be closed (cron, `>&-`), full, or unable to hold a character; none of that is a bug.
"""

import codecs
import errno
import io
import json
import os
import signal
import sys
from typing import TextIO

from flowcraft.core.errors import FlowcraftError

_STREAMS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))
_MOMENT_S = 0.005
_FULL = "make room on the disk, or on whatever the output goes to"
_FILES = "let fewer stages run at once (--jobs), or raise `ulimit -n`"
_REFUSALS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "the limit is one of the file system, or of `ulimit -f`",
    errno.EROFS: "write to another folder",
    errno.EIO: "look at the disk, or the terminal that the output goes to",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
}


def settle() -> None:
    """Make the streams fit to be used, and let signals that end the program do so in good order."""
    for name, flags, mode in _STREAMS:
        if getattr(sys, name) is None:
            # Takes the free number 0, 1 or 2, too, which nothing else may get by accident.
            setattr(sys, name, open(os.open(os.devnull, flags), mode, encoding="utf-8"))  # noqa: SIM115
    codecs.register_error("as in JSON", _as_in_json)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="as in JSON")
    # What we started lives in sessions of its own: a polite end (TERM) or that of the terminal (HUP)
    # must reach it as Ctrl-C does. Whoever ignores HUP (nohup) wants the program to live on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    sys.unraisablehook = _again


def _again(lost: "sys.UnraisableHookArgs") -> None:
    """Have an interruption come again that Python has lost: it came in a callback of its own, as at an import's end."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _MOMENT_S)
    else:
        sys.__unraisablehook__(lost)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line (to stdout); a reader who has left (`| head`) must not end work that is paid for."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        _to_nowhere(stream)


def let_go() -> OSError | None:
    """Write out what the streams still hold; returns why that was impossible, if anybody wants to know."""
    unwritten = None
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError as error:
            _to_nowhere(stream)
            unwritten = None if isinstance(error, BrokenPipeError) else error  # the reader has left (`| head`)
    return unwritten


def _to_nowhere(stream: TextIO) -> None:
    # What the stream still holds goes there, too, or Python would try again at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def refusal(error: BaseException) -> FlowcraftError | None:
    """What the machine refuses, in words for the user; None if the error has other causes."""
    if not isinstance(error, OSError):
        return None
    if isinstance(error, FileNotFoundError) and not _has_folder():
        return FlowcraftError("the current folder does not exist any more", hint="go to another one with cd")
    if error.errno not in _REFUSALS:
        return None
    place = f": {error.filename}" if error.filename is not None else ""
    return FlowcraftError(f"{error.strerror}{place}", hint=_REFUSALS[error.errno])


def _as_in_json(error: UnicodeError) -> tuple[str, int]:
    """A character that the encoding lacks as a \\uXXXX escape, which JSON stays JSON with."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _has_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
