"""What Alibaba's model services expect and mean: addresses, keys, headers, shape of a request, refusals.

Model Studio ("DashScope"), its Coding Plan and Token Plan, and the portal of the former OAuth tier. All
speak OpenAI's chat completions with these additions. Facts from qwen-code 0.24.4 and the vendor's docs.
"""

import itertools
import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flowcraft.core.errors import AuthError, ProviderError, QuotaError, RateLimitError
from flowcraft.core.version import VERSION

STUDIO_KEY, CODING_KEY, TOKEN_KEY = "DASHSCOPE_API_KEY", "BAILIAN_CODING_PLAN_API_KEY", "BAILIAN_TOKEN_PLAN_API_KEY"
_CLI_VERSION = "0.24.4"


@dataclass(frozen=True, slots=True)
class Region:
    """A named service: where it is and which variable holds its key."""

    base_url: str
    key_variable: str


REGIONS = {
    "beijing": Region("https://dashscope.aliyuncs.com/compatible-mode/v1", STUDIO_KEY),
    "singapore": Region("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", STUDIO_KEY),
    "virginia": Region("https://dashscope-us.aliyuncs.com/compatible-mode/v1", STUDIO_KEY),
    "hong-kong": Region("https://cn-hongkong.dashscope.aliyuncs.com/compatible-mode/v1", STUDIO_KEY),
    "coding-china": Region("https://coding.dashscope.aliyuncs.com/v1", CODING_KEY),
    "coding-international": Region("https://coding-intl.dashscope.aliyuncs.com/v1", CODING_KEY),
    "token-china": Region("https://token-plan.cn-beijing.maas.aliyuncs.com/compatible-mode/v1", TOKEN_KEY),
    "token-international": Region("https://token-plan.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1", TOKEN_KEY),
}
# A plan is paid already, so its key comes first; the CLI's regions are those of China where none is named.
DEFAULT_REGIONS = {CODING_KEY: "coding-china", TOKEN_KEY: "token-china", STUDIO_KEY: "beijing"}

_OWN_HOSTS = (
    "dashscope.aliyuncs.com",
    "dashscope-intl.aliyuncs.com",
    "dashscope-us.aliyuncs.com",
    "maas.aliyuncs.com",
    "portal.qwen.ai",
)


def is_own_host(base_url: str) -> bool:
    """Whether the vendor's own services are at `base_url`, which alone know the additions."""
    host = urlsplit(base_url).hostname or ""
    return any(host == own or host.endswith(f".{own}") for own in _OWN_HOSTS)


def headers(auth_type: str) -> dict[str, str]:
    """The headers besides Authorization; `auth_type` is `qwen-oauth` or `openai` (an API key)."""
    system, machine = platform.system().lower(), platform.machine().lower()
    place = f"{system}; {'x64' if machine in ('x86_64', 'amd64') else machine}"
    agent = f"QwenCode/{_CLI_VERSION} ({place}) FlowCraft/{VERSION}"
    return {
        "User-Agent": agent,
        "X-DashScope-CacheControl": "enable",
        "X-DashScope-UserAgent": agent,
        "X-DashScope-AuthType": auth_type,
    }


class Session:
    """Names the requests of one provider for the service; thread-safe."""

    def __init__(self) -> None:
        self._id = str(uuid.uuid4())
        self._turns = itertools.count(1)

    def metadata(self) -> dict[str, str]:
        """The `metadata` of the next request."""
        return {"sessionId": self._id, "promptId": f"{self._id}########{next(self._turns)}"}


def shape(body: dict[str, Any], *, needs_system: bool) -> None:
    """Mark what the service is to cache: the system message and, of a stream, the last one.

    The portal (`needs_system`) answers 400 "bad request" if the first message is not a system message
    in parts.
    """
    messages = body["messages"]
    if needs_system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
    marked = [message for message in messages if message["role"] == "system"][:1]
    if body.get("stream") and messages[-1] not in marked:
        marked.append(messages[-1])
    for message in marked:
        content = message["content"]
        *before, last = content if isinstance(content, list) else [{"type": "text", "text": content}]
        if last["type"] == "text":
            message["content"] = [*before, {**last, "cache_control": {"type": "ephemeral"}}]


