"""What a service's refusal means: HTTP status, headers and error object -> one of our errors; no I/O.

Knows which refusals are worth another try, how long to wait, and how to quote a foreign text safely.
"""

import re
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from flowcraft.core.errors import AuthError, ProviderError, QuotaError, RateLimitError
from flowcraft.core.masking import Mask

QUOTE_CHARS = 500
ASK_AGAIN = "ask again; if it happens often, look at the service's status"
NO_SERVICE = "check base_url (it usually ends in /v1)"
_PASSING = (408, 425, 500, 502, 503, 504, 529)  # and 429; what the service itself calls worth another try
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-requestid", "x-amzn-requestid", "x-ds-request-id", "cf-ray")
_DECIMAL = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*", re.ASCII)

# Words of `error.code` and `error.type`, of OpenAI, Anthropic, DashScope, OpenRouter and llama.cpp.
_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "arrearage", "quota_exceeded"}
_QUOTA |= {"billing_error"}
_AUTH = {"authentication_error", "invalid_api_key", "invalidapikey", "permission_error", "permission_denied"}
_AUTH |= {"unauthorized", "invalid_authentication", "access_denied"}
_RATE = {"rate_limit_error", "rate_limit_exceeded", "rate_limit", "too_many_requests", "throttling"}
_REQUEST = {"invalid_request_error", "invalid_request", "invalid_parameter", "not_found_error", "model_not_found"}
_UNWANTED = {"content_filter", "content_policy_violation", "data_inspection_failed", "datainspectionfailed"}
_LONG = {"context_length_exceeded", "exceed_context_size_error", "request_too_large"}
_REQUEST |= {"not_supported_error"} | _UNWANTED | _LONG
# Said inside an answer, these words stand for the status that would have been sent before it.
_STATUS = {"rate_limit_error": 429, "overloaded_error": 529, "timeout_error": 504, "api_error": 500}
_STATUS |= {"server_error": 500}


class Fault(NamedTuple):
    """The error object of a service: its sentence, and its machine-readable words in lower case."""

    message: str
    words: frozenset[str]
    status: int | None = None


def fault_in(payload: Any, secrets: Collection[str] = ()) -> Fault | None:
    """The error in a JSON value, in whichever of the usual forms; None if there is none."""
    if not isinstance(payload, Mapping):
        return None
    error = payload.get("error") or payload.get("errors")
    if isinstance(error, list):
        error = error[0] if error else None
    if not error and "choices" not in payload and ("message" in payload or "detail" in payload):
        error = payload  # DashScope, FastAPI: the error is the whole object
    if not error:
        return None
    if not isinstance(error, Mapping):
        return Fault(quoted(str(error), secrets), frozenset())
    message = error.get("message") or error.get("detail") or error.get("msg") or error.get("type") or error.get("code")
    words, status = set(), None
    for value in (error.get("code"), error.get("type"), error.get("status"), error.get("http_code")):
        if isinstance(value, str):
            words |= {value.lower(), value.lower().partition(".")[0]}
        code = _status_code(value)
        status = code if status is None else status
    sentence = message if isinstance(message, str) else str(message or error)
    return Fault(quoted(sentence, secrets), frozenset(words), status)


def refusal(status: int, headers: Mapping[str, str], fault: Fault | None, text: str) -> ProviderError:
    """The error for an HTTP status that is not 2xx; `text` is the quoted body, used where there is no `fault`."""
    words = fault.words if fault else frozenset()
    said = (fault.message if fault else text) or "it gave no reason"
    error = _refusal(status, words, said)
    error.status = status
    error.request_id = request_id(headers)
    error.retry_after_s = retry_after_s(headers)
    if error.retryable and error.retry_after_s is not None:
        error.hint = f"the service asks to wait {_in_words(error.retry_after_s)} before the next try"
    wish = headers.get("x-should-retry", "").strip().lower()
    if wish in ("true", "false") and not words & _QUOTA:
        error.retryable = wish == "true"
    return error


