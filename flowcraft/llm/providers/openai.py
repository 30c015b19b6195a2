"""Any service that speaks OpenAI's chat completions, at any `base_url`, with an API key from the environment.

The format and the wire are in `llm.formats`; here is only where to send and which key to show.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta
from flowcraft.llm.formats.api_key import ApiKey
from flowcraft.llm.formats.chat import Chat, Target

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"


class OpenAIProvider(BaseLLMProvider):
    """OpenAI, or whoever answers at `config.base_url` in its format.

    The key is `api_key`, else the environment variable that `config.api_key_env` names. `headers` is
    asked for further secret headers before each call. `keep_alive` False closes the connection after each.
    """

    provider_name: ClassVar[str] = "openai"
    takes_images: ClassVar[bool] = True
    json_schema: ClassVar[bool] = True

    def __init__(
        self,
        config: ModelSettings | None = None,
        *,
        api_key: str | None = None,
        headers: Callable[[], Mapping[str, str]] | None = None,
        keep_alive: bool = True,
        direct: bool = False,
    ) -> None:
        super().__init__(config)
        self._base_url = (self.config.base_url or DEFAULT_BASE_URL).rstrip("/")
        variable = self.config.api_key_env
        if variable is None and self._base_url == DEFAULT_BASE_URL:
            variable = DEFAULT_KEY_VARIABLE
        self._key = ApiKey(variable, self._base_url, given=api_key)
        self._headers = headers
        self._chat = Chat(
            self.provider_name, self.config, auth_hint=self._key.hint, keep_alive=keep_alive, direct=direct
        )

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        """See the base class; nothing is sent before the first delta is asked for."""
        return self._chat.deltas(request, self._target)

    def missing(self) -> str | None:
        """See the base class."""
        return None if self._headers else self._key.missing()

    def close(self) -> None:
        """Close the kept connections; a later call opens new ones."""
        self._chat.close()

    def _target(self) -> Target:
        headers = dict(self._headers()) if self._headers else {}
        key = self._key.value()
        if key:
            headers.setdefault("Authorization", f"Bearer {key}")
        elif not headers:
            self._key.check_keyless()
        return f"{self._base_url}/chat/completions", headers
