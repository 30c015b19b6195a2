"""The provider `qwen-code` against a service in another process: credentials, requests, refusals."""

import logging
from pathlib import Path
from typing import Any

import pytest
from qwen_parts import write
from qwen_service import CANARY, QwenProcess

from flowcraft.core.errors import AuthError, ProviderError, RateLimitError, ReplyError, TransportError, UsageError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import CompletionStream, LLMMessage, LLMResponse
from flowcraft.llm.formats.dashscope import REGIONS, shape
from flowcraft.llm.oauth.credentials import CredentialsError, LoginRequired, NoCredentials
from flowcraft.llm.providers.qwen import QwenCodeProvider, access

HELLO = [LLMMessage("user", "hello")]


@pytest.fixture
def path(workspace: Path) -> Path:
    return workspace / ".qwen" / "oauth_creds.json"


def config(**changes: Any) -> ModelSettings:
    fields = {name: changes.pop(name) for name in ("base_url", "api_key_env", "max_tokens") if name in changes}
    return ModelSettings(name="qwen", provider="qwen-code", model="qwen3-coder-plus", options=changes, **fields)


def signed_in(service: QwenProcess, path: Path, **changes: Any) -> QwenCodeProvider:
    options = {"oauth_path": str(path), "oauth_base_url": service.base_url, "allowed_hosts": ["127.0.0.1"]}
    return QwenCodeProvider(config(**options | changes))


def streamed(provider: QwenCodeProvider, **params: Any) -> tuple[list[str], LLMResponse]:
    stream = provider.stream_completion(HELLO, **params)
    assert isinstance(stream, CompletionStream)
    with stream:
        return list(stream), stream.response


def test_answers_with_reasoning_apart_and_usage(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())

    pieces, answer = streamed(signed_in(service, path))

    assert pieces == ["Hello", ", ", "world"]
    assert (answer.content, answer.reasoning) == ("Hello, world", "think hard")
    assert answer.usage is not None
    assert (answer.usage.cached_tokens, answer.usage.reasoning_tokens, answer.usage.total_tokens) == (12, 3, 27)
    assert signed_in(service, path).chat_completion(HELLO).content == "Hello, world"


def test_carries_what_the_service_expects(service: QwenProcess, path: Path) -> None:
    fields = service.credentials()
    write(path, fields)

    streamed(signed_in(service, path, max_tokens=65_536), temperature=0.5)

    sent = service.chats()[0]
    headers, body = sent["headers"], sent["body"]
    assert headers["authorization"] == f"Bearer {fields['access_token']}"
    assert headers["user-agent"].startswith("QwenCode/0.24.4 (")
    assert "FlowCraft/" in headers["user-agent"]
    assert headers["x-dashscope-useragent"] == headers["user-agent"]
    assert (headers["x-dashscope-cachecontrol"], headers["x-dashscope-authtype"]) == ("enable", "qwen-oauth")
    assert body["stream_options"] == {"include_usage": True}
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("qwen3-coder-plus", 65_536, 0.5)
    assert body["metadata"]["promptId"] == body["metadata"]["sessionId"] + "########1"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]


def test_the_text_behind_an_image_is_marked_for_the_cache() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    text = {"type": "text", "text": "What is it?"}
    body: dict[str, Any] = {"stream": True, "messages": [{"role": "user", "content": [image, text]}]}

    shape(body, needs_system=False)

    assert body["messages"][0]["content"] == [image, {**text, "cache_control": {"type": "ephemeral"}}]


def test_a_stream_that_repeats_itself_is_told_once(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())
    service.script(chat=["cumulative", "repeating"])
    provider = signed_in(service, path)

    pieces, answer = streamed(provider)

    assert "".join(pieces) == answer.content == "Hello, world"
    assert answer.reasoning == "let me see"
    assert streamed(provider)[1].content == "hahahay"


