"""`models` and `settings`: what is set, what can be used, and the weights of the embedded model."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowcraft.cli.options import json_option, settings_option

if TYPE_CHECKING:
    from flowcraft.core.values import LLMSettings, ModelSettings, Settings

QUALITY_NOTE = (
    "note: answered by the embedded 135M-parameter model: it shows that everything works, not what a good model can do"
)


@click.group(invoke_without_command=True)
@settings_option
@json_option
@click.pass_context
def models(context: click.Context, settings_path: Path | None, as_json: bool) -> None:
    """List the models that can be used: name, provider, tier, context, price, and what is missing."""
    if context.invoked_subcommand:
        return
    from flowcraft.cli.screen import table
    from flowcraft.core.settings import SettingsManager

    manager = SettingsManager(settings_path)
    rows = _rows(manager.settings)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if manager.notice:
        click.echo(manager.notice, err=True)
    cells = [tuple("-" if value is None else str(value) for value in row.values()) for row in rows]
    click.echo(table(cells, tuple(rows[0])))


def _rows(settings: "Settings") -> list[dict[str, str | int | None]]:
    """The known models, then what the tiers name beside them."""
    from flowcraft.core.catalogue import known_models, name_hint, resolve
    from flowcraft.core.values import ModelSettings
    from flowcraft.llm.factory import ProviderNames

    llm, providers = settings.llm, ProviderNames()
    rows = [_row(model, llm, _state(model)) for model in known_models(settings)]
    listed = {row["name"] for row in rows}
    for name in dict.fromkeys((*llm.cheap_models, *llm.expensive_models)):
        model = resolve(name, settings, providers)
        if model is None:
            unknown = ModelSettings(name=name, provider="-", model="")
            rows.append(_row(unknown, llm, f"unknown model; {name_hint(name, settings, providers)}"))
        elif name not in listed:
            rows.append(_row(model, llm, _state(model)))
    return rows


def _row(model: "ModelSettings", llm: "LLMSettings", state: str) -> dict[str, str | int | None]:
    tiers = {"cheap": llm.cheap_models, "expensive": llm.expensive_models}
    prices = model.prices
    return {
        "name": model.name,
        "provider": model.provider,
        "model": model.model or None,
        "tier": ", ".join(tier for tier, names in tiers.items() if model.name in names) or None,
        "context": model.context,
        "usd per 1M tokens in/out": f"{prices.input}/{prices.output}" if prices else None,
        "state": state,
    }


def _state(model: "ModelSettings") -> str:
    from flowcraft.core.errors import FlowcraftError
    from flowcraft.llm.factory import LLMProviderFactory

    if model.api_key_env and not os.environ.get(model.api_key_env):
        return f"set ${model.api_key_env}"
    try:
        provider = LLMProviderFactory.create(model)
    except FlowcraftError as error:
        return error.message
    missing = provider.missing()
    return f"needs {missing}" if missing else "ready"


@models.command()
@click.argument("name", type=click.Choice(["embedded"]))
def pull(name: str) -> None:
    """Fetch the weights of the embedded model ahead of its first use."""
    from flowcraft.llm.local import weights

    found = weights.find() or _pull()
    click.echo(f"{name}: {found}")


def fetch_weights(used: Iterable["ModelSettings"]) -> None:
    """Fetch the embedded model's weights, with a progress bar, if one of the models needs them."""
    embedded = [model for model in used if model.provider == "embedded"]
    if not embedded:
        return
    from flowcraft.llm.local import weights

    if any(weights.named_by_user(model.options.get("path")) is None for model in embedded) and weights.find() is None:
        _pull()


def quality_note(providers: Iterable[str]) -> None:
    """Say what to think of the answers if the embedded model gave any."""
    if "embedded" in set(providers):
        click.echo(QUALITY_NOTE, err=True)


def _pull() -> Path:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from flowcraft.llm.local import weights

    console = Console(stderr=True)
    console.print("fetching the embedded model (98 MB, once per user)")
    if not sys.stderr.isatty():
        return weights.pull()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("weights", total=None)
        return weights.pull(lambda done, total: progress.update(task, completed=done, total=total))


@click.group()
def settings() -> None:
    """Look at the settings."""


@settings.command()
@settings_option
@json_option
def show(settings_path: Path | None, as_json: bool) -> None:
    """Print the settings in force, each with the place it comes from; secrets are never shown."""
    from flowcraft.cli.screen import table
    from flowcraft.core.settings import SettingsManager, describe

    manager = SettingsManager(settings_path)
    rows = describe(manager.settings)
    if as_json:
        click.echo(
            json.dumps([{"key": key, "value": value, "origin": origin} for key, value, origin in rows], indent=2)
        )
        return
    if manager.notice:
        click.echo(manager.notice, err=True)
    click.echo(table([(key, _shown(value), origin) for key, value, origin in rows], ("setting", "value", "from")))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