def refusal_in_stream(fault: Fault, *, started: bool) -> ProviderError:
    """The error for an error object inside an answer that had begun with status 200."""
    status = fault.status or next((_STATUS[word] for word in fault.words & _STATUS.keys()), None)
    if fault.words & _AUTH or status in (401, 403):
        error = _refusal(401, fault.words, fault.message)
    elif fault.words & (_RATE | _QUOTA) or status == 429:
        error = _refusal(429, fault.words, fault.message)
    elif fault.words & _REQUEST or (status is not None and status < 500):
        error = _refusal(status if status is not None and status < 500 else 400, fault.words, fault.message)
    else:  # the request was taken, so what goes wrong now is the service's own trouble
        error = _refusal(status or 500, fault.words, fault.message)
    error.status = status
    error.retryable = error.retryable and not started
    return error


def _refusal(status: int, words: frozenset[str], said: str) -> ProviderError:
    if status == 429 or (status in (402, 403) and words & _QUOTA):
        if words & _QUOTA:
            return QuotaError(
                f"the quota is spent: {said}", hint="look at the plan and billing of the account, or use another model"
            )
        return RateLimitError(f"asked too often: {said}", retryable=True, hint="try later, or with fewer jobs at once")
    if status == 402:
        return QuotaError(f"the account has no credit: {said}", hint="top up the account, or use another model")
    if status == 401:
        return AuthError(f"the service does not accept the credentials: {said}")
    if status == 403:
        return AuthError(f"the service denies access: {said}", hint="check what the key may be used for, and where")
    if status == 407:
        return AuthError(f"the proxy wants a login: {said}", hint="check HTTP_PROXY, HTTPS_PROXY and NO_PROXY")
    if status == 404:
        return ProviderError(
            f"the service knows no such model or address: {said}",
            hint="check the name of the model and base_url (it usually ends in /v1)",
        )
    if 500 <= status < 600:
        return ProviderError(f"the service failed: {said}", retryable=status in _PASSING, hint="try later")
    return ProviderError(
        f"the service refused the request: {said}", retryable=status in _PASSING, hint=_way_out(status, words)
    )


def _way_out(status: int, words: frozenset[str]) -> str:
    if status in (408, 425):
        return "try again"
    if status == 413 or words & _LONG:
        return "shorten the request, or use a model with a larger context"
    if words & _UNWANTED:
        return "word the request differently, or use another model"
    return "compare the parameters and messages with what this model takes"


def request_id(headers: Mapping[str, str], secrets: Collection[str] = ()) -> str | None:
    """The service's name for this request, under any of the usual headers."""
    for name in _REQUEST_ID_HEADERS:
        value = headers.get(name)
        if value:
            return quoted(value, secrets)[:200]
    return None


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The wait that the service asks for: milliseconds, seconds or a date; None if it is nonsense.

    A date is read against the service's own clock where it sends one.
    """
    in_ms = _DECIMAL.fullmatch(headers.get("retry-after-ms", ""))
    if in_ms:
        return float(in_ms[1]) / 1000
    text = headers.get("retry-after", "")
    in_s = _DECIMAL.fullmatch(text)
    if in_s:
        return float(in_s[1])
    until = _date(text)
    if until is None:
        return None
    now = now or _date(headers.get("date", "")) or datetime.now(timezone.utc)
    return max(0.0, (until - now).total_seconds())


def _in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def quoted(text: str | bytes, secrets: Collection[str] = ()) -> str:
    """A foreign text on one line: no secrets, no control characters, no more than 500 characters."""
    if isinstance(text, bytes):
        text = text[: 32 * QUOTE_CHARS].decode("utf-8", "replace")
    if secrets and len(text) >= min(map(len, secrets)):  # most are ids, and shorter than any key
        text = _masked(text, secrets)
    if len(text) <= QUOTE_CHARS and text.isprintable() and " " not in text:
        return text  # ids and words, as nearly all are
    text = text[: 8 * QUOTE_CHARS]
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= QUOTE_CHARS else line[: QUOTE_CHARS - 1] + "…"


def _masked(text: str, secrets: Collection[str]) -> str:
    mask = Mask(secrets).stream()
    whole = len(text) <= 8 * QUOTE_CHARS
    return mask.add(text[: 8 * QUOTE_CHARS]) + (mask.end() if whole else "")  # no half of a secret at the cut


def _status_code(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    known = isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600
    return value if known else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)
