"""Which model answers: a pure function of settings, stage and what the user named; it never calls anything.

`--model` > the stage's `model:` > `defaults.model` > `llm.expensive_stages` matches > cheap.
No clock, no network, no guessing from the text of a prompt.
"""

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from flowcraft.core.catalogue import known_names, name_hint, resolve
from flowcraft.core.errors import SettingsError, UsageError
from flowcraft.core.problems import Problem
from flowcraft.core.values import ModelSettings, Origin, Settings
from flowcraft.llm.factory import ProviderNames

CHEAP, EXPENSIVE = "cheap", "expensive"


class Named(NamedTuple):
    """A model that somebody named: who (`--model`, `stage`, `defaults`, `argument`) and where."""

    name: str
    cause: str = "argument"
    origin: Origin = Origin("argument")


class Choice(NamedTuple):
    """The chosen model, why, and what may stand in when it is down (same tier, left to right).

    `tier` is cheap, expensive or None for a model named outside both tiers.
    """

    model: ModelSettings
    tier: str | None
    cause: str
    origin: Origin
    stage: str | None = None
    fallbacks: tuple[ModelSettings, ...] = ()

    @property
    def because(self) -> str:
        """The cause as a person would say it, with its place."""
        return f"{_CAUSES[self.cause]} ({self.origin})"

    def info(self) -> dict[str, Any]:
        """The choice as plain data, for scripts and reports."""
        return {
            "provider": self.model.provider,
            "model": self.model.model,
            "type": self.tier,
            "cause": self.cause,
            "source": str(self.origin),
            "name": self.model.name,
            "stage": self.stage,
            "fallbacks": [model.name for model in self.fallbacks],
        }


_CAUSES = {
    "--model": "named by --model",
    "argument": "named in the call",
    "stage": "named by the stage",
    "defaults": "named by the pipeline's defaults",
    "expensive_stages": "the stage matches llm.expensive_stages",
    "default": "the cheap model is the default",
}


def choose(
    settings: Settings, providers: Collection[str], *, stage: str | None = None, named: Named | None = None
) -> Choice:
    """The model for `stage`; `providers` are the names of registered providers.

    Raises SettingsError, with place and nearest name, for a model that nobody knows.
    """
    if named is not None and named.name not in (CHEAP, EXPENSIVE):
        return _by_name(settings, providers, stage, named)
    if named is not None:
        return _of_tier(settings, providers, stage, named.name, named.cause, named.origin)
    rule = _matching_rule(settings, stage)
    if rule is not None:
        return _of_tier(settings, providers, stage, EXPENSIVE, "expensive_stages", rule)
    return _of_tier(settings, providers, stage, CHEAP, "default", settings.origin("llm.cheap_model"))


def _matching_rule(settings: Settings, stage: str | None) -> Origin | None:
    for index, pattern in enumerate(settings.llm.expensive_stages):
        if stage is not None and fnmatchcase(stage, pattern):
            key = "llm.expensive_stages"
            return settings.origins.get(f"{key}[{index}]") or settings.origin(key)
    return None


def _of_tier(
    settings: Settings, providers: Collection[str], stage: str | None, tier: str, cause: str, origin: Origin
) -> Choice:
    names = settings.llm.cheap_models if tier == CHEAP else settings.llm.expensive_models
    place = settings.origin(f"llm.{tier}_model")
    models = tuple([_known(settings, providers, name, place) for name in names])
    return Choice(model=models[0], tier=tier, cause=cause, origin=origin, stage=stage, fallbacks=models[1:])


def _by_name(settings: Settings, providers: Collection[str], stage: str | None, named: Named) -> Choice:
    model = _known(settings, providers, named.name, named.origin)
    llm = settings.llm
    tier = CHEAP if named.name in llm.cheap_models else EXPENSIVE if named.name in llm.expensive_models else None
    return Choice(model=model, tier=tier, cause=named.cause, origin=named.origin, stage=stage)


def _known(settings: Settings, providers: Collection[str], name: str, place: Origin) -> ModelSettings:
    model = resolve(name, settings, providers)
    if model is not None:
        return model
    hint = name_hint(name, settings, providers)
    if not place.line:
        raise UsageError(f"unknown model '{name}'", hint=hint)
    problem = Problem(
        file=place.file,
        line=place.line,
        column=place.column,
        code="FC129",
        message=f"unknown model '{name}'",
        hint=hint,
    )
    raise SettingsError([problem])


class KnownModels(Collection[str]):
    """Every name that a stage's `model:` may have under these settings, the tiers among them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._providers = ProviderNames()

    def __contains__(self, name: object) -> bool:
        if name in (CHEAP, EXPENSIVE):
            return True
        return isinstance(name, str) and resolve(name, self._settings, self._providers) is not None

    def __iter__(self) -> Iterator[str]:
        return iter((CHEAP, EXPENSIVE, *known_names(self._settings, self._providers)))

    def __len__(self) -> int:
        return sum(1 for _ in self)
