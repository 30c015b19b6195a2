"""Options that several commands share, and how their text becomes values."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowcraft.core.errors import UsageError

if TYPE_CHECKING:
    from flowcraft.pipeline.model import Pipeline

# Whether a file can be read is for the one who reads it to say: with its place, the fix, and as JSON if wanted.
FILE = click.Path(path_type=Path, readable=False)

settings_option = click.option(
    "--settings",
    "settings_path",
    metavar="FILE",
    type=FILE,
    help="Settings file. Default: $FLOWCRAFT_SETTINGS, ./settings.yaml, ~/.flowcraft/settings.yaml.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
model_option = click.option(
    "--model",
    "models",
    multiple=True,
    metavar="STAGE=NAME",
    help="Use this model for a stage (cheap, expensive or a model's name). May be given again.",
)
workspace_option = click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder in which stages read, write and run, and where runs are kept. Default: the current one.",
)
pipeline_argument = click.argument("file", type=FILE)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """`name=value` texts as a dict; raises UsageError for a text without `=` or a name given twice."""
    found: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {text!r} has no '='", hint=f"write {option} name=value")
        if name in found:
            raise UsageError(f"{option} {name} is given twice")
        found[name] = value
    return found


def inputs(values: Iterable[str]) -> dict[str, str]:
    """The `-i name=value` options; `name=@file` takes the text of a file, `name=@@x` means "@x"."""
    return {name: _from_file(name, value) for name, value in pairs(values, "-i").items()}


def argument_text(argument: str, what: str) -> str:
    """An argument as text, also where the locale made Python hide its bytes; UsageError if it is none."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return utf8_text(os.fsencode(argument), what)
    return argument


def utf8_text(data: bytes, what: str) -> str:
    """The text in `data`; raises UsageError if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{what} is not UTF-8 text", hint="convert it to UTF-8") from None


def _from_file(name: str, value: str) -> str:
    what = f"input '{name}'"
    if not value.startswith("@"):
        return argument_text(value, what)
    if value.startswith("@@"):
        return argument_text(value[1:], what)
    path = Path(value[1:])
    try:
        return utf8_text(path.read_bytes(), f"{what}: {path}")
    except OSError as error:
        raise UsageError(
            f"input '{name}': cannot read {path}: {error.strerror}",
            hint=f"for a value that starts with '@' write -i {name}=@@...",
        ) from None


def show_warnings(pipeline: "Pipeline") -> None:
    """Say what is allowed and probably not meant, before anything is paid."""
    from flowcraft.cli.screen import clean

    for problem in pipeline.warnings:
        click.echo(clean(str(problem)), err=True)
