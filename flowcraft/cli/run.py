"""`flowcraft run`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from flowcraft.cli.options import inputs, json_option, model_option, pairs, pipeline_argument, settings_option


@click.command()
@pipeline_argument
@click.option(
    "-i",
    "--input",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="An input of the pipeline; NAME=@FILE takes a file's text. May be given again.",
)
@settings_option
@model_option
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="How many stages may run at the same time.")
@click.option("--keep-going", is_flag=True, help="After a failure, still run what does not depend on it.")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder in which stages read, write and run. Default: the current one.",
)
@json_option
def run(  # noqa: PLR0913 - one parameter per option
    file: Path,
    given: Sequence[str],
    settings_path: Path | None,
    models: Sequence[str],
    jobs: int | None,
    keep_going: bool,
    workspace: Path | None,
    as_json: bool,
) -> int:
    """Run the pipeline FILE.

    Exit code 0: done, 1: a stage failed, 2: the file or the command line is wrong, 130: interrupted.
    """
    from flowcraft.cli.live import open_view
    from flowcraft.cli.models import fetch_weights, quality_note
    from flowcraft.cli.report import dump
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.llm.routing import KnownModels
    from flowcraft.pipeline.load import load
    from flowcraft.runner.choices import named_models
    from flowcraft.runner.run import run_pipeline

    manager = SettingsManager(settings_path)
    pipeline = load(file, models=KnownModels(manager.settings))
    chosen = pairs(models, "--model")
    values = inputs(given)
    if manager.notice:
        click.echo(manager.notice, err=True)
    with LLMIntegration(manager) as llm:
        fetch_weights(choice.model for choice in named_models(pipeline, llm, chosen))
        stream = sys.stderr if as_json else sys.stdout
        with open_view(stream) as view:
            record = run_pipeline(
                pipeline,
                values,
                llm=llm,
                models=chosen,
                jobs=jobs or manager.settings.jobs,
                keep_going=keep_going,
                workspace=workspace,
                on_event=view.show,
            )
    if as_json:
        click.echo(dump(record.to_json()))
    quality_note(attempt.provider for outcome in record.outcomes for attempt in outcome.attempts)
    return record.exit_code