def test_fetches_a_new_token_for_an_expired_one_before_it_asks(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))

    signed_in(service, path).chat_completion(HELLO)

    assert service.counts()["token requests"] == 1
    assert service.counts()["chats"] == 1


@pytest.mark.parametrize("refusal", ["401", "401-in-stream"])
def test_a_refused_token_is_replaced_once_and_the_request_repeated(
    service: QwenProcess, path: Path, refusal: str
) -> None:
    write(path, service.credentials())
    service.script(chat=[refusal])

    assert streamed(signed_in(service, path))[1].content == "Hello, world"
    assert service.counts()["token requests"] == 1
    assert service.counts()["chats"] == 2


def test_a_token_that_has_worked_is_replaced_whenever_it_is_refused(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())
    provider = signed_in(service, path)

    for _ in range(3):
        service.script(chat=["401"])
        assert provider.chat_completion(HELLO).content == "Hello, world"

    assert service.counts()["token requests"] == 3


def test_the_ended_service_is_told_and_never_looped_on(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())
    service.script(chat=["401"] * 50)
    provider = signed_in(service, path)

    for _ in range(10):
        with pytest.raises(AuthError, match="ended its free tier") as ended:
            provider.chat_completion(HELLO)
        assert "DASHSCOPE_API_KEY" in str(ended.value.hint)
        assert not ended.value.retryable

    assert service.counts()["token requests"] == 1
    assert service.counts()["chats"] == 11


@pytest.mark.parametrize("reply", ["403", "403-quota", "429-quota", "429-rate", "500", "bad-model"])
def test_no_token_is_spent_on_other_refusals(service: QwenProcess, path: Path, reply: str) -> None:
    write(path, service.credentials())
    service.script(chat=[reply])

    with pytest.raises(ProviderError):
        signed_in(service, path).chat_completion(HELLO)

    assert service.counts()["token requests"] == 0
    assert service.counts()["chats"] == 1


@pytest.mark.parametrize(
    ("reply", "kind", "retryable", "words"),
    [
        ("403-quota", RateLimitError, False, "free quota of today is spent"),
        ("429-quota", RateLimitError, False, "free quota of today is spent"),
        ("403-free-only", RateLimitError, False, "free quota of this model is spent"),
        ("429-week", RateLimitError, False, "quota of this week is spent"),
        ("429-concurrency", RateLimitError, True, "at the same moment"),
        ("429-throttled", RateLimitError, True, "too many tokens in this minute"),
        ("429-rate", RateLimitError, True, "asked too often"),
        ("429-allocation", RateLimitError, False, "quota of the account is spent"),
        ("arrears", RateLimitError, False, "unpaid bills"),
        ("standing", RateLimitError, False, "unpaid bills"),
        ("403", AuthError, False, "denies access"),
        ("bad-model", ProviderError, False, "has no such model"),
        ("too-long", ProviderError, False, "longer than the model's context"),
        ("500", ProviderError, True, "the service failed"),
        ("404", ProviderError, False, "no such model or address"),
    ],
)
def test_says_what_a_refusal_means(
    service: QwenProcess, path: Path, reply: str, kind: type[ProviderError], retryable: bool, words: str
) -> None:
    write(path, service.credentials())
    service.script(chat=[reply])

    with pytest.raises(kind, match=words) as refused:
        signed_in(service, path).chat_completion(HELLO)

    assert refused.value.retryable is retryable
    assert refused.value.hint
    assert refused.value.status is not None
    for verdict in ("the quota is spent", "asked too often", "the service refused", "the service does not", "denies"):
        assert f": {verdict}" not in refused.value.message, "one verdict, then the words of the service"


