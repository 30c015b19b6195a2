"""Any service that speaks OpenAI's chat completions, at any `base_url`, with an API key from the environment.

The format and the wire are `llm.chat`; here is only where to send and which key to show.
"""

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from flowcraft.core.errors import AuthError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta
from flowcraft.llm.chat import Chat, Target

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"


class OpenAIProvider(BaseLLMProvider):
    """OpenAI, or whoever answers at `config.base_url` in its format.

    The key is `api_key`, else the environment variable that `config.api_key_env` names. `headers` is
    asked for further secret headers before each call. `keep_alive` False closes the connection after each.
    """

    provider_name: ClassVar[str] = "openai"
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
        self._key_variable = self.config.api_key_env
        if self._key_variable is None and self._base_url == DEFAULT_BASE_URL:
            self._key_variable = DEFAULT_KEY_VARIABLE
        self._api_key = api_key
        self._headers = headers
        self._chat = Chat(
            self.provider_name, self.config, auth_hint=self._how_to_set(), keep_alive=keep_alive, direct=direct
        )

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        """See the base class; nothing is sent before the first delta is asked for."""
        return self._chat.deltas(request, self._target)

    def close(self) -> None:
        """Close the kept connections; a later call opens new ones."""
        self._chat.close()

    def _target(self) -> Target:
        headers = dict(self._headers()) if self._headers else {}
        key = self._key()
        if key:
            headers.setdefault("Authorization", f"Bearer {key}")
        elif not headers and not _may_be_keyless(self._base_url, named=self._key_variable is not None):
            name = self._key_variable
            raise AuthError(
                f"there is no API key: the environment variable {name} is not set" if name else "there is no API key",
                sent=False,
                hint=self._how_to_set(),
            )
        return f"{self._base_url}/chat/completions", headers

    def _key(self) -> str:
        if self._api_key is not None:
            return self._api_key.strip()
        return os.environ.get(self._key_variable, "").strip() if self._key_variable else ""

    def _how_to_set(self) -> str:
        if self._key_variable:
            return f"export {self._key_variable}=... with a valid key of the service"
        return (
            "name the environment variable that holds the key as api_key_env of the model in the settings "
            "(if the service needs none, let it hold any word)"
        )


def _may_be_keyless(base_url: str, *, named: bool) -> bool:
    """Whether a service may be asked without a key: on this machine, or unnamed key on a private network."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not named and "." not in host
    return address.is_loopback or (not named and address.is_private)
