"""Chat over HTTP: sends a request, hands out the answer's deltas, judges how it ended.

What every provider with an OpenAI or Anthropic wire is made of; address and credentials are asked for per call.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from flowcraft.core.errors import AuthError, IncompleteStream, ProviderError, TransportError
from flowcraft.core.masking import Unshown
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import ChatRequest, Delta
from flowcraft.llm.formats.chat_format import CHAT_COMPLETIONS, Format, Reading, Shape, decoded
from flowcraft.llm.sse import Event, events
from flowcraft.llm.wire.http import Reply, Wire
from flowcraft.llm.wire.status import ASK_AGAIN, NO_SERVICE, fault_in, refusal, refusal_in_stream

Target = tuple[str, Mapping[str, str]]
_REDIRECTS = (300, 301, 302, 303, 305, 307, 308)
_GRACE_S = 1.0  # for the usage and [DONE], once the answer is complete


class Chat:
    """One service that speaks chat completions; `provider` and `config` name it in errors.

    `auth_hint` is what a user can do when the service refuses the credentials, `shape` changes the body,
    `written` is the format of requests and answers.
    """

    def __init__(
        self,
        provider: str,
        config: ModelSettings,
        *,
        auth_hint: str | None = None,
        shape: Shape | None = None,
        written: Format = CHAT_COMPLETIONS,
        keep_alive: bool = True,
        direct: bool = False,
    ) -> None:
        self._provider = provider
        self._config = config
        self._auth_hint = auth_hint
        self._shape = shape
        self._format = written
        self._wire = Wire(keep_alive=keep_alive, direct=direct)

    def deltas(self, request: ChatRequest, target: Callable[[], Target]) -> Iterator[Delta]:
        """Send `request` to the URL with the secret headers that `target()` gives; yield the answer.

        Raises Cancelled and ProviderError; after the first text no error is `retryable`.
        """
        reading = self._format.reading()
        try:
            body = self._format.encoded(request, self._config, self._shape)
            url, headers = target()
            headers = Unshown(headers)
            with self._wire.post(
                url,
                body,
                headers=headers,
                scope=request.scope,
                timeouts=self._config.timeouts,
                streamed=request.stream,
            ) as reply:
                reading.request_id, reading.secrets = reply.request_id, reply.secrets
                if reply.status // 100 != 2:
                    raise _refused(reply)
                if not request.stream:
                    yield reading.whole(_whole(reply))
                elif reply.content_type == "text/event-stream":
                    yield from _streamed(reply, reading)
                else:
                    raise _not_chat(reply, reply.opening())
        except ProviderError as error:
            if isinstance(error, AuthError):
                error.hint = error.hint or self._auth_hint
            reading.complete(error, self._provider, self._config.model)
            raise

    def close(self) -> None:
        """Close the kept connections."""
        self._wire.close()


def _streamed(reply: Reply, reading: Reading) -> Iterator[Delta]:
    guard = reply.guard
    chunks = reply.chunks()
    stream = events(chain((_first(reply, chunks),), chunks))
    begun = False
    try:
        for event in stream:
            if not event.data or event.event == "ping":
                continue  # no sign of life: the clock runs on
            if event.data == "[DONE]" or event.event == "message_stop":
                break
            guard.waiting = False
            delta = reading.delta(_payload(event, reply, reading))
            if delta is not None:
                yield delta
            if reading.finished:
                guard.limit("idle", _GRACE_S)
            elif begun:
                guard.resume()
            else:
                guard.started()
                begun = True
        else:
            yield from _left_over(stream.residual, reply, reading)
    except ProviderError:
        if not reading.finished:
            raise
    if not reading.finished:
        raise reading.unfinished()
    reply.drain(chunks)


def _first(reply: Reply, chunks: Iterator[bytes]) -> bytes:
    """The first of the chunks; raises if it begins a page or an object, which no event does: its type is a lie."""
    first = next(chunks, b"")
    if first.lstrip()[:1] in (b"{", b"<"):
        raise _not_chat(reply, first + reply.opening())
    return first


def _left_over(residual: Event | None, reply: Reply, reading: Reading) -> Iterator[Delta]:
    # Some gateways leave out the last blank line. A whole JSON object with a finish_reason proves itself.
    if residual is None or reading.finished:
        return
    try:
        ends = reading.ends(decoded(residual.data))
    except ValueError:
        return
    if ends:
        delta = reading.delta(_payload(residual, reply, reading))
        if delta is not None:
            yield delta


def _payload(event: Event, reply: Reply, reading: Reading) -> Mapping[str, Any]:
    try:
        payload = decoded(event.data)
    except ValueError:
        payload = None
    if payload is None:  # not above: the error holds all of the text
        raise IncompleteStream(
            f"the stream of {reply.host} holds something that is not JSON: {reply.quote(event.data)}",
            retryable=True,
            hint=ASK_AGAIN,
        )
    if payload.__class__ is not dict:
        raise TransportError(
            f"the stream of {reply.host} holds no chat answer: {reply.quote(event.data)}", hint=NO_SERVICE
        )
    if not (reading.finished or reading.knows(payload)):
        fault = fault_in(payload, reply.secrets)
        if fault is not None:
            raise refusal_in_stream(fault, started=reading.started)
    return payload


def _whole(reply: Reply) -> Mapping[str, Any]:
    body = reply.read()
    try:
        payload = decoded(body.decode("utf-8-sig", "replace"))
    except ValueError:
        payload = None
    if not isinstance(payload, dict):  # not above: the error holds all of the text
        raise _not_chat(reply, body)
    fault = fault_in(payload, reply.secrets)
    if fault is not None:
        raise refusal_in_stream(fault, started=False)
    return payload


def _not_chat(reply: Reply, body: bytes) -> ProviderError:
    """The error for a status 200 that comes with something else than an answer."""
    if not body.strip():
        return TransportError(
            f"{reply.host} answered with nothing", status=reply.status, retryable=True, hint="ask again"
        )
    try:
        fault = fault_in(decoded(body.decode("utf-8-sig", "replace")), reply.secrets)
    except ValueError:
        fault = None
        if reply.content_type.endswith("json") and body.lstrip()[:1] == b"{":
            return IncompleteStream(
                f"the answer of {reply.host} is not whole, or not JSON: {reply.quote(body)}",
                retryable=True,
                hint=ASK_AGAIN,
            )
    if fault is not None:
        return refusal_in_stream(fault, started=False)
    kind = reply.quote(reply.headers.get("content-type", "").partition(";")[0].strip()) or "something without a type"
    return TransportError(
        f"{reply.host} answered with {kind} instead of a chat answer: {reply.quote(body)}",
        status=reply.status,
        hint=NO_SERVICE,
    )


def _redirected(reply: Reply) -> str:
    try:
        # Without secrets first: of the host only a part of one could be left, in small letters.
        return urlsplit(reply.quote(reply.headers.get("location", ""))).hostname or "another path"
    except ValueError:
        return "an address that is none"


def _refused(reply: Reply) -> ProviderError:
    if reply.status in _REDIRECTS:
        return TransportError(
            f"{reply.host} redirects to {reply.quote(_redirected(reply))}; nothing was sent there",
            status=reply.status,
            hint="if you trust that address, set it as base_url",
        )
    body = reply.opening()
    try:
        fault = fault_in(decoded(body.decode("utf-8-sig", "replace")), reply.secrets)
    except ValueError:
        fault = None
    error = refusal(reply.status, reply.headers, fault, reply.quote(body))
    error.request_id = reply.request_id
    return error
