"""What agents say when they fail, as typed errors: the one place that reads their texts.

They have no better protocol: the same text comes on stderr with exit code 0, within a JSON-RPC error,
or as the answer itself. Looked up in the order of the table; the first match decides.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from flowcraft.core.errors import (
    AuthError,
    FlowcraftError,
    ProviderError,
    QuotaError,
    RateLimitError,
    ReplyError,
    TransportError,
)
from flowcraft.core.masking import Mask
from flowcraft.llm.agents.terminal import plain

_MAX_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Kind:
    """One class of failure: how it is known, what error it is and what the user can do."""

    name: str
    pattern: re.Pattern[str]
    error: type[ProviderError]
    retryable: bool
    hint: str


def _kind(name: str, error: type[ProviderError], retryable: bool, hint: str, *patterns: str) -> Kind:
    return Kind(name, re.compile("|".join(patterns), re.IGNORECASE), error, retryable, hint)


def _status(codes: str) -> str:
    return rf"\b(?:HTTP|status|API error)(?: code)?[ :=/\"]*(?:{codes})\b"


QUOTA = _kind(
    "quota",
    QuotaError,
    False,
    "the plan's allowance is used up: wait until it is renewed, buy more, or choose another model",
    r"monthly request limit reached",
    r"\b(?:monthly|daily|weekly) usage limit",
    r"usage limit has been reached",
    r"MonthlyLimitError",
    r"FreeTierLimitExceeded",
    r"insufficient_quota",
    r"exceeded your current quota",
)
TOO_LARGE = _kind(
    "too large",
    ProviderError,
    False,
    "send less text, or choose a model with a larger context",
    r"context window (?:has )?overflowed",
    r"conversation is too large to continue",
    r"message is too large to send",
    r"context_length_exceeded",
    r"prompt is too long",
)
MALFORMED = _kind(
    "malformed",
    ProviderError,
    False,
    "the agent could not use the request; update the agent, and report it if that does not help",
    r"improperly formed request",
)
BAD_MODEL = _kind(
    "bad model",
    ProviderError,
    False,
    "set `model` to one that your account offers, or leave it out",
    r"invalid model id",
    r"model '[^'\n]*' does not exist",
    r"model_not_found",
)
OVERLOAD = _kind(
    "overload",
    TransportError,
    True,
    "try again later, or choose another model",
    r"model you(?:'|\u2019)ve selected is temporarily unavailable",
    r"the model '[^'\n]*' is not available",
    r"high volume of traffic",
    r"overloaded",
)
RATE_LIMIT = _kind(
    "rate limit",
    RateLimitError,
    True,
    "wait a moment, or let fewer calls run at once",
    r"rate[ _-]?limit",
    r"request quota exceeded",
    r"too many requests",
    r"throttl(?:e|ed|ing)\b",
    r"ThrottlingException",
    r"ServiceQuotaExceededException",
    _status("429"),
)
AUTH = _kind(
    "auth",
    AuthError,
    False,
    "log in with the agent's own command, or set the variable that holds its key",
    r"authentication failed",
    r"\bnot logged in",
    r"not authenticated",
    r"authentication required",
    r"AccessDenied",
    r"Unauthorized",
    r"ExpiredToken",
    r"UnrecognizedClientException",
    r"InvalidSignatureException",
    r"bearer token\b.{0,80}\binvalid",
    r"session (?:may have |has )?expired",
    r"re-authenticate",
    r"(?:invalid|incorrect|missing) api key",
    _status("401|403"),
)
BUSY = _kind("busy", TransportError, True, "one prompt at a time in a session; try again", r"already in progress")
TRANSIENT = _kind(
    "transient",
    TransportError,
    True,
    "try again; if it happens often, look at the service's status page",
    r"having trouble responding right now",
    r"failed to generate a response",
    r"failed to process the request",
    r"dispatch failure",
    r"connection (?:was )?(?:reset|refused|closed)",
    r"ECONNRE(?:SET|FUSED)",
    r"internal server error",
    r"service unavailable",
    r"try your request again",
    _status("500|502|503|504|529"),
)
TABLE = (QUOTA, MALFORMED, TOO_LARGE, BAD_MODEL, OVERLOAD, RATE_LIMIT, AUTH, BUSY, TRANSIENT)

# Some agents send an HTTP status as the code of a JSON-RPC error; -32000 is ACP's "authentication required".
_BY_CODE = {-32000: AUTH, 401: AUTH, 403: AUTH, 429: RATE_LIMIT, 529: OVERLOAD}

_ENVELOPE = re.compile(r"^.*encountered an error in the response stream:\s*", re.IGNORECASE)
_REQUEST_ID = re.compile(r"\s*\(request_id: ([^)\s]+)\)\s*$")
_SECRET = re.compile(r"\b(?:ksk|sk)[-_][\w-]{8,}|(?<=Bearer )\S{8,}")
_SECRET_NAME = re.compile(r"(?i)key|token|secret|passw|credential|auth")
_PASSWORD = re.compile(r"(?<=://)[^/@\s:]*:([^/@\s]+)(?=@)")
_ERROR_TEXT = re.compile(
    r"\W*(?:(?:api |internal |stream |unexpected )?error\b|unexpected status\b|exceeded retry limit\b|"
    r"stream disconnected\b|authentication failed\b|request failed\b|you've hit your usage limit\b)",
    re.IGNORECASE,
)


def kind_of(text: str, code: int | None = None) -> Kind | None:
    """The class of failure that this text, or else the error code, tells of."""
    by_text = next((kind for kind in TABLE if kind.pattern.search(text)), None)
    if by_text or code is None:
        return by_text
    return _BY_CODE.get(code) or (TRANSIENT if 500 <= code < 600 else None)


def failure(agent: str, text: str, *, code: int | None = None, sent: bool = True, partial: str = "") -> ProviderError:
    """The error for a failure that `agent` has told of in these words."""
    kind = kind_of(text, code)
    line, request_id = _first_words(text, kind)
    error = kind.error if kind else ProviderError
    return error(
        f"{agent}: {line or f'error {code}'}",
        status=code if code is not None and 400 <= code < 600 else None,
        request_id=request_id,
        retryable=kind.retryable if kind else False,
        sent=sent,
        partial_text=partial,
        hint=kind.hint if kind else "run the agent by hand to see more of what is wrong",
    )


def unproven(agent: str, stderr: str, *, partial: str = "", ended: str = "") -> ProviderError:
    """The error for a program that has ended without a proof of success; `ended` says how."""
    stderr = plain(stderr).strip()
    if kind_of(stderr):
        return failure(agent, stderr, partial=partial)
    said = f": {_shortened(stderr.splitlines()[-1])}" if stderr else ""
    return TransportError(
        f"{agent} ended {ended or 'without a whole answer'}{said}",
        retryable=not partial,
        partial_text=partial,
        hint="run it by hand to see what is wrong",
    )


def disguised(agent: str, text: str) -> ProviderError | None:
    """The error that an agent has given as its answer: short, opening as an error, and in the table."""
    if len(text) > 600 or not _ERROR_TEXT.match(text) or kind_of(text) is None:
        return None
    return failure(agent, text)


def empty(agent: str, refusals: int = 0) -> ProviderError:
    """The error for a turn that ended well but without a word, maybe because it was refused a tool."""
    if refusals:
        return ReplyError(
            f"{agent} ended its turn without a word when it was refused a tool",
            hint="tell it to answer without tools, or set `permission: allow` for this model",
        )
    return ReplyError(f"{agent} ended its turn without a word", hint="ask again, or run the agent by hand")


def unread(agent: str, written: str) -> ProviderError:
    """The error for output in which the rules of the settings find nothing."""
    return ReplyError(
        f"{agent} wrote nothing in which `reply` finds an answer: {_shortened(plain(written).splitlines()[-1])!r}",
        hint="compare `format`, `text` and `delta` of the model with what it writes",
    )


@contextmanager
def without_secrets(env: Mapping[str, str]) -> Iterator[None]:
    """A block whose errors do not repeat the secrets among the variables of an agent, which may print them."""
    try:
        yield
    except FlowcraftError as error:
        found = [value for name, value in env.items() if len(value) >= 8 and _SECRET_NAME.search(name)]
        _hide(error, Mask([*found, *(name for value in env.values() for name in _PASSWORD.findall(value))]))
        raise


def _hide(error: BaseException | None, mask: Mask) -> None:
    while isinstance(error, FlowcraftError):
        for name in ("message", "hint", "partial_text", "request_id", "output"):
            text = getattr(error, name, None)
            if text:
                setattr(error, name, mask.text(text))
        error.args = (error.message,)
        error = error.__cause__ or error.__context__


def _first_words(text: str, kind: Kind | None) -> tuple[str, str | None]:
    lines = [line.strip() for line in plain(text).splitlines() if line.strip()]
    telling = [line for line in lines if kind and kind.pattern.search(line)]
    specific = [line for line in lines if line.lower() != "internal error"]  # the details follow it
    line = _ENVELOPE.sub("", (telling or specific or lines or [""])[0])
    found = _REQUEST_ID.search(line)
    return _shortened(_REQUEST_ID.sub("", line)), found[1] if found else None


def _shortened(line: str) -> str:
    line = _SECRET.sub("***", line)
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"
