"""What the names of models mean."""

from pathlib import Path

import pytest

from flowcraft.core.catalogue import check_models, known_models, known_names, resolve
from flowcraft.core.settings import SettingsManager
from flowcraft.core.values import ModelSettings, Settings

PROVIDERS = ("acp", "openai", "qwen-code", "kiro-cli", "embedded", "mine", "fast")


def settings(text: str) -> Settings:
    path = Path("settings.yaml")
    path.write_text(text)
    return SettingsManager(path).settings


def resolved(name: str, text: str = "") -> ModelSettings | None:
    return resolve(name, settings(text), PROVIDERS)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("qwen3-coder-plus", "qwen-code", "qwen3-coder-plus"),
        ("kiro-cli", "kiro-cli", "kiro-cli"),
        ("embedded", "embedded", "embedded"),
        ("mine", "mine", ""),
        ("openai/gpt-5", "openai", "gpt-5"),
        ("openai/org/model:tag", "openai", "org/model:tag"),
    ],
)
def test_names_that_need_no_settings(name: str, provider: str, model: str) -> None:
    found = resolved(name)

    assert found is not None
    assert (found.name, found.provider, found.model) == (name, provider, model)


@pytest.mark.parametrize(
    "name", ["nothing", "", "/", "openai/", "/gpt", "nobody/gpt", "Embedded", "openai", "acp", "acp/gpt"]
)
def test_other_names_mean_nothing(name: str) -> None:
    assert resolved(name) is None


def test_models_of_the_settings_come_first_then_the_catalogue_then_providers() -> None:
    own = "llm: {models: {fast: {provider: mine}, embedded: {path: x.gguf}}}"

    assert [getattr(resolved(name, own), "provider", None) for name in ("fast", "embedded")] == ["mine", "embedded"]
    assert getattr(resolved("embedded", own), "options", {}).keys() == {"path"}


def test_limits_and_prices_of_the_settings_reach_every_model() -> None:
    text = "llm: {timeouts: {total: 7}, prices: {override: {openai/x: {input: 1, output: 2}}}, qwen_oauth_path: /c}"

    models = [resolved(name, text) for name in ("embedded", "mine", "openai/x", "qwen3-coder-plus")]

    assert [model.timeouts.total for model in models if model] == [7, 7, 7, 7]
    assert models[2] is not None
    assert models[2].prices is not None
    assert models[3] is not None
    assert models[3].options == {"oauth_path": "/c"}


def test_the_embedded_model_costs_nothing_and_unknown_prices_are_not_zero() -> None:
    embedded, qwen = resolved("embedded"), resolved("qwen3-coder-plus")

    assert embedded is not None
    assert embedded.prices is not None
    assert embedded.prices.input == embedded.prices.output == 0
    assert embedded.context == 4096
    assert qwen is not None
    assert qwen.prices is None
    assert (qwen.context, qwen.max_tokens) == (1_000_000, 65_536)


def test_known_names_and_models_are_sorted_and_without_repetition() -> None:
    found = settings("llm: {models: {zeta: {provider: mine}, embedded: {path: x}}}")

    assert known_names(found, PROVIDERS) == (
        *("embedded", "fast", "kiro-cli", "mine", "qwen-code", "qwen3-coder-plus", "zeta"),
    )
    assert [model.name for model in known_models(found)] == ["embedded", "kiro-cli", "qwen3-coder-plus", "zeta"]


def test_unknown_names_of_tiers_are_found_with_place_and_nearest() -> None:
    found = settings("llm:\n  cheap_model: [embedded, embeded]\n  expensive_model: kiro\n")

    assert [(p.file, p.line, p.column, p.code, p.hint) for p in check_models(found, PROVIDERS)] == [
        ("settings.yaml", 2, 27, "FC129", "did you mean 'embedded'?"),
        ("settings.yaml", 3, 20, "FC129", "did you mean 'kiro-cli'?"),
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("openai", "'openai' serves many models, name one of them, too: openai/MODEL"),
        ("acp", "describe it in llm.models: 'acp' alone does not say what to start"),
        ("acp/qwen", "describe it in llm.models: 'acp' alone does not say what to start"),
        ("embeded", "did you mean 'embedded'?"),
        ("opnai/gpt", "did you mean 'openai/gpt'?"),
        (
            "gpt-5-mini",
            "known: embedded, fast, kiro-cli, mine, qwen-code, qwen3-coder-plus; "
            "any other with its provider: openai/gpt-5-mini",
        ),
    ],
)
def test_a_name_that_means_no_model_comes_with_the_way_to_name_one(name: str, hint: str) -> None:
    [problem] = check_models(settings(f"llm: {{cheap_model: {name}, expensive_model: embedded}}"), PROVIDERS)

    assert (problem.message, problem.hint) == (f"unknown model '{name}'", hint)


def test_unknown_providers_of_models_are_found() -> None:
    found = settings("llm:\n  models:\n    m: {model: x, provider: opnai}\n    embedded: {path: x}\n")

    [problem] = check_models(found, PROVIDERS)

    assert (problem.line, problem.column, problem.hint) == (3, 29, "did you mean 'openai'?")
    assert "opnai" in problem.message


def test_good_names_make_no_problem() -> None:
    assert check_models(SettingsManager().settings, PROVIDERS) == []
