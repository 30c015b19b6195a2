"""The settings: which file, what it says, and where each setting comes from.

Looked up in this order: the argument, $FLOWCRAFT_SETTINGS, ./settings.yaml, ~/.flowcraft/settings.yaml.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from flowcraft.core.catalogue import EMBEDDED
from flowcraft.core.document import shown
from flowcraft.core.errors import SettingsError
from flowcraft.core.masking import Unshown
from flowcraft.core.problems import Problem
from flowcraft.core.reading.secrets import masked
from flowcraft.core.settings_file import EXPENSIVE_STAGES, FIELDS, expanded, read
from flowcraft.core.values import LLMSettings, ModelSettings, Origin, Settings

VARIABLE = "FLOWCRAFT_SETTINGS"
FILE = "settings.yaml"
NOTICE = "no settings file: both tiers use the small embedded model; `flowcraft init` writes a settings.yaml"

_TIMES = ("connect", "first_event", "idle", "total")


class SettingsManager:
    """Finds and reads the settings once; `.settings` is frozen.

    `path` names a file, otherwise the usual places are looked at. `env` and `cwd` are this process's
    by default. `.notice` is a line to show when no file was found, `.warnings` are problems that stop
    nobody. Raises SettingsError with all problems of the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        env: Mapping[str, str] = os.environ,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        env = Unshown(env)
        home = Path(env.get("HOME") or os.path.expanduser("~"))
        folder = Path.cwd() if cwd is None else Path(cwd)
        self.path = _found(path, env, home, folder)
        self.notice: str | None = None if self.path else NOTICE
        self.warnings: tuple[Problem, ...] = ()
        oauth_path, oauth_origin = _default_oauth_path(env, home, folder)
        if self.path is None:
            settings = _without_file(oauth_path)
        else:
            settings, self.warnings = read(self.path, home, oauth_path)
        self.settings = replace(settings, origins={"llm.qwen_oauth_path": oauth_origin, **settings.origins})


def describe(settings: Settings) -> list[tuple[str, Any, str]]:
    """Each setting in force as (dotted key, value, where it comes from); never with a secret.

    A value is plain data: a list of texts, a number, true or false, or text.
    """
    llm = settings.llm
    rows: dict[str, Any] = {
        "llm.cheap_model": llm.cheap_models if len(llm.cheap_models) > 1 else llm.cheap_model,
        "llm.expensive_model": llm.expensive_models if len(llm.expensive_models) > 1 else llm.expensive_model,
        "llm.expensive_stages": llm.expensive_stages,
        "llm.qwen_oauth_path": llm.qwen_oauth_path,
        "llm.retries": llm.retries,
        "llm.telemetry": llm.telemetry,
    }
    for name in _TIMES:
        rows[f"llm.timeouts.{name}"] = getattr(llm.timeouts, name)
    rows |= {f"llm.budget.{name}": limit for name, limit in llm.budget.items()}
    rows |= {"llm.budget.on_exceed": llm.on_exceed} if llm.budget else {}
    rows |= {f"llm.prices.override.{name}": f"{price.input}/{price.output}" for name, price in llm.prices.items()}
    for model in llm.models.values():
        rows |= {f"llm.models.{model.name}.{key}": value for key, value in _model_rows(model).items()}
    if settings.jobs is not None:
        rows["jobs"] = settings.jobs
    return [(key, _plain(value, key.rpartition(".")[2]), str(settings.origin(key))) for key, value in rows.items()]


def _model_rows(model: ModelSettings) -> dict[str, Any]:
    rows = {key: getattr(model, key) for key in FIELDS}
    if model.prices:
        rows["prices"] = f"{model.prices.input}/{model.prices.output}"
    rows |= {f"params.{key}": value for key, value in model.params.items()} | dict(model.options)
    rows |= {f"timeouts.{name}": getattr(model.timeouts, name) for name in _TIMES}
    return {key: value for key, value in rows.items() if value not in (None, "")}


def _plain(value: Any, before: str) -> Any:
    """The value as plain data, without what looks like a secret by itself or by the name or option `before` it."""
    if isinstance(value, (tuple, list)):
        return [_plain(part, name) for name, part in zip((before, *value), value, strict=False)]
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (bool, int, float)):
        return value
    start = f"{before} " if str(before).startswith("-") else f"{before}: "
    return masked(f"{start}{value}")[len(start) :]


def _found(path: str | os.PathLike[str] | None, env: Mapping[str, str], home: Path, folder: Path) -> Path | None:
    if path is not None:
        return folder / expanded(os.fspath(path), home)
    if env.get(VARIABLE):
        named = folder / expanded(env[VARIABLE], home)
        if not named.exists():
            message = f"no file {shown(named)}, which ${VARIABLE} names"
            raise SettingsError([Problem(file=shown(named), code="FC005", message=message)])
        return named
    usual = (folder / FILE, home / ".flowcraft" / FILE)
    return next((place for place in usual if os.path.lexists(place)), None)


def _default_oauth_path(env: Mapping[str, str], home: Path, folder: Path) -> tuple[Path, Origin]:
    """The credential file of the Qwen Code CLI, where that program itself would look for it."""
    named = env.get("QWEN_HOME")
    place = folder / expanded(named, home) if named else home / ".qwen"
    return place / "oauth_creds.json", Origin("$QWEN_HOME") if named else Origin()


def _without_file(oauth_path: Path) -> Settings:
    llm = LLMSettings(
        cheap_models=(EMBEDDED,),
        expensive_models=(EMBEDDED,),
        expensive_stages=EXPENSIVE_STAGES,
        qwen_oauth_path=oauth_path,
    )
    return Settings(llm=llm)
