"""`flowcraft chat`: one question, one answer."""

import sys
from pathlib import Path
from typing import Any

import click

from flowcraft.cli.options import json_option, settings_option


@click.command()
@click.argument("text")
@settings_option
@click.option("--stage", metavar="NAME", help="Choose the model as for this stage.")
@click.option("--model", metavar="NAME", help="Use this model (cheap, expensive or a model's name).")
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 for the most likely answer.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Total time in seconds.")
@click.option("--stream/--no-stream", default=None, help="Show the answer as it arrives. Default: on a terminal.")
@json_option
def chat(  # noqa: PLR0913 - one parameter per option
    text: str,
    settings_path: Path | None,
    stage: str | None,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    timeout: float | None,
    stream: bool | None,
    as_json: bool,
) -> None:
    """Ask a model TEXT and print its answer; `-` takes the text from standard input."""
    from flowcraft.cli.models import fetch_weights, quality_note
    from flowcraft.cli.report import response_json
    from flowcraft.cli.screen import clean
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.base import LLMMessage
    from flowcraft.llm.integration import LLMIntegration

    manager = SettingsManager(settings_path)
    if manager.notice:
        click.echo(manager.notice, err=True)
    messages = [LLMMessage("system", system)] if system else []
    messages.append(LLMMessage("user", sys.stdin.read() if text == "-" else text))
    given = {"max_tokens": max_tokens, "temperature": temperature}
    params: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with LLMIntegration(manager) as llm:
        choice = llm.choose(stage, model)
        fetch_weights([choice.model])
        if as_json:
            response = llm.chat_completion(messages, stage, model=model, timeout=timeout, **params)
            click.echo(response_json(response))
        elif stream or (stream is None and sys.stdout.isatty()):
            with llm.stream_completion(messages, stage, model=model, timeout=timeout, **params) as pieces:
                for piece in pieces:
                    click.echo(clean(piece), nl=False)
                click.echo()
                response = pieces.response
        else:
            response = llm.chat_completion(messages, stage, model=model, timeout=timeout, **params)
            click.echo(clean(response.content))
    if response.finish_reason == "length":
        click.echo("note: the answer was cut off at max_tokens", err=True)
    quality_note([response.provider])
