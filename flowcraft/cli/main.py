"""The `flowcraft` command: the only reader of argv and the only writer of exit codes.

Exit codes: 0 done, 1 failed, 2 wrong file or usage, 3 paused, 4 rejected, 130 interrupted, 70 a bug of ours.
Commands import what they need when they run, so that `--help` stays fast.
"""

import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module

import click

from flowcraft.cli.commands import ABOUT, COMMANDS
from flowcraft.cli.leaving import INTERRUPTED, hear_again
from flowcraft.cli.surroundings import let_go, refusal, settle
from flowcraft.core.errors import DocumentError, FlowcraftError
from flowcraft.core.problems import did_you_mean
from flowcraft.core.version import VERSION

BUG = 70
READER_LEFT = 141  # as if SIGPIPE had ended the program


class Commands(click.Group):
    """A group that knows its commands by name and imports them on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS) or ""
            raise click.UsageError(f"no command '{args[0]}'. {hint}".strip(), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=Commands, help=ABOUT, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="flowcraft")
def cli() -> None:
    """The command line."""


def main() -> None:
    """Run the command line and exit with its code; a user's mistake never shows a traceback."""
    try:
        settle()
        hear_again()
        code = run_command(sys.argv[1:])
    except KeyboardInterrupt:
        code = _interrupted()
    unwritten = let_go()
    if unwritten:
        code = code or _unforeseen(unwritten)
    if code == INTERRUPTED:
        # A provider of somebody else's may not listen; its thread would hold the exit for ever.
        os._exit(code)
    sys.exit(code)


def run_command(argv: list[str]) -> int:
    """Run one command line; returns its exit code."""
    try:
        result = cli.main(argv, prog_name="flowcraft", standalone_mode=False)
    except SystemExit:  # what click does when the reader of the output has left (`| head`)
        return READER_LEFT
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except FlowcraftError as error:
        show_error(error)
        return error.exit_code
    except Exception as error:
        return _unforeseen(error)
    return result if isinstance(result, int) else 0


def _interrupted() -> int:
    with suppress(OSError):  # the terminal may be what has gone
        click.echo("interrupted", err=True)
    return INTERRUPTED


def _unforeseen(error: Exception) -> int:
    known = refusal(error)
    if known:
        show_error(known)
        return known.exit_code
    traceback.print_exception(error)
    click.echo(f"flowcraft {VERSION}: this is a bug in FlowCraft; please report it with the lines above", err=True)
    return BUG


def show_error(error: FlowcraftError) -> None:
    """Print what happened and what to do next, to stderr."""
    from flowcraft.cli.screen import clean

    text = error.message if isinstance(error, DocumentError) else f"error: {error}"
    if error.hint:
        text += f"\n  = help: {error.hint}"
    with suppress(OSError):  # stderr may be what has gone
        click.echo(clean(text), err=True)
