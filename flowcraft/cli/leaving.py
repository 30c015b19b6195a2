"""Ctrl-C while nothing has begun: the program ends at once, without a word of Python's.

An exception would not do: modules that are just being imported can swallow it, or make another error of it.
"""

import os
import signal
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130


def leave_at_once() -> None:
    """Have Ctrl-C end the program as long as nothing else hears it; whoever ignores it goes on ignoring it."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def hear_again() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) == _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_: int, __: FrameType | None) -> None:
    with suppress(OSError):  # the terminal may be what has gone
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
