"""What settings say about an agent, read once for all three providers of agents."""

import os
import shlex
from collections.abc import Mapping, Sequence
from shutil import which
from typing import Any

from flowcraft.core.errors import ProcessError, TransportError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.agents.acp.agent import Agent
from flowcraft.llm.agents.acp.link import Launch
from flowcraft.llm.agents.acp.permissions import FileAccess, Policy
from flowcraft.llm.agents.presets import environment

INSTALL = "install it, or give its full path in `command`"  # of a program that we do not know


def command(config: ModelSettings, otherwise: Sequence[str] = ()) -> tuple[str, ...]:
    """The command line in `command`, a list or a line as for a shell; raises UsageError without any."""
    given = config.options.get("command") or otherwise
    argv = shlex.split(given) if isinstance(given, str) else [str(part) for part in given]
    if not argv:
        raise UsageError(
            f"model '{config.name}' names no program",
            hint="give its command line in `command`, or one of the known agents in `agent`",
        )
    argv[0] = os.path.expanduser(argv[0])
    return tuple(argv)


def variables(config: ModelSettings, own: Sequence[str] = ()) -> dict[str, str]:
    """The environment of a program: what all need, its own variables, and those that `env` names."""
    named = config.options.get("env") or ()
    key = (config.api_key_env,) if config.api_key_env else ()
    return environment([*own, *key, *([named] if isinstance(named, str) else named)])


def folder(config: ModelSettings) -> str | None:
    """The folder in `cwd`, absolute; None for an empty one."""
    given = config.options.get("cwd")
    return os.path.abspath(os.path.expanduser(str(given))) if given else None


def policy(config: ModelSettings) -> Policy:
    """How the agent's wishes are answered; whatever is not clearly allowed is refused."""
    options, root = config.options, folder(config)
    files = FileAccess(root, _globs(options, "reads"), _globs(options, "writes")) if root else FileAccess()
    return Policy("allow" if options.get("permission") == "allow" else "reject", files)


def model_of(config: ModelSettings) -> tuple[str | None, bool]:
    """The agent's model that settings name, and whether it must be that one.

    A name that may only be ours (`my-agent`) is used if the agent knows it, and is no error otherwise.
    """
    if config.model in ("", config.provider, config.options.get("agent")):
        return None, False
    return config.model, config.model != config.name


def not_installed(argv: Sequence[str], env: Mapping[str, str], install: str) -> str | None:
    """What is missing, as the object of "it needs", if the program is not there; None if it is."""
    if which(argv[0], path=env.get("PATH")):
        return None
    return f"the program '{os.path.basename(argv[0])}' ({install})"


def start(launch: Launch, scope: Scope, install: str) -> Agent:
    """Start an agent; raises ProviderError, also where there is no such program."""
    try:
        return Agent(launch, scope)
    except ProcessError as error:
        raise cannot_start(error, install if not_installed(launch.argv, launch.env, install) else None) from error


def cannot_start(error: ProcessError, install: str | None = None) -> TransportError:
    """The error for a program that could not be started: nothing was sent, nothing is tried again."""
    known = install not in (None, INSTALL)
    hint = f"{error.hint}; {install}" if known and error.hint else error.hint or install
    return TransportError(error.message, sent=False, hint=hint)


def _globs(options: Mapping[str, Any], key: str) -> tuple[str, ...]:
    given = options.get(key) or ()
    return (given,) if isinstance(given, str) else tuple(str(glob) for glob in given)
