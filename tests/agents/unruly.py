"""A program that behaves as badly as its first argument says; for tests of what has to survive it."""

import os
import signal
import subprocess
import sys
import threading

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def hang() -> None:
    say("ready")
    signal.pause()


def close_output() -> None:
    """Closes stdout and lives on."""
    say("ready")
    os.close(1)
    signal.pause()


def ignore_term() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang()


def polite() -> None:
    """Says goodbye on TERM."""
    signal.signal(signal.SIGTERM, lambda *_: (say("bye"), os._exit(7)))
    hang()


def leak() -> None:
    """Ends while a grandchild of the same group holds its pipes."""
    say(f"ready {subprocess.Popen(SLEEPER).pid}")


def leak_silent() -> None:
    """Ends while a grandchild lives that holds no pipe."""
    null = subprocess.DEVNULL
    say(f"ready {subprocess.Popen(SLEEPER, stdin=null, stdout=null, stderr=null).pid}")


def escape() -> None:
    """Ends while a grandchild in a session of its own holds its pipes."""
    say(f"ready {subprocess.Popen(SLEEPER, start_new_session=True).pid}")


def nest() -> None:
    """Hangs with a grandchild."""
    say(f"ready {subprocess.Popen(SLEEPER).pid}")
    signal.pause()


def late() -> None:
    """A helper still writes when the program has ended."""
    subprocess.Popen(
        [sys.executable, "-c", "import os; os.read(0, 1); print('late', flush=True)"], stdin=subprocess.PIPE
    )
    say("early")


def flood() -> None:
    """Megabytes to both outputs at once."""
    writer = threading.Thread(target=lambda: os.write(2, b"e" * 3_000_000))
    writer.start()
    for _ in range(30):
        os.write(1, b"o" * 100_000)
    writer.join()


def long_line() -> None:
    os.write(1, b"x" * 1_000_000 + b"\n" + b"y" * 70_000 + b"\nlast")


def deaf() -> None:
    """Never reads its stdin."""
    hang()


def echo() -> None:
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def complain() -> None:
    for number in range(100):
        os.write(2, b"complaint %d\n" % number)
    sys.exit(3)


def close_outputs() -> None:
    """Goes on for a moment when nobody can hear it any more."""
    say("ready")
    os.close(1)
    os.close(2)
    os.read(0, 1)
    os._exit(5)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
