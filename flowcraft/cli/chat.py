"""`flowcraft chat`: one question, one answer."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from flowcraft.cli.options import argument_text, json_option, settings_option, utf8_text
from flowcraft.core.errors import FlowcraftError, UsageError

_NOT_WHOLE = {
    "length": "the answer was cut off at max_tokens",
    "content_filter": "the service held a part of the answer back (content_filter)",
}


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

    question = _question(text)
    manager = SettingsManager(settings_path)
    if manager.notice:
        click.echo(manager.notice, err=True)
    messages = [LLMMessage("system", argument_text(system, "--system"))] if system else []
    messages.append(LLMMessage("user", question))
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
                _show(map(clean, pieces))
                response = pieces.response
        else:
            response = llm.chat_completion(messages, stage, model=model, timeout=timeout, **params)
            click.echo(clean(response.content))
    if response.finish_reason in _NOT_WHOLE:
        click.echo(f"note: {_NOT_WHOLE[response.finish_reason]}", err=True)
    quality_note([response.provider])


def _question(text: str) -> str:
    if text == "-":
        question = utf8_text(sys.stdin.buffer.read(), "what stands on standard input")
    else:
        question = argument_text(text, "the question")
    if not question.strip():
        raise UsageError("there is no question", hint='flowcraft chat "..."')
    return question


def _show(pieces: Iterable[str]) -> None:
    """Print the pieces as they arrive; an error in their middle does not stand on their line."""
    begun = False
    try:
        for piece in pieces:
            click.echo(piece, nl=False)
            begun = True
    except FlowcraftError:
        if begun:
            click.echo()
        raise
    click.echo()
