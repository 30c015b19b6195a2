"""`validate`, `plan` and `schema`: what can be known of a file before anything is called."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowcraft.cli.options import FILE, json_option, model_option, pairs, pipeline_argument, settings_option
from flowcraft.core.errors import DocumentError
from flowcraft.core.problems import Problem, as_github, as_json, as_text, ordered

if TYPE_CHECKING:
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.pipeline.model import Pipeline


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@settings_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How problems are printed; github annotates the lines of a pull request.",
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
    if form == "json":
        click.echo(as_json(found))
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
        data = load(file, error=DocumentError).data
        if isinstance(data, dict) and "llm" in data and "stages" not in data:
            manager = SettingsManager(file)
            return [*manager.warnings, *check_models(manager.settings, ProviderNames())]
        load_pipeline(file, models=_known_models(settings_path))
    except DocumentError as error:
        return error.problems
    return ()


def _known_models(settings_path: Path | None) -> Any:
    # A pipeline is judged with the settings it would run with; broken settings are an error of their own.
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.routing import KnownModels

    return KnownModels(SettingsManager(settings_path).settings)


@click.command()
@pipeline_argument
@settings_option
@model_option
@json_option
def plan(file: Path, settings_path: Path | None, models: Sequence[str], as_json: bool) -> int:
    """Show what would run: the order, and each stage's model with the reason for it."""
    from flowcraft.cli.screen import clean, table
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.llm.routing import KnownModels
    from flowcraft.pipeline.load import load

    manager = SettingsManager(settings_path)
    pipeline = load(file, models=KnownModels(manager.settings))
    with LLMIntegration(manager) as llm:
        rows = plan_rows(pipeline, llm, pairs(models, "--model"))
    if as_json:
        click.echo(json.dumps({"pipeline": pipeline.name, "file": str(file), "stages": rows}, indent=2))
        return 0
    if manager.notice:
        click.echo(manager.notice, err=True)
    click.echo(f"{clean(pipeline.name)}: {len(rows)} stages")
    cells = [
        (str(row["order"]), row["stage"], row["model"] or "-", row["tier"] or "-", _why(row), ", ".join(row["needs"]))
        for row in rows
    ]
    click.echo(table(cells, ("order", "stage", "model", "tier", "why", "after")))
    return 0


def plan_rows(pipeline: "Pipeline", llm: "LLMIntegration", models: dict[str, str]) -> list[dict[str, Any]]:
    """One row per stage in the order of running; stages with the same order can run at the same time."""
    from flowcraft.pipeline.plan import order
    from flowcraft.runner.choices import check_stage_names, stage_model

    check_stage_names(pipeline, models)
    rows: list[dict[str, Any]] = []
    for number, level in enumerate(order(pipeline), start=1):
        for stage in level:
            named = stage_model(pipeline, stage, models)
            choice = llm.choose(stage.id, named) if stage.kind == "prompt" and named is not ... else None
            rows.append(
                {
                    "order": number,
                    "stage": stage.id,
                    "kind": stage.kind,
                    "model": choice.model.name if choice else None,
                    "provider": choice.model.provider if choice else None,
                    "tier": choice.tier if choice else None,
                    "cause": choice.cause if choice else None,
                    "because": choice.because if choice else None,
                    "source": str(choice.origin) if choice else None,
                    "needs": list(stage.needs),
                    "conditional": stage.condition is not None,
                }
            )
    return rows


def _why(row: dict[str, Any]) -> str:
    text = row["because"] or ("runs a command" if row["kind"] == "run" else "decided when the stage starts")
    return f"{text}; may be skipped" if row["conditional"] else str(text)


@click.command()
@click.argument("name", type=click.Choice(["pipeline", "settings", "report"]))
def schema(name: str) -> None:
    """Print a JSON Schema (draft 2020-12), for editors and other tools."""
    from flowcraft.core.resources import schema_text

    click.echo(schema_text(name), nl=False)
