"""Is this Kiro CLI, can it be used, and what does it understand: asked of the program itself, with limits."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from flowcraft.core.errors import AuthError, DeadlineError, ProcessError, ProviderError, TransportError
from flowcraft.core.programs.process import Completed, run
from flowcraft.core.scope import Scope
from flowcraft.llm.agents.failures import failure, kind_of
from flowcraft.llm.agents.presets import PRESETS
from flowcraft.llm.agents.terminal import plain

NAME = "kiro-cli"
OLDEST = (1, 26, 0)  # the oldest version that is known to speak ACP
VERSION_S, HELP_S, WHOAMI_S = 5.0, 10.0, 10.0
_VERSION = re.compile(r"^kiro-cli (?:v)?(\d+)\.(\d+)\.(\d+)\b", re.MULTILINE)
_FLAGS = ("--agent-engine", "--output-format", "--wrap", "--effort")


@dataclass(frozen=True, slots=True)
class Kiro:
    """A Kiro CLI that can be used: its path, and the flags of `chat` that it offers."""

    path: str
    flags: frozenset[str]


def find(env: Mapping[str, str], given: str | None = None) -> str | None:
    """The path of the program: the given one, else in PATH, else where its installer puts it."""
    home = env.get("HOME", "")
    places = [given] if given else [NAME, os.path.join(home, ".local", "bin", NAME)]
    return next((found for place in places if (found := which(place, path=env.get("PATH")))), None)


def credential_missing(env: Mapping[str, str], platform: str = sys.platform) -> str | None:
    """Why nobody can be logged in: there is neither a key nor a credential store. Reads nothing of either."""
    if env.get("KIRO_API_KEY", "").strip():
        return None
    home = Path(env.get("HOME", "/"))
    data = home / "Library/Application Support" if platform == "darwin" else home / ".local/share"
    if platform != "darwin" and env.get("XDG_DATA_HOME"):
        data = Path(env["XDG_DATA_HOME"])
    store = data / NAME / "data.sqlite3"
    return None if store.exists() else f"nobody is logged in to {NAME} (no KIRO_API_KEY, and no {store})"


def check(path: str, env: Mapping[str, str], cwd: str, scope: Scope) -> Kiro:
    """Make sure that `path` is Kiro CLI and somebody is logged in, and see what it offers; raises ProviderError.

    In this order: without a login even `chat --help` may start one and wait.
    """
    check_version(path, env, cwd, scope)
    check_login(path, env, cwd, scope)
    shown = _ask([path, "chat", "--help"], env, cwd, scope, HELP_S)
    text = (shown.stdout + shown.stderr).decode("utf-8", "replace")
    return Kiro(path, frozenset(flag for flag in _FLAGS if re.search(rf"{flag}\b", text)))


def check_version(path: str, env: Mapping[str, str], cwd: str, scope: Scope) -> None:
    """Make sure that `path` is Kiro CLI, and new enough; raises TransportError."""
    asked = _ask([path, "--version"], env, cwd, scope, VERSION_S)
    found = _VERSION.search(plain(asked.stdout.decode("utf-8", "replace")))
    if asked.returncode != 0 or found is None:
        raise TransportError(
            f"'{path}' is not Kiro CLI: `--version` does not answer with a version of it",
            sent=False,
            hint=f"{PRESETS['kiro'].install}; name the right program in `command`",
        )
    version = (int(found[1]), int(found[2]), int(found[3]))
    if version < OLDEST:
        raise TransportError(
            f"'{path}' is {found[0]}; at least version {'.'.join(map(str, OLDEST))} is needed",
            sent=False,
            hint=f"run `{NAME} update`; if that fails, this is another program: {PRESETS['kiro'].install}",
        )


def check_login(path: str, env: Mapping[str, str], cwd: str, scope: Scope, *, limit_s: float = WHOAMI_S) -> None:
    """Make sure that somebody is logged in, without ever waiting for it; raises AuthError.

    Without a credential most commands start a login and block for ever, so `whoami` has a limit.
    """
    missing = credential_missing(env)
    if missing:
        raise _not_logged_in(missing)
    try:
        asked = run([path, "whoami"], env=env, cwd=cwd, scope=scope, timeout_s=limit_s)
    except ProcessError as error:
        _check_time(scope)
        raise _not_logged_in(f"{NAME} whoami: {error.message}") from error
    said = plain((asked.stdout + asked.stderr).decode("utf-8", "replace")).strip()
    if asked.returncode != 0 or "not logged in" in said.lower():
        kind = kind_of(said)
        if kind and not issubclass(kind.error, AuthError):
            raise failure(NAME, said, sent=False)
        raise _not_logged_in(f"{NAME} whoami: {said.splitlines()[0][:200] if said else 'nobody is logged in'}")


def _not_logged_in(message: str) -> ProviderError:
    return AuthError(message, sent=False, hint=PRESETS["kiro"].login)


def _ask(argv: Sequence[str], env: Mapping[str, str], cwd: str, scope: Scope, timeout_s: float) -> Completed:
    try:
        return run(argv, env=env, cwd=cwd, scope=scope, timeout_s=timeout_s)
    except ProcessError as error:
        _check_time(scope)
        hint = PRESETS["kiro"].install if error.returncode is None else "run it by hand to see what is wrong"
        raise TransportError(error.message, sent=False, hint=hint) from error


def _check_time(scope: Scope) -> None:
    if scope.expired:
        raise DeadlineError(f"{NAME} was not ready within the time limit", sent=False, hint="raise llm.timeouts.total")