@pytest.mark.parametrize(
    ("reply", "kind", "partial", "retryable"),
    [
        ("error-finish", RateLimitError, "part ", False),
        ("error-finish-first", RateLimitError, "", True),
        ("error-in-stream", ProviderError, "so far ", False),
        ("quota-in-stream", RateLimitError, "", False),
        ("cut", TransportError, "half an answ", False),
        ("html", TransportError, "", False),
    ],
)
def test_an_error_inside_an_answer_is_one(
    service: QwenProcess, path: Path, reply: str, kind: type[ProviderError], partial: str, retryable: bool
) -> None:
    write(path, service.credentials())
    service.script(chat=[reply])

    with pytest.raises(kind) as failed:
        streamed(signed_in(service, path))

    assert not isinstance(failed.value, ReplyError)
    assert failed.value.partial_text == partial
    assert failed.value.retryable is retryable


@pytest.mark.parametrize(
    "resource_url", ["https://evil.example\\.portal.qwen.ai", "http://portal.qwen.ai", "https://evil.example"]
)
def test_a_token_does_not_follow_a_hostile_resource_url(
    service: QwenProcess, path: Path, resource_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, service.credentials(resource_url=resource_url))

    # The default service is not on this machine, and the tests let nothing leave it.
    provider = signed_in(service, path, oauth_base_url=None)
    for _ in range(2):
        with pytest.raises(ProviderError, match="dashscope.aliyuncs.com"):
            provider.chat_completion(HELLO, timeout=5)

    assert caplog.text.count("no token may go to") == 1
    assert "allowed_hosts" in caplog.text
    assert service.counts()["chats"] == 0


@pytest.mark.parametrize("resource_url", ["https://qwen.gateway.example", None])
def test_a_token_of_a_private_service_does_not_go_to_the_vendor(
    service: QwenProcess, path: Path, resource_url: str | None
) -> None:
    write(path, service.credentials(resource_url=resource_url))

    with pytest.raises(AuthError, match="no service that its token may go to") as refused:
        signed_in(service, path).chat_completion(HELLO, timeout=5)

    assert (refused.value.sent, refused.value.retryable) == (False, False)
    assert "allowed_hosts" in str(refused.value.hint)
    assert "base_url" in str(refused.value.hint)


def test_loopback_is_reached_only_when_the_settings_say_so(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())

    with pytest.raises(ProviderError, match="dashscope.aliyuncs.com"):
        signed_in(service, path, allowed_hosts=[], oauth_base_url=None).chat_completion(HELLO, timeout=5)

    assert service.counts()["chats"] == 0
    own = signed_in(service, path, allowed_hosts=[], base_url=service.resource_url)
    assert own.chat_completion(HELLO).content == "Hello, world"


def test_no_login_is_told_before_anything_is_sent(service: QwenProcess, path: Path) -> None:
    provider = signed_in(service, path)

    with pytest.raises(NoCredentials, match="not signed in"):
        provider.chat_completion(HELLO)
    assert "not signed in" in str(provider.missing())
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(CredentialsError):
        provider.chat_completion(HELLO)
    assert "not JSON" in str(provider.missing())


def test_a_login_that_is_over_falls_back_as_one(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True, refresh_token=None))

    with pytest.raises(LoginRequired, match="has expired") as over:
        signed_in(service, path).chat_completion(HELLO)

    assert isinstance(over.value, AuthError)
    assert over.value.provider is None or over.value.provider == "qwen-code"


