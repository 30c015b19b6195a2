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

from flowcraft.cli.surroundings import let_go, refusal, settle
from flowcraft.core.errors import DocumentError, FlowcraftError
from flowcraft.core.problems import did_you_mean
from flowcraft.core.version import VERSION

BUG = 70
INTERRUPTED = 130
READER_LEFT = 141  # as if SIGPIPE had ended the program

# name -> (place, what `--help` says); the modules are imported only when their command is used
_COMMANDS = {
    "run": ("flowcraft.cli.run:run", "Run a pipeline."),
    "resume": ("flowcraft.cli.run:resume", "Go on with a run after a crash, Ctrl-C or failure."),
    "approve": ("flowcraft.cli.decide:approve", "Approve what a run waits for, and go on."),
    "reject": ("flowcraft.cli.decide:reject", "Reject what a run waits for."),
    "runs": ("flowcraft.cli.runs:runs", "List the runs that are kept here."),
    "show": ("flowcraft.cli.runs:show", "Show a run, or one stage with its prompts and answers."),
    "why": ("flowcraft.cli.why:why", "Say why a stage ran, was cached, skipped or rejected."),
    "cost": ("flowcraft.cli.why:cost", "Show what a run has cost, and would have cost."),
    "export": ("flowcraft.cli.runs:export", "Print everything that is kept of a run as JSON."),
    "prune": ("flowcraft.cli.runs:prune", "Delete old runs."),
    "db": ("flowcraft.cli.runs:db", "Check the database of runs."),
    "plan": ("flowcraft.cli.plan:plan", "Show what would run, who answers and what it may cost."),
    "graph": ("flowcraft.cli.graph:graph", "Draw a pipeline as Mermaid or DOT."),
    "test": ("flowcraft.cli.test:test", "Run *.test.yaml files with scripted answers."),
    "validate": ("flowcraft.cli.check:validate", "Check pipelines and settings, without any call."),
    "chat": ("flowcraft.cli.chat:chat", "Ask a model one question."),
    "models": ("flowcraft.cli.models:models", "List the models that can be used; fetch the embedded one."),
    "auth": ("flowcraft.cli.auth:auth", "Sign in to Qwen and out; see which credentials are used."),
    "settings": ("flowcraft.cli.models:settings", "Show the settings in force and where each comes from."),
    "schema": ("flowcraft.cli.check:schema", "Print the JSON Schema of pipelines or settings."),
    "init": ("flowcraft.cli.init:init", "Write a commented settings.yaml and a first pipeline."),
    "completion": ("flowcraft.cli.init:completion", "Print the shell completion script."),
}


class Commands(click.Group):
    """A group that knows its commands by name and imports them on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], _COMMANDS) or ""
            raise click.UsageError(f"no command '{args[0]}'. {hint}".strip(), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="flowcraft")
def cli() -> None:
    """Run pipelines of language-model stages written in YAML.

    Simple stages go to a cheap model, hard ones to a strong model, by the rules in settings.yaml.
    """


def main() -> None:
    """Run the command line and exit with its code; a user's mistake never shows a traceback."""
    settle()
    code = run_command(sys.argv[1:])
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
        with suppress(OSError):  # the terminal may be what has gone
            click.echo("interrupted", err=True)
        return INTERRUPTED
    except FlowcraftError as error:
        show_error(error)
        return error.exit_code
    except Exception as error:
        return _unforeseen(error)
    return result if isinstance(result, int) else 0


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
