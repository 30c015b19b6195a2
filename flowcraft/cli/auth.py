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

model_option = click.option(
    "--model", "name", default="qwen3-coder-plus", metavar="NAME", help="The qwen-code model, if there are several."
)


@click.group()
def auth() -> None:
    """Sign in and out, and see which credentials are used; no secret is ever shown."""


@auth.command()
@click.argument("service", type=click.Choice(["qwen"]))
@settings_option
@model_option
@click.option("--timeout", type=click.FloatRange(min=1), default=900.0, help="How long to wait for you, in seconds.")
def login(service: str, settings_path: Path | None, name: str, timeout: float) -> None:
    """Sign in to SERVICE (qwen) with a browser, here or on another machine.

    The login is shared with the qwen-code CLI.
    """
    from flowcraft.cli.screen import clean
    from flowcraft.core.scope import Scope
    from flowcraft.llm.oauth.login import existing, save, wait_for_user
    from flowcraft.llm.oauth.wire import oauth_service

    config = _model(settings_path, name)
    path = _path(config)
    existing(path)  # a file that we must not touch is told before anybody opens a browser
    signing_in, scope = oauth_service(config.options.get("oauth_base_url")), Scope(timeout)
    code = signing_in.device_code(Scope(30.0))
    click.echo(f"Open this page and agree:\n\n    {clean(code.url)}\n\nThe code is {clean(code.user_code)}", err=True)
    click.echo("Waiting for you. Ctrl-C stops it and changes nothing.", err=True)
    save(path, wait_for_user(signing_in, code, scope), Scope(60.0))
    click.echo(f"signed in; the login is in {path}")
    click.echo(
        "note: Qwen has ended its free tier for logins on 2026-04-15. If calls are refused, "
        "use an API key (DASHSCOPE_API_KEY or BAILIAN_CODING_PLAN_API_KEY).",
        err=True,
    )


@auth.command()
@settings_option
@model_option
@json_option
def status(settings_path: Path | None, name: str, as_json: bool) -> int:
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
def logout(settings_path: Path | None, name: str, yes: bool) -> None:
    """Delete the Qwen login, for FlowCraft and for the qwen-code CLI."""
    from flowcraft.core.errors import UsageError
    from flowcraft.core.scope import Scope
    from flowcraft.llm.oauth.login import remove

    path = _path(_model(settings_path, name))
    if not os.path.lexists(path):
        raise UsageError(f"not signed in: there is no file {path}")
    if not yes:
        click.confirm(f"Delete {path}? The qwen-code CLI is signed out, too.", abort=True, err=True)
    remove(path, Scope(60.0))
    click.echo(f"signed out; {path} is deleted")


def _model(settings_path: Path | None, name: str) -> "ModelSettings":
    from flowcraft.core.catalogue import resolve
    from flowcraft.core.errors import UsageError
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.factory import ProviderNames

    config = resolve(name, SettingsManager(settings_path).settings, ProviderNames())
    if config is None or config.provider != "qwen-code":
        raise UsageError(f"'{name}' is no qwen-code model", hint="run `flowcraft models` for the known names")
    return config


def _path(config: "ModelSettings") -> Path:
    from flowcraft.llm.oauth.credentials import default_path

    named = config.options.get("oauth_path")
    return Path(os.path.abspath(Path(named).expanduser())) if named else default_path()


def _facts(config: "ModelSettings") -> dict[str, str | None]:
    from flowcraft.llm.providers.qwen import QwenCodeProvider, access

    found, missing = access(config), QwenCodeProvider(config).missing()
    facts = {"model": config.model, "credentials": None, "ready": "no: it needs " + missing if missing else "yes"}
    if found.key_variable:
        return facts | {"credentials": f"API key in ${found.key_variable}", "service": found.base_url}
    assert found.login is not None
    return facts | {"credentials": "login of the qwen-code CLI", "service": found.base_url} | _login_facts(found.login)


def _login_facts(path: Path) -> dict[str, str | None]:
    from flowcraft.core.errors import ProviderError
    from flowcraft.llm.oauth import credentials

    facts: dict[str, str | None] = {"file": str(path)}
    try:
        found = credentials.read(path)
    except ProviderError as error:
        return facts | {"state": error.message, "next": error.hint}
    facts |= {"service": found.resource_url or "the vendor's default", "access token": _until(found.expires_at_s)}
    return facts | {"refresh token": "yes, it is renewed by itself" if found.refresh_token else "none"}


def _until(expires_at_s: float | None) -> str:
    if expires_at_s is None:
        return "no end known"
    try:
        moment = datetime.datetime.fromtimestamp(expires_at_s).astimezone()
    except (ValueError, OverflowError, OSError):
        return "an end that no calendar knows"
    return f"{'expired' if expires_at_s < time.time() else 'good until'} {moment:%Y-%m-%d %H:%M %Z}"
