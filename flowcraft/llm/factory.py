"""Provider names and the classes behind them.

Looked up in this order: the built-in table, `register_provider`, the entry-point group
`flowcraft.providers` (value `package.module:Class`). A plug-in cannot shadow a built-in name.
Classes are imported when they are first used.
"""

import inspect
import threading
from collections.abc import Collection, Iterator
from importlib import import_module
from typing import ClassVar

from flowcraft.core.errors import FlowcraftError, UsageError
from flowcraft.core.problems import did_you_mean
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider

ENTRY_POINTS = "flowcraft.providers"
_REPAIR = "install or repair the package that brings it"

BUILT_IN = {
    "acp": "flowcraft.llm.providers.acp:AcpProvider",
    "anthropic": "flowcraft.llm.providers.anthropic:AnthropicProvider",
    "command": "flowcraft.llm.providers.command:CommandProvider",
    "embedded": "flowcraft.llm.providers.embedded:EmbeddedProvider",
    "kiro-cli": "flowcraft.llm.providers.kiro:KiroProvider",
    "openai": "flowcraft.llm.providers.openai:OpenAIProvider",
    "qwen-code": "flowcraft.llm.providers.qwen:QwenCodeProvider",
    "replay": "flowcraft.llm.providers.replay:ReplayProvider",
}


class ProviderNames(Collection[str]):
    """The names of all providers; installed packages are only scanned when a name is not known otherwise."""

    def __contains__(self, name: object) -> bool:
        factory = LLMProviderFactory
        return name in BUILT_IN or name in factory._registered or name in factory._installed()  # noqa: SLF001

    def __iter__(self) -> Iterator[str]:
        return iter(LLMProviderFactory.available())

    def __len__(self) -> int:
        return len(LLMProviderFactory.available())


class LLMProviderFactory:
    """The table of providers; class methods only, shared by the whole process, thread-safe."""

    _registered: ClassVar[dict[str, type[BaseLLMProvider]]] = {}
    _plugins: ClassVar[dict[str, str] | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def register_provider(cls, name: str, provider: type[BaseLLMProvider]) -> None:
        """Make `provider` usable under `name`; registering a name again replaces it.

        Raises UsageError for a built-in name or something that is not a provider class.
        """
        if name in BUILT_IN:
            raise UsageError(f"'{name}' is a built-in provider", hint="register it under another name")
        if not (isinstance(provider, type) and issubclass(provider, BaseLLMProvider)):
            raise UsageError(f"{provider!r} is no provider", hint="pass a subclass of BaseLLMProvider")
        with cls._lock:
            cls._registered[name] = provider

    @classmethod
    def unregister_provider(cls, name: str) -> None:
        """Take a registered provider out again; unknown names are ignored."""
        with cls._lock:
            cls._registered.pop(name, None)

    @classmethod
    def available(cls) -> tuple[str, ...]:
        """All provider names, sorted: built in, registered, and of installed packages."""
        return tuple(sorted({*BUILT_IN, *cls._registered, *cls._installed()}))

    @classmethod
    def provider_class(cls, name: str) -> type[BaseLLMProvider]:
        """The class behind `name`; raises UsageError with the nearest name if there is none."""
        if name in cls._registered:
            return cls._registered[name]
        place = BUILT_IN.get(name) or cls._installed().get(name)
        if place is None:
            raise UsageError(f"there is no provider '{name}'", hint=did_you_mean(name, cls.available()))
        module, _, attribute = place.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except Exception as error:  # a module of others may raise anything
            raise UsageError(f"provider '{name}' cannot be loaded from {place}: {error}", hint=_REPAIR) from error
        if not (isinstance(found, type) and issubclass(found, BaseLLMProvider)):
            raise UsageError(f"provider '{name}': {place} is no subclass of BaseLLMProvider", hint=_REPAIR)
        return found

    @classmethod
    def create(cls, config: ModelSettings) -> BaseLLMProvider:
        """A provider for the model `config`; raises UsageError if there is none or it cannot be made."""
        provider = cls.provider_class(config.provider)
        if not provider.provider_name:
            provider.provider_name = config.provider
        try:
            return provider(config) if _takes_config(provider) else provider()
        except FlowcraftError:
            raise
        except Exception as error:
            if is_ours(provider):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(
                f"provider '{config.provider}' cannot be made: {reason}", hint=code_of(provider)
            ) from error

    @classmethod
    def _installed(cls) -> dict[str, str]:
        # Scanning installed packages takes 20 ms and more: done once, and only for unknown names.
        with cls._lock:
            if cls._plugins is None:
                metadata = import_module("importlib.metadata")
                found = metadata.entry_points(group=ENTRY_POINTS)
                cls._plugins = {entry.name: entry.value for entry in found if entry.name not in BUILT_IN}
            return cls._plugins


def is_ours(provider: type[BaseLLMProvider]) -> bool:
    """Whether FlowCraft brings this class: what goes wrong in it unforeseen is a bug, and stays visible as one."""
    return provider.__module__.partition(".")[0] == "flowcraft"


def code_of(provider: type[BaseLLMProvider]) -> str:
    """A hint to whoever has written a provider that fails unforeseen."""
    return f"the mistake is in its own code: {provider.__module__}.{provider.__qualname__}"


def _takes_config(provider: type[BaseLLMProvider]) -> bool:
    # A provider that needs no settings may define `__init__(self)`.
    try:
        inspect.signature(provider).bind(None)
    except TypeError:
        return False
    return True
