"""`flowcraft`, `python -m flowcraft`: says its version and commands at once, has the command line do the rest.

Importing the parser of options takes four times as long as all that these two need.
"""

import os
import sys
from contextlib import suppress

from flowcraft.cli.commands import ABOUT, COMMANDS
from flowcraft.core.version import VERSION

_WIDTH = 80  # of a terminal in which the lines below are as click would break them
_HELP = """\
Usage: flowcraft [OPTIONS] COMMAND [ARGS]...

{about}

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
{commands}
"""


def main() -> None:
    """Run the command line and exit with its code."""
    said = answer(sys.argv[1:])
    if said is not None and sys.stdout is not None:
        with suppress(OSError):  # a full disk, a reader who has left: the command line has words and codes for it
            os.write(sys.stdout.fileno(), said.encode())
            return
    from flowcraft.cli.leaving import leave_at_once

    leave_at_once()
    from flowcraft.cli.main import main as carry_out

    carry_out()


def answer(argv: list[str]) -> str | None:
    """What there is to say at once, if that is all that is asked for."""
    if argv == ["--version"]:
        return f"flowcraft, version {VERSION}\n"
    if argv not in (["-h"], ["--help"]) or _columns() < _WIDTH:
        return None
    room = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{room}}  {text}" for name, (_, text) in COMMANDS.items())
    about = "\n".join(f"  {line}".rstrip() for line in ABOUT.splitlines())
    return _HELP.format(about=about, commands=commands)


def _columns() -> int:
    """How wide the terminal is; where there is none, wide enough."""
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(1).columns
    except OSError:
        return _WIDTH


if __name__ == "__main__":
    main()
