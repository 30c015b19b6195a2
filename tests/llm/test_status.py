"""What a refusal means: error objects of many services, waits that they ask for, and safe quoting."""

from datetime import datetime, timezone
from typing import Any

import pytest

from flowcraft.llm.wire.status import fault_in, quoted, refusal, request_id, retry_after_s


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10"}, 10.0),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:10 GMT"}, None),
    ],
)
def test_reads_the_wait_that_a_service_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=timezone.utc)

    assert retry_after_s(headers, now) == seconds


def test_reads_a_date_against_the_clock_of_the_service() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}

    assert retry_after_s(headers) == 10.0


@pytest.mark.parametrize(
    ("payload", "message", "words", "status"),
    [
        ({"error": {"message": "m", "type": "T", "code": None}}, "m", {"t"}, None),
        ({"error": {"message": "m", "code": 502}}, "m", set(), 502),
        ({"error": {"message": "m", "code": "429"}}, "m", {"429"}, 429),
        ({"error": {"message": "m", "code": True, "type": 5}}, "m", set(), None),
        ({"error": {"message": None, "type": "overloaded_error"}}, "overloaded_error", {"overloaded_error"}, None),
        ({"error": {"message": {"deep": 1}}}, "{'deep': 1}", set(), None),
        ({"error": "text"}, "text", set(), None),
        ({"errors": [{"message": "m"}]}, "m", set(), None),
        ({"code": "Throttling.RateQuota", "message": "m"}, "m", {"throttling", "throttling.ratequota"}, None),
        ({"detail": "Not Found"}, "Not Found", set(), None),
    ],
)
def test_finds_the_error_in_its_many_forms(payload: Any, message: str, words: set[str], status: int | None) -> None:
    assert fault_in(payload) == (message, words, status)


@pytest.mark.parametrize(
    "payload", [None, [], "text", 5, {}, {"error": None}, {"error": []}, {"choices": [], "message": "m"}]
)
def test_finds_no_error_where_there_is_none(payload: Any) -> None:
    assert fault_in(payload) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\tb  c", "a b c"),
        ("\x1b[31mred\x07\x9b2J\u202eevil", "[31mred 2J evil"),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        ("key=sk-123456 and sk-123456", "key=*** and ***"),
        ("x" * 600, "x" * 499 + "…"),
        ("x" * 495 + "sk-123456", "x" * 495 + "***"),
        ("sk-123456" * 500, ("***" * 500)[:499] + "…"),
        (" " * 3996 + "sk-123456", ""),
        ("", ""),
    ],
)
def test_quotes_on_one_line_without_secrets(text: str | bytes, shown: str) -> None:
    assert quoted(text, ["sk-123456"]) == shown


def test_knows_the_request_by_the_usual_headers() -> None:
    assert request_id({"x-request-id": "a", "cf-ray": "b"}) == "a"
    assert request_id({"cf-ray": "b\x1b"}) == "b"
    assert request_id({}) is None


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, None, "compare the parameters and messages with what this model takes"),
        (422, "invalid_request_error", "compare the parameters and messages with what this model takes"),
        (400, "exceed_context_size_error", "shorten the request, or use a model with a larger context"),
        (400, "context_length_exceeded", "shorten the request, or use a model with a larger context"),
        (413, None, "shorten the request, or use a model with a larger context"),
        (400, "data_inspection_failed", "word the request differently, or use another model"),
        (407, None, "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"),
        (408, None, "try again"),
        (425, None, "try again"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, code: str | None, hint: str) -> None:
    fault = fault_in({"error": {"message": "no", "code": code}})

    assert refusal(status, {}, fault, "").hint == hint


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 425, 429, 451, 500, 501, 503, 529]
)
def test_every_refusal_has_a_hint_but_that_of_credentials_which_the_provider_gives(status: int) -> None:
    assert bool(refusal(status, {}, None, "no").hint) is (status != 401)
