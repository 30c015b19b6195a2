"""What a model's name means: the settings' own models, the built-in ones, providers, `provider/model`.

Knows three models only; all others are data of the user. Opens nothing and calls nobody.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from decimal import Decimal

from flowcraft.core.problems import Problem, did_you_mean, nearest
from flowcraft.core.values import LLMSettings, ModelSettings, Origin, Prices, Settings

QWEN, KIRO, EMBEDDED = "qwen3-coder-plus", "kiro-cli", "embedded"

CATALOGUE = {
    # Limits as the vendor documents them; its prices depend on region and plan, so there are none here.
    QWEN: ModelSettings(
        name=QWEN, provider="qwen-code", model=QWEN, context=1_000_000, max_tokens=65_536, vision=False
    ),
    KIRO: ModelSettings(name=KIRO, provider="kiro-cli", model=KIRO),
    EMBEDDED: ModelSettings(
        name=EMBEDDED,
        provider="embedded",
        model=EMBEDDED,
        context=4096,
        vision=False,
        prices=Prices(input=Decimal(0), output=Decimal(0)),
    ),
}

# What a provider's name alone does not say: which of a service's models, and which program or file.
_SERVICES = frozenset({"anthropic", "openai"})
_DESCRIBED = frozenset({"acp", "command", "replay"})


def resolve(name: str, settings: Settings, providers: Collection[str]) -> ModelSettings | None:
    """The model that `name` means, None if nobody knows it; `providers` are the registered names."""
    llm = settings.llm
    if name in llm.models:
        return llm.models[name]
    if name in CATALOGUE:
        return completed(CATALOGUE[name], llm)
    provider, slash, model = name.partition("/")
    if provider in _DESCRIBED or provider not in providers:
        return None
    if not slash and name not in _SERVICES:
        return completed(ModelSettings(name=name, provider=name, model=""), llm)
    if model:
        return completed(ModelSettings(name=name, provider=provider, model=model), llm)
    return None


def completed(model: ModelSettings, llm: LLMSettings) -> ModelSettings:
    """The model with what it takes over from the rest of the settings."""
    options = dict(model.options)
    if model.provider == "qwen-code":
        options.setdefault("oauth_path", str(llm.qwen_oauth_path))
    return replace(model, prices=model.prices or llm.prices.get(model.name), timeouts=llm.timeouts, options=options)


def known_models(settings: Settings) -> list[ModelSettings]:
    """The models of the settings and of the catalogue, by name."""
    own = settings.llm.models
    built_in = {name: completed(model, settings.llm) for name, model in CATALOGUE.items()}
    return [model for _, model in sorted({**built_in, **own}.items())]


def known_names(settings: Settings, providers: Collection[str]) -> tuple[str, ...]:
    """Every name that can be used as it is, sorted; `provider/model` goes beyond them."""
    alone = {*providers} - _SERVICES - _DESCRIBED
    return tuple(sorted({*settings.llm.models, *CATALOGUE, *alone}))


def name_hint(name: str, settings: Settings, providers: Collection[str]) -> str:
    """What to write instead of a name that means no model."""
    provider, slash, model = name.partition("/")
    if provider in _DESCRIBED:
        return f"describe it in llm.models: '{provider}' alone does not say what to start"
    if provider in _SERVICES:
        return f"'{provider}' serves many models, name one of them, too: {provider}/MODEL"
    names = known_names(settings, providers)
    near = nearest(provider, providers) if slash else nearest(name, names)
    if near:
        return f"did you mean '{near}{slash}{model}'?"
    listed = did_you_mean(name, names) or "`flowcraft models` lists those that are known"
    return f"{listed}; any other with its provider: openai/{model or name}"


def check_models(settings: Settings, providers: Collection[str]) -> list[Problem]:
    """FC129 for each name in the tiers that nobody knows, and each model whose provider is unknown."""
    problems = [
        _problem(origin, f"unknown model '{name}'", name_hint(name, settings, providers))
        for name, origin in _tiers(settings)
        if resolve(name, settings, providers) is None
    ]
    for name, model in settings.llm.models.items():
        if model.provider not in providers and model.provider != getattr(CATALOGUE.get(name), "provider", None):
            origin = settings.origins.get(f"llm.models.{name}.provider", model.origin)
            hint = did_you_mean(model.provider, providers)
            problems.append(_problem(origin, f"model '{name}': there is no provider '{model.provider}'", hint))
    return problems


def _tiers(settings: Settings) -> Iterator[tuple[str, Origin]]:
    for key, names in (("cheap", settings.llm.cheap_models), ("expensive", settings.llm.expensive_models)):
        for index, name in enumerate(names):
            whole = settings.origin(f"llm.{key}_model")
            yield name, settings.origins.get(f"llm.{key}_model[{index}]", whole)


def _problem(origin: Origin, message: str, hint: str | None) -> Problem:
    return Problem(file=origin.file, line=origin.line, column=origin.column, code="FC129", message=message, hint=hint)
