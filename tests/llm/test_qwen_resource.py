"""`resource_url` decides where a token goes: hostile forms go nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from flowcraft.llm.oauth.resource import HOSTS, base_url, is_safe

HOSTILE = [
    "https://evil.example", "evil.example", "https://evil.example\\.portal.qwen.ai",
    "https://portal.qwen.ai\\@evil.example", "https://portal.qwen.ai@evil.example",
    "https://user:pass@portal.qwen.ai", "https://evil.example#portal.qwen.ai", "https://evil.example?portal.qwen.ai",
    "https://evil.example/portal.qwen.ai", "https://portal.qwen.ai.evil.example", "https://evilportal.qwen.ai",
    "https://xportal.qwen.ai", "https://portal-qwen.ai", "https://portal.qwen.ai%2eevil.example",
    "https://portal%2eqwen.ai", "https://portal.qwen.ai%00.evil.example", "https://p\u043ertal.qwen.ai",
    "https://portal.qwen.a\u0131", "https://portal\u3002qwen.ai", "https://xn--prtal-jye.qwen.ai",
    "https://portal.qwen.ai\t", "https://por\ttal.qwen.ai", "https://portal.qwen.ai\n.evil.example",
    " https://portal.qwen.ai", "https://portal.qwen.ai ", "http://portal.qwen.ai", "http://portal.qwen.ai/v1",
    "ftp://portal.qwen.ai", "file:///etc/passwd", "javascript:alert(1)", "//portal.qwen.ai", "https:portal.qwen.ai",
    "https:///portal.qwen.ai", "https://portal.qwen.ai:8443", "https://portal.qwen.ai:0443", "https://1.2.3.4",
    "https://2130706433", "https://0x7f.1", "https://[::1]", "http://127.0.0.1:8080", "http://localhost",
    "https://portal.qwen.ai/..", "https://portal.qwen.ai/v1/../x", "https://portal.qwen.ai/v1?x=1",
    "https://portal.qwen.ai/v1#x", "https://PORTAL.qwen.ai", "https://portal.qwen.ai.", "https://.portal.qwen.ai",
    "https://portal..qwen.ai", "", "https://", "/v1", "https://portal.qwen.ai//evil.example",
    "https://portal.qwen.ai/%2e%2e", "https://dashscopeevil.aliyuncs.com",
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_sends_no_token_to(url: str) -> None:
    assert base_url(url) is None


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("portal.qwen.ai", "https://portal.qwen.ai/v1"),
        ("https://portal.qwen.ai", "https://portal.qwen.ai/v1"),
        ("https://portal.qwen.ai/", "https://portal.qwen.ai/v1"),
        ("https://portal.qwen.ai:443/v1/", "https://portal.qwen.ai/v1"),
        ("dashscope.aliyuncs.com/compatible-mode/v1", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
        ("dashscope-intl.aliyuncs.com/compatible-mode", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
    ],
)
def test_knows_the_forms_that_the_service_sends(url: str, base: str) -> None:
    assert base_url(url) == base


def test_reaches_hosts_that_the_settings_add() -> None:
    assert base_url("gateway.example") is None
    assert base_url("gateway.example/qwen", ["gateway.example"]) == "https://gateway.example/qwen/v1"
    assert base_url("http://gateway.example", ["gateway.example"]) is None


def test_reaches_loopback_only_when_the_settings_say_so() -> None:
    assert base_url("http://127.0.0.1:8080/v1") is None
    assert base_url("http://127.0.0.1:8080/v1", ["127.0.0.1"]) == "http://127.0.0.1:8080/v1"
    assert base_url("http://localhost:8080", ["127.0.0.1"]) is None


@given(st.text(alphabet="portalqwen.i:/@\\%#? \tevx-[]01"))
def test_another_parser_sees_the_same_host(text: str) -> None:
    url = base_url(text)

    assert url is None or parse_url(url).host in HOSTS


@pytest.mark.parametrize(
    "url", ["https://gateway.example/api", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"]
)
def test_credentials_may_go_to(url: str) -> None:
    assert is_safe(url)


@pytest.mark.parametrize(
    "url", ["http://gateway.example", "https://u@h", "https://a\\b", "https://h?x", "x", "", "https://[", "ftp://h"]
)
def test_credentials_may_not_go_to(url: str) -> None:
    assert not is_safe(url)