def meaning(error: ProviderError) -> ProviderError:
    """The error in the light of what these services mean by it; the codes alone are ambiguous."""
    said = error.message.lower()
    for words, verdict in _VERDICTS.items():
        if words in said:
            return _same(verdict, error)
    if error.status == 404:
        error.hint = "check base_url or region: the path before /chat/completions is wrong"
    return error


@dataclass(frozen=True, slots=True)
class _Verdict:
    kind: type[ProviderError]
    what: str
    hint: str
    retryable: bool = False


# In this order: the narrower words first. "insufficient_quota" is both a spent quota and a throttle.
_VERDICTS: Mapping[str, _Verdict] = {
    "free allocated quota exceeded": _Verdict(
        QuotaError,
        "the free quota of today is spent",
        "it is renewed at 00:00 UTC+8; until then use another model, or an API key",
    ),
    "free tier of the model has been exhausted": _Verdict(
        QuotaError,
        "the free quota of this model is spent",
        "turn off 'free quota only' in the console to go on for money, or use another model",
    ),
    "concurrency allocated quota exceeded": _Verdict(
        RateLimitError, "too many requests at the same moment", "use fewer jobs at once", retryable=True
    ),
    "hour allocated quota exceeded": _Verdict(
        QuotaError, "the plan's quota of this period is spent", "wait for the next period, or use another model"
    ),
    "week allocated quota exceeded": _Verdict(
        QuotaError, "the plan's quota of this week is spent", "wait for the next week, or use another model"
    ),
    "month allocated quota exceeded": _Verdict(
        QuotaError, "the plan's quota of this month is spent", "wait for the next month, or use another model"
    ),
    "allocated quota exceeded": _Verdict(
        QuotaError, "the quota of the account is spent", "raise it in the console, or use another model"
    ),
    "check your plan and billing details": _Verdict(
        RateLimitError, "too many tokens in this minute", "wait a minute, or use fewer jobs at once", retryable=True
    ),
    "rate limit exceeded": _Verdict(RateLimitError, "asked too often", "use fewer jobs at once", retryable=True),
    "in arrears": _Verdict(QuotaError, "the account has unpaid bills", "pay them in the console"),
    "arrearage": _Verdict(QuotaError, "the account has unpaid bills", "pay them in the console"),
    "in good standing": _Verdict(QuotaError, "the account has unpaid bills", "pay them in the console"),
    "` is not supported": _Verdict(
        ProviderError, "the service has no such model", "name another one as `model`, such as coder-model"
    ),
    "range of input length": _Verdict(
        ProviderError, "the prompt is longer than the model's context", "send less, or use a model with more context"
    ),
    "invalid api-key": _Verdict(
        AuthError,
        "the key is not one of this service",
        "keys are bound to a region, and Coding Plan keys (sk-sp-...) to the Coding Plan: set `region` of the model",
    ),
    "incorrect api key": _Verdict(
        AuthError,
        "the service does not know the API key",
        "check the variable; keys are bound to a region: set `region` of the model",
    ),
}


def _same(verdict: _Verdict, error: ProviderError) -> ProviderError:
    said = error.message.partition(": ")[2] or error.message  # what the status meant in general is not said as well
    return verdict.kind(
        f"{verdict.what}: {said}",
        provider=error.provider,
        model=error.model,
        status=error.status,
        request_id=error.request_id,
        retryable=verdict.retryable and not error.partial_text,
        sent=error.sent,
        retry_after_s=error.retry_after_s,
        partial_text=error.partial_text,
        hint=verdict.hint,
    )
