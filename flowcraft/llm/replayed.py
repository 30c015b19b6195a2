"""An integration whose every answer comes from a recording: no connection, no key, no cost."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from flowcraft.core.settings import SettingsManager
from flowcraft.core.values import ModelSettings, Prices, Settings
from flowcraft.llm.base import BaseLLMProvider
from flowcraft.llm.factory import LLMProviderFactory
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.providers.replay import ReplayProvider
from flowcraft.llm.routing import Choice, Named

_FREE = Prices(input=Decimal(0), output=Decimal(0))


class ReplayedIntegration(LLMIntegration):
    """Chooses models by the settings as ever, and then plays what they had answered."""

    def __init__(self, settings: SettingsManager | Settings, recording: Path) -> None:
        self._recording = recording.resolve()
        self._players: Mapping[str, BaseLLMProvider] = {}
        super().__init__(settings)

    def choose(self, stage_name: str | None = None, model: str | Named | None = None) -> Choice:
        choice = super().choose(stage_name, model)
        return choice._replace(model=replace(choice.model, prices=_FREE), fallbacks=())

    def provider(self, model: ModelSettings) -> BaseLLMProvider:
        if model.name not in self._players:
            player = ReplayProvider(replace(model, options={"path": str(self._recording)}))
            # What a request looks like depends on what the real service can do.
            player.json_schema = LLMProviderFactory.provider_class(model.provider).json_schema  # type: ignore[misc]
            self._players = {**self._players, model.name: player}
        return self._players[model.name]