def test_uses_an_api_key_without_any_login(service: QwenProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-test-key")
    provider = QwenCodeProvider(config(base_url=service.resource_url))

    assert provider.chat_completion(HELLO).content == "Hello, world"
    sent = service.chats()[0]
    assert sent["headers"]["authorization"] == "Bearer sk-test-key"
    assert "x-dashscope-authtype" not in sent["headers"]  # a gateway of the user's, not the vendor's
    assert "metadata" not in sent["body"]
    assert sent["body"]["messages"] == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(("reply", "words"), [("401-key", "does not know the API key"), ("403-key", "not one of this")])
def test_a_wrong_key_is_not_taken_for_an_expired_login(
    service: QwenProcess, monkeypatch: pytest.MonkeyPatch, reply: str, words: str
) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-test-key")
    service.script(chat=[reply])

    with pytest.raises(AuthError, match=words) as refused:
        QwenCodeProvider(config(base_url=service.resource_url)).chat_completion(HELLO)

    assert "region" in str(refused.value.hint)
    assert service.counts()["chats"] == 1


def test_a_plan_key_has_the_shape_of_one(service: QwenProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAILIAN_CODING_PLAN_API_KEY", "sk-not-a-plan")

    with pytest.raises(AuthError, match="start with sk-sp-"):
        QwenCodeProvider(config(base_url=service.resource_url)).chat_completion(HELLO)


def test_a_missing_key_is_named() -> None:
    provider = QwenCodeProvider(config(api_key_env="MY_QWEN_KEY"))

    assert provider.missing() == "$MY_QWEN_KEY"
    with pytest.raises(AuthError, match="MY_QWEN_KEY is not set"):
        provider.chat_completion(HELLO)


@pytest.mark.parametrize("region", REGIONS)
def test_every_region_has_its_address_and_variable(region: str) -> None:
    found = access(config(region=region), {})

    assert (found.base_url, found.key_variable) == (REGIONS[region].base_url, REGIONS[region].key_variable)


@pytest.mark.parametrize(
    ("options", "env", "variable", "host"),
    [
        ({}, {}, None, None),
        ({}, {"DASHSCOPE_API_KEY": "sk-1"}, "DASHSCOPE_API_KEY", "dashscope.aliyuncs.com"),
        ({}, {"DASHSCOPE_API_KEY": " "}, None, None),
        (
            {},
            {"DASHSCOPE_API_KEY": "sk-1", "BAILIAN_CODING_PLAN_API_KEY": "sk-sp-1"},
            "BAILIAN_CODING_PLAN_API_KEY",
            "coding.dashscope.aliyuncs.com",
        ),
        ({"auth": "oauth"}, {"DASHSCOPE_API_KEY": "sk-1"}, None, None),
        ({"auth": "api-key"}, {}, "DASHSCOPE_API_KEY", "dashscope.aliyuncs.com"),
        ({"region": "singapore"}, {}, "DASHSCOPE_API_KEY", "dashscope-intl.aliyuncs.com"),
        ({"api_key_env": "MINE", "region": "virginia"}, {}, "MINE", "dashscope-us.aliyuncs.com"),
        ({"api_key_env": "MINE", "base_url": "https://x.example/v1"}, {}, "MINE", "x.example"),
    ],
)
def test_chooses_the_credentials(options: dict[str, Any], env: dict[str, str], variable: str, host: str) -> None:
    found = access(config(**options), env)

    assert found.key_variable == variable
    assert (found.login is None) == (variable is not None)
    assert (host or "None") in str(found.base_url)


@pytest.mark.parametrize(
    "options",
    [
        {"region": "mars"},
        {"base_url": "http://gateway.example"},
        {"allowed_hosts": ["*"]},
        {"allowed_hosts": ["https://gateway.example/v1"]},
        {"allowed_hosts": "gateway.example:8443"},
    ],
)
def test_refuses_settings_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        QwenCodeProvider(config(**options))


def test_no_secret_in_any_text(service: QwenProcess, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    write(path, service.credentials(expired=True))
    provider = signed_in(service, path)
    texts = [repr(provider), repr(vars(provider)), repr(provider.config)]
    for reply in ("ok", "401", "401", "403", "429-throttled", "error-in-stream", "html", "500"):
        service.script(chat=[reply])
        try:
            texts.append(repr(streamed(provider)))
        except ProviderError as error:
            texts += [repr(error), str(error), str(error.hint), repr(error.__cause__), repr(error.__context__)]
            logging.getLogger("test").exception("failed")

    assert CANARY not in "".join(texts)
    assert CANARY not in caplog.text
