"""`validate` and `schema`: what can be known of a file before anything is called."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flowcraft.cli.options import FILE, settings_option
from flowcraft.core.errors import DocumentError, PipelineError, SettingsError
from flowcraft.core.problems import Problem, as_github, as_json, as_sarif, as_text, ordered
from flowcraft.core.version import VERSION

_OF_PIPELINES = frozenset(("flowcraft", "stages"))


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@settings_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "sarif"]),
    default="text",
    show_default=True,
    help="How problems are printed; github annotates the lines of a pull request, sarif is for code scanning.",
)
def validate(files: Sequence[Path], settings_path: Path | None, form: str) -> int:
    """Check pipelines and settings files; calls no model and opens no connection.

    Prints all problems of all FILES. Exit code 0: all are fine, 2: there are errors.
    """
    found: list[Problem] = []
    for file in files:
        problems = _problems(file, settings_path)
        found += problems
        if form == "text" and not any(problem.severity == "error" for problem in problems):
            click.echo(f"{file}: ok")
    found = ordered(found)
    if form in ("json", "sarif"):
        click.echo(as_json(found) if form == "json" else as_sarif(found, VERSION))
    else:
        from flowcraft.cli.screen import clean

        for problem in found:
            click.echo(clean(as_text(problem)) if form == "text" else as_github(problem))
    return 2 if any(problem.severity == "error" for problem in found) else 0


def _problems(file: Path, settings_path: Path | None) -> Sequence[Problem]:
    from flowcraft.core.catalogue import check_models
    from flowcraft.core.document import load
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.factory import ProviderNames
    from flowcraft.pipeline.load import load as load_pipeline

    try:
        # A run takes an empty settings.yaml, too.
        document = load(file, error=PipelineError, blank={} if file.stem == "settings" else None)
        data = document.data
        if isinstance(data, dict) and not data.keys() & _OF_PIPELINES and ("llm" in data or file.stem == "settings"):
            manager = SettingsManager(file)
            return [*manager.warnings, *check_models(manager.settings, ProviderNames())]
        return load_pipeline(file, models=_known_models(settings_path), document=document).warnings
    except DocumentError as error:
        return error.problems


def _known_models(settings_path: Path | None) -> Any:
    # A pipeline is judged with the settings it would run with; broken settings are an error of their own.
    from flowcraft.core.catalogue import check_models
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.factory import ProviderNames
    from flowcraft.llm.routing import KnownModels

    settings = SettingsManager(settings_path).settings
    problems = check_models(settings, ProviderNames())
    if problems:
        raise SettingsError(problems)
    return KnownModels(settings)


@click.command()
@click.argument("name", type=click.Choice(["pipeline", "settings", "report"]))
def schema(name: str) -> None:
    """Print a JSON Schema (draft 2020-12), for editors and other tools."""
    from flowcraft.core.resources import schema_text

    click.echo(schema_text(name), nl=False)
