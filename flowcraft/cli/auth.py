"""`flowcraft auth`: sign in to Qwen, see how models are reached, sign out."""

import datetime
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowcraft.cli.options import json_option, settings_option

if TYPE_CHECKING:
    from flowcraft.core.values import ModelSettings
    from flowcraft.llm.providers.qwen import QwenCodeProvider

model_option = click.option(
    "--model", "name", metavar="NAME", help="The qwen-code model. Default: the first that a tier of the settings names."
)


@click.group()
def auth() -> None:
    """Sign in and out, and see which credentials are used; no secret is ever shown."""


@auth.command()
@click.argument("service", type=click.Choice(["qwen"]))
@settings_option
@model_option
@click.option("--timeout", type=click.FloatRange(min=1), default=900.0, help="How long to wait for you, in seconds.")
def login(service: str, settings_path: Path | None, name: str | None, timeout: float) -> None:
    """Sign in to SERVICE (qwen) with a browser, here or on another machine.

    The login is shared with the qwen-code CLI.
    """
    from flowcraft.cli.screen import clean
    from flowcraft.core.scope import Scope
    from flowcraft.llm.oauth.login import existing, save, wait_for_user
    from flowcraft.llm.oauth.wire import oauth_service
    from flowcraft.llm.providers.qwen import login_path

    config = _model(settings_path, name)
    path, private = login_path(config), config.options.get("oauth_base_url")
    existing(path)  # a file that we must not touch is told before anybody opens a browser
    signing_in, scope = oauth_service(private), Scope(timeout)
    code = signing_in.device_code(Scope(30.0))
    click.echo(f"Open this page and agree:\n\n    {clean(code.url)}\n\nThe code is {clean(code.user_code)}", err=True)
    click.echo("Waiting for you. Ctrl-C stops it and changes nothing.", err=True)
    save(path, wait_for_user(signing_in, code, scope), Scope(60.0))
    click.echo(f"signed in; the login is in {path}")
    if not private:
        click.echo(
            "note: Qwen has ended its free tier for logins on 2026-04-15. If calls are refused, "
            "use an API key (DASHSCOPE_API_KEY or BAILIAN_CODING_PLAN_API_KEY).",
            err=True,
        )


@auth.command()
@settings_option
@model_option
@json_option
def status(settings_path: Path | None, name: str | None, as_json: bool) -> int:
    """Show which credentials a Qwen model uses, how long they last and where they are."""
    from flowcraft.cli.screen import clean

    facts = _facts(_model(settings_path, name))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        width = max(map(len, facts))
        for fact, value in facts.items():
            click.echo(clean(f"{fact.ljust(width)}  {'-' if value is None else value}"))
    return 0 if facts["ready"] == "yes" else 1


@auth.command()
@settings_option
@model_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def logout(settings_path: Path | None, name: str | None, yes: bool) -> int:
    """Delete the Qwen login, for FlowCraft and for the qwen-code CLI."""
    from flowcraft.core.errors import UsageError
    from flowcraft.core.scope import Scope
    from flowcraft.llm.oauth.login import remove
    from flowcraft.llm.providers.qwen import login_path

    path = login_path(_model(settings_path, name))
    if not os.path.lexists(path):
        raise UsageError(f"not signed in: there is no file {path}")
    if not yes and not click.confirm(f"Delete {path}? The qwen-code CLI is signed out, too.", err=True):
        click.echo("nothing was deleted", err=True)
        return 1
    remove(path, Scope(60.0))
    click.echo(f"signed out; {path} is deleted")
    return 0


def _model(settings_path: Path | None, name: str | None) -> "ModelSettings":
    """The model that `name` means; without it the first qwen-code model that is used at all."""
    from flowcraft.core.catalogue import QWEN, resolve
    from flowcraft.core.errors import UsageError
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.factory import ProviderNames

    settings = SettingsManager(settings_path).settings
    names = [name] if name else [*settings.llm.cheap_models, *settings.llm.expensive_models, QWEN]
    for each in names:
        config = resolve(each, settings, ProviderNames())
        if config and config.provider == "qwen-code":
            return config
    raise UsageError(f"'{names[-1]}' is no qwen-code model", hint="run `flowcraft models` for the known names")


def _facts(config: "ModelSettings") -> dict[str, str | None]:
    from flowcraft.llm.providers.qwen import QwenCodeProvider

    provider = QwenCodeProvider(config)
    found, missing = provider.access, provider.missing()
    facts: dict[str, str | None] = {
        "model": config.name if config.name == config.model else f"{config.name} ({config.model})",
        "credentials": f"API key in ${found.key_variable}" if found.key_variable else "login of the qwen-code CLI",
        "ready": "no: it needs " + missing if missing else "yes",
        "service": found.base_url,
    }
    return facts | _login_facts(provider, found.login) if found.login else facts


def _login_facts(provider: "QwenCodeProvider", path: Path) -> dict[str, str | None]:
    from flowcraft.core.errors import ProviderError
    from flowcraft.llm.oauth import credentials

    facts: dict[str, str | None] = {"file": str(path)}
    try:
        found = credentials.read(path)
        facts |= {"access token": _until(found.expires_at_s)}
        facts |= {"refresh token": "yes, it is renewed by itself" if found.refresh_token else "none"}
        return facts | {"service": provider.service(found)}
    except ProviderError as error:
        return facts | {"state": error.message, "next": error.hint}


def _until(expires_at_s: float | None) -> str:
    if expires_at_s is None:
        return "no end known"
    try:
        moment = datetime.datetime.fromtimestamp(expires_at_s).astimezone()
    except (ValueError, OverflowError, OSError):
        return "an end that no calendar knows"
    return f"{'expired' if expires_at_s < time.time() else 'good until'} {moment:%Y-%m-%d %H:%M %Z}"
