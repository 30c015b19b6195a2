"""What went wrong on the wire, in our words: foreign errors of requests, urllib3 and below -> ours.

Part of `http`, the only one that imports it. Messages name the host and the reason, never a URL or header.
"""

import http.client
import ssl
from collections.abc import Collection

import requests
import urllib3

from flowcraft.core.errors import DeadlineError, FlowcraftError, IncompleteStream, ProviderError, TransportError
from flowcraft.llm.wire.deadline import Guard
from flowcraft.llm.wire.status import ASK_AGAIN, quoted

FOREIGN: tuple[type[Exception], ...] = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    AttributeError,  # urllib3, when the connection is broken under its hands
)

_PROXY_HINT = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
_CA_HINT = "check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE"
_BAD_PROXY = (
    urllib3.exceptions.LocationParseError,
    urllib3.exceptions.ProxySchemeUnknown,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,  # SOCKS without its library
)
_NO_CERTIFICATES = ("NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE", "BAD_BASE64_DECODE", "BAD_END_LINE")
_NOT_HTTP = (
    http.client.LineTooLong,
    http.client.BadStatusLine,
    http.client.UnknownProtocol,
    urllib3.exceptions.InvalidHeader,  # two lengths
)


def translated(error: BaseException, guard: Guard, host: str, secrets: Collection[str] = ()) -> FlowcraftError:
    """Our error for a foreign one; its `__cause__` is that of the operating system, if there is one."""
    try:
        guard.check()
    except FlowcraftError as stopped:
        stopped.__context__ = None
        return stopped
    root = _root(error)
    if isinstance(root, _BAD_PROXY):  # its text may hold a password, so it is not kept as the cause
        return TransportError("the address of the proxy cannot be used", sent=False, hint=_PROXY_HINT)
    if guard.answered:
        failure: FlowcraftError = _broken_answer(error, root, host, secrets)
    else:
        failure = _no_answer(error, root, guard, host, secrets)
    if isinstance(root, OSError):  # the others quote what has come, or hold it
        # Without its frames: their variables hold the headers, which some loggers of errors show.
        failure.__cause__ = root.with_traceback(None)
    return failure


def _no_answer(
    error: BaseException, root: BaseException, guard: Guard, host: str, secrets: Collection[str]
) -> ProviderError:
    if isinstance(error, requests.exceptions.ProxyError):
        spoken = "407" in str(root)
        why = getattr(root, "strerror", None) or str(root)  # the words of urllib3, or of the proxy
        return TransportError(
            f"the proxy gives no way to {host}: {quoted(why, secrets)[:200]}",
            sent=False,
            retryable=not spoken,
            hint=_PROXY_HINT,
        )
    if isinstance(root, ssl.SSLError):
        return _tls_failure(root, host)
    if isinstance(root, FileNotFoundError) or "CA certificate bundle" in str(root):
        return TransportError(
            f"the file of trusted certificates is missing: {quoted(str(root))}",
            sent=False,
            hint=_CA_HINT,
        )
    if isinstance(root, TimeoutError):
        return DeadlineError(f"{host} did not answer in time", sent=guard.sent, retryable=True)
    if isinstance(root, ConnectionError):  # of the operating system; RemoteDisconnected is one, too
        return TransportError(
            f"{host} closed the connection before it answered", sent=guard.sent, retryable=True, hint="try again"
        )
    hint = "check base_url, and HTTPS_PROXY and HTTP_PROXY if there are proxies"
    return TransportError(f"the request to {host} failed: {_brief(root)}", sent=guard.sent, hint=hint)


def _broken_answer(error: BaseException, root: BaseException, host: str, secrets: Collection[str]) -> ProviderError:
    if isinstance(error, urllib3.exceptions.DecodeError):
        hint = "look at what is between here and the service: nobody asked for compression"
        return TransportError(f"the compressed answer of {host} is corrupt", hint=hint)
    if isinstance(root, _NOT_HTTP) or type(root) in (http.client.HTTPException, ValueError):
        return TransportError(f"{host} does not speak HTTP as it should: {_said(root, secrets)}", hint="check base_url")
    reason = getattr(root, "strerror", None)
    return IncompleteStream(
        f"the answer of {host} was cut off" + (f": {reason}" if reason else ""), retryable=True, hint=ASK_AGAIN
    )


def _tls_failure(root: ssl.SSLError, host: str) -> ProviderError:
    if isinstance(root, ssl.SSLCertVerificationError):
        hint = "if your network has its own certificates, name their file in REQUESTS_CA_BUNDLE"
        return TransportError(
            f"the certificate of {host} cannot be trusted: {quoted(root.verify_message)}", sent=False, hint=hint
        )
    if root.reason in _NO_CERTIFICATES:
        return TransportError(
            f"the file of trusted certificates cannot be read: {root.reason}", sent=False, hint=_CA_HINT
        )
    plain = root.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
    return TransportError(
        f"no TLS connection to {host}: {quoted(root.reason or str(root))}",
        sent=False,
        retryable=not plain,
        hint="the service may speak plain http://" if plain else "try again",
    )


def _root(error: BaseException) -> BaseException:
    """The error at the bottom: requests and urllib3 pack it in, with pools, URLs and requests."""
    for _ in range(10):
        inner = [getattr(error, "reason", None), *getattr(error, "args", ())[::-1], error.__cause__]
        below = next((item for item in inner if isinstance(item, BaseException)), None)
        if below is None:
            break
        error = below
    return error


def _said(root: BaseException, secrets: Collection[str]) -> str:
    # The other kinds quote what was received, which may be an echo of the request.
    speaks = isinstance(root, (http.client.LineTooLong, ValueError)) or type(root) is http.client.HTTPException
    return quoted(str(root), secrets) if speaks else type(root).__name__


def _brief(root: BaseException) -> str:
    text = getattr(root, "strerror", None) or type(root).__name__
    return quoted(str(text))
