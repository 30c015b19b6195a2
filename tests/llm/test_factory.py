from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flowcraft.core.errors import UsageError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider, LLMMessage, LLMResponse
from flowcraft.llm.factory import BUILT_IN, LLMProviderFactory, ProviderNames


class Echo(BaseLLMProvider):
    provider_name = "echo"

    def chat_completion(self, messages: Sequence[LLMMessage], **params: Any) -> LLMResponse:
        return LLMResponse(content=messages[-1].content)


@pytest.fixture
def registered() -> Iterator[None]:
    LLMProviderFactory.register_provider("echo", Echo)
    yield
    LLMProviderFactory.unregister_provider("echo")


def config(provider: str) -> ModelSettings:
    return ModelSettings(name="m", provider=provider, model="m")


@pytest.mark.usefixtures("registered")
def test_a_registered_provider_is_made_with_its_settings() -> None:
    provider = LLMProviderFactory.create(config("echo"))

    assert isinstance(provider, Echo)
    assert provider.config == config("echo")


@pytest.mark.usefixtures("registered")
def test_a_registered_provider_is_available() -> None:
    assert "echo" in LLMProviderFactory.available()
    assert "echo" in ProviderNames()


def test_a_provider_without_settings_can_be_registered() -> None:
    class Bare(Echo):
        def __init__(self) -> None:
            super().__init__()

    LLMProviderFactory.register_provider("bare", Bare)
    try:
        assert isinstance(LLMProviderFactory.create(config("bare")), Bare)
    finally:
        LLMProviderFactory.unregister_provider("bare")


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_provider_loads_under_its_name(name: str) -> None:
    assert LLMProviderFactory.provider_class(name).provider_name == name


def test_an_unknown_provider_has_a_hint() -> None:
    with pytest.raises(UsageError, match="no provider 'opnai'") as caught:
        LLMProviderFactory.create(config("opnai"))

    assert caught.value.hint == "did you mean 'openai'?"


def test_built_in_names_cannot_be_taken() -> None:
    with pytest.raises(UsageError, match="built-in"):
        LLMProviderFactory.register_provider("openai", Echo)


def test_only_provider_classes_can_be_registered() -> None:
    with pytest.raises(UsageError, match="no provider"):
        LLMProviderFactory.register_provider("text", str)  # type: ignore[arg-type]
