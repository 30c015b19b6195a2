from dataclasses import replace
from pathlib import Path

import pytest

from flowcraft.core.errors import SettingsError, UsageError
from flowcraft.core.values import LLMSettings, ModelSettings, Origin, Settings
from flowcraft.llm.routing import KnownModels, Named, choose

PROVIDERS = ("openai",)
LINE = Origin("settings.yaml", 6, 5)


def model(name: str) -> ModelSettings:
    return ModelSettings(name=name, provider="openai", model=f"vendor-{name}")


SETTINGS = Settings(
    llm=LLMSettings(
        cheap_models=("small", "spare"),
        expensive_models=("large",),
        expensive_stages=("security_review", "*_design"),
        qwen_oauth_path=Path("oauth_creds.json"),
        models={name: model(name) for name in ("small", "spare", "large", "other")},
    ),
    origins={"llm.expensive_stages": LINE, "llm.cheap_model": Origin("settings.yaml", 3, 3)},
)


@pytest.mark.parametrize(
    ("stage", "name", "tier", "cause"),
    [
        (None, "small", "cheap", "default"),
        ("coding", "small", "cheap", "default"),
        ("security_review", "large", "expensive", "expensive_stages"),
        ("architecture_design", "large", "expensive", "expensive_stages"),
        ("Security_Review", "small", "cheap", "default"),
        ("security_review_2", "small", "cheap", "default"),
    ],
)
def test_settings_choose_by_the_id_of_the_stage(stage: str | None, name: str, tier: str, cause: str) -> None:
    choice = choose(SETTINGS, PROVIDERS, stage=stage)

    assert (choice.model.name, choice.tier, choice.cause) == (name, tier, cause)


@pytest.mark.parametrize(("named", "name", "tier"), [("cheap", "small", "cheap"), ("expensive", "large", "expensive")])
def test_a_named_tier_wins_over_the_settings(named: str, name: str, tier: str) -> None:
    choice = choose(SETTINGS, PROVIDERS, stage="security_review", named=Named(named, "stage", LINE))

    assert (choice.model.name, choice.tier, choice.cause, choice.origin) == (name, tier, "stage", LINE)


def test_a_model_of_no_tier_has_none() -> None:
    choice = choose(SETTINGS, PROVIDERS, named=Named("other"))

    assert (choice.model.model, choice.tier, choice.fallbacks) == ("vendor-other", None, ())


def test_a_tier_with_several_models_falls_back_inside_the_tier() -> None:
    assert [m.name for m in choose(SETTINGS, PROVIDERS).fallbacks] == ["spare"]


def test_provider_and_model_can_be_named_directly() -> None:
    choice = choose(SETTINGS, PROVIDERS, named=Named("openai/gpt-9"))

    assert (choice.model.provider, choice.model.model) == ("openai", "gpt-9")


def test_a_choice_says_why_and_where() -> None:
    assert choose(SETTINGS, PROVIDERS, stage="security_review").because == (
        "the stage matches llm.expensive_stages (settings.yaml:6)"
    )


def test_an_unknown_name_of_the_command_line_has_a_hint() -> None:
    with pytest.raises(UsageError, match="unknown model 'smal'") as caught:
        choose(SETTINGS, PROVIDERS, named=Named("smal"))

    assert caught.value.hint == "did you mean 'small'?"


def test_an_unknown_name_in_the_settings_has_its_place() -> None:
    settings = replace(SETTINGS, llm=replace(SETTINGS.llm, cheap_models=("smal",)))

    with pytest.raises(SettingsError) as caught:
        choose(settings, PROVIDERS)

    [problem] = caught.value.problems
    assert (problem.place, problem.code) == ("settings.yaml:3:3", "FC129")


def test_info_is_plain_data() -> None:
    info = choose(SETTINGS, PROVIDERS, stage="coding").info()

    assert info["provider"] == "openai"
    assert info["model"] == "vendor-small"
    assert info["type"] == "cheap"
    assert info["cause"] == "default"
    assert info["source"] == "settings.yaml:3"


def test_known_models_are_tiers_names_and_provider_paths() -> None:
    known = KnownModels(SETTINGS)

    assert "cheap" in known
    assert "large" in known
    assert "openai/anything" in known
    assert "larg" not in known
    assert "large" in set(known)
