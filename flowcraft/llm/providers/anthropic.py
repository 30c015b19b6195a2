"""Anthropic's Messages API, or any service that speaks it, at any `base_url`, with an API key from the environment.

The format and the wire are in `llm.formats`; here is only where to send and which key to show.
"""

from collections.abc import Iterator
from typing import ClassVar

from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta
from flowcraft.llm.formats.anthropic_format import MAX_TOKENS, MESSAGES
from flowcraft.llm.formats.api_key import ApiKey
from flowcraft.llm.formats.chat import Chat, Target

DEFAULT_BASE_URL = "https://api.anthropic.com"
DEFAULT_KEY_VARIABLE = "ANTHROPIC_API_KEY"
VERSION = "2023-06-01"


class AnthropicProvider(BaseLLMProvider):
    """Anthropic, or whoever answers at `config.base_url` (with or without `/v1`) in its format.

    The key is `api_key`, else the environment variable that `config.api_key_env` names.
    """

    provider_name: ClassVar[str] = "anthropic"
    takes_images: ClassVar[bool] = True
    own_max_tokens: ClassVar[int | None] = MAX_TOKENS

    def __init__(
        self, config: ModelSettings | None = None, *, api_key: str | None = None, keep_alive: bool = True
    ) -> None:
        super().__init__(config)
        base_url = (self.config.base_url or DEFAULT_BASE_URL).rstrip("/").removesuffix("/v1")
        variable = self.config.api_key_env
        if variable is None and base_url == DEFAULT_BASE_URL:
            variable = DEFAULT_KEY_VARIABLE
        self._url = f"{base_url}/v1/messages"
        self._key = ApiKey(variable, base_url, given=api_key)
        self._chat = Chat(
            self.provider_name, self.config, auth_hint=self._key.hint, written=MESSAGES, keep_alive=keep_alive
        )

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        """See the base class; nothing is sent before the first delta is asked for."""
        return self._chat.deltas(request, self._target)

    def missing(self) -> str | None:
        """See the base class."""
        return self._key.missing()

    def close(self) -> None:
        """Close the kept connections; a later call opens new ones."""
        self._chat.close()

    def _target(self) -> Target:
        headers = {"anthropic-version": VERSION}
        key = self._key.value()
        if key:
            headers["x-api-key"] = key
        else:
            self._key.check_keyless()
        return self._url, headers
