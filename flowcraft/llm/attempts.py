"""One call as a series of attempts: retry on the same model, then fall back to the next of its tier.

A retry answers a technical failure on the same model, a fallback goes to the next model of the same tier
because this one is unavailable. Every attempt is told to the observer before it leaves and when it ends.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

from flowcraft.core.errors import (
    AuthError,
    Cancelled,
    DeadlineError,
    FlowcraftError,
    IncompleteStream,
    ProviderError,
    RateLimitError,
    TransportError,
)
from flowcraft.core.retry import RetryPolicy, RetryQuota
from flowcraft.core.values import ModelSettings
from flowcraft.llm import foreign
from flowcraft.llm.base import (
    Answer,
    BaseLLMProvider,
    ChatRequest,
    Delta,
    Deltas,
    LLMResponse,
    takes_images,
)
from flowcraft.llm.calls import CallFinished, CallObserver, CallStarted, Event
from flowcraft.llm.factory import is_ours
from flowcraft.llm.limits import Limiter
from flowcraft.llm.pricebook import billed
from flowcraft.llm.routing import Choice

log = logging.getLogger(__name__)

_NO_LIMIT = nullcontext()

_DOWN = (AuthError, RateLimitError, TransportError, DeadlineError)


class Means(NamedTuple):
    """What all calls of an LLMIntegration share; `ids` gives each attempt a name of its own, in any thread."""

    provider: Callable[[ModelSettings], BaseLLMProvider]
    limiter: Callable[[ModelSettings], Limiter | None]
    policy: RetryPolicy
    quota: RetryQuota
    jitter: Callable[[], float]
    ids: Iterator[str]


class Attempt:
    """One try on one model; `answer` collects what arrives."""

    def __init__(self, call: "Call", choice: Choice, event: Event, number: int) -> None:
        self.choice = choice
        self.answer = Answer(choice.model.provider, choice.model.model)
        self._call = call
        self._event = event
        self._number = number
        self._id = ""
        self._start_s = 0.0
        self._at_list_price = True
        self._told = False

    def deltas(self) -> Iterator[Delta]:
        """Make the request when its turn has come; the pieces of the answer are collected and passed on."""
        request = self._call.request
        limiter = self._call.means.limiter(self.choice.model)
        with limiter.turn(request.scope) if limiter else _NO_LIMIT:
            provider = self._call.means.provider(self.choice.model)
            self._at_list_price = provider.at_list_price
            self._begin(request)
            ours = is_ours(type(provider))
            for delta in provider.deltas(request) if ours else foreign.answer_of(provider, request):
                self.answer.add(delta)
                yield delta

    def _begin(self, request: ChatRequest) -> None:
        self._start_s = time.monotonic()
        if self._call.observer:
            self._told = True
            self._id = next(self._call.means.ids)
            self._call.observer.started(
                CallStarted(id=self._id, choice=self.choice, request=request, event=self._event, attempt=self._number)
            )

    def finished(self) -> LLMResponse:
        """The whole answer with its cost; raises IncompleteStream if it is not whole."""
        model = self.choice.model
        price = billed(model, at_list_price=self._at_list_price)
        response = self.answer.response(price.cost(self.answer.usage) if price else None)
        self._tell(response=response)
        if log.isEnabledFor(logging.INFO):
            seconds = time.monotonic() - self._start_s
            log.info("%s answered in %.2f s: %s, %s", model.name, seconds, response.finish_reason, _tokens(response))
        return response

    def failed(self, error: BaseException) -> None:
        """Note that this attempt has ended without an answer."""
        if isinstance(error, ProviderError):
            error.provider = error.provider or self.choice.model.provider
            error.model = error.model or self.choice.model.model
            error.partial_text = error.partial_text or self.answer.text
        known = error if isinstance(error, FlowcraftError) else Cancelled()
        # Only its kind: a service may quote the prompt in its message.
        log.info("%s did not answer (attempt %d): %s", self.choice.model.name, self._number, _kind(known))
        log.debug("%s", known)
        self._tell(error=known)

    def _tell(self, response: LLMResponse | None = None, error: FlowcraftError | None = None) -> None:
        if self._call.observer and self._told:
            self._told = False  # once: an observer that fails at an answer is not told of its own failure
            seconds = time.monotonic() - self._start_s
            self._call.observer.finished(CallFinished(id=self._id, seconds=seconds, response=response, error=error))


class Call:
    """Hands out attempts until one succeeds or nothing is left to try."""

    def __init__(
        self,
        choice: Choice,
        request: ChatRequest,
        means: Means,
        observer: CallObserver | None = None,
        *,
        provisional: bool = False,
    ) -> None:
        self.request = request
        self.means = means
        self.observer = observer
        self._models = [choice, *[choice._replace(model=model) for model in choice.fallbacks]]
        self._tries = self._made = 0  # on this model, and on all of them
        self._provisional = provisional
        self._renewed = False  # whether an attempt went out on a connection that was dead
        self._event: Event = "first"

    def attempt(self) -> Attempt:
        """The first attempt, and the next after each that `again` has allowed."""
        self._tries += 1
        self._made += 1
        return Attempt(self, self._models[0], self._event, self._made)

    def succeeded(self, attempt: Attempt) -> LLMResponse:
        """The answer of `attempt`, which ends the call."""
        response = attempt.finished()
        self.means.quota.earn()
        return response

    def again(self, attempt: Attempt, error: ProviderError, *, text_shown: bool) -> bool:
        """Prepare another attempt after `error`, waiting as long as needed; False if there is to be none.

        Once text was shown to the caller nothing is tried again, unless the pieces are `provisional`: then an answer
        that was cut is as ambiguous as one that never came, and is asked for once more. What went out on a kept
        connection that was dead goes out on a new one at once, also where nothing else is tried again.
        """
        attempt.failed(error)
        cut = self._provisional and isinstance(error, IncompleteStream)
        if (text_shown and not cut) or self.request.scope.expired:
            return False
        if isinstance(error, TransportError) and error.stale and not self._renewed:
            self._renewed, self._event = True, "retry"
            return True
        error.retryable = error.retryable or cut
        wait_s = self.means.policy.wait_s(error, self._tries, self.means.jitter)
        left_s = self.request.scope.remaining_s()
        in_time = wait_s is not None and (left_s is None or wait_s < left_s)
        if wait_s is not None and in_time and self.means.quota.take(throttled=isinstance(error, RateLimitError)):
            log.debug("trying %s again in %.1f s", attempt.choice.model.name, wait_s)
            self._event = "retry"
            self.request.scope.wait(wait_s)
        elif _is_down(error) and self._next_one():
            down, next_one = attempt.choice.model.name, self._models[0].model.name
            log.warning("%s is not available (%s), falling back to %s", down, _kind(error), next_one)
            self._tries, self._event = 0, "fallback"
        else:
            return False
        return True

    def _next_one(self) -> bool:
        """Go on to the next model that can answer such a request; whether there is one."""
        pictured = any(message.images for message in self.request.messages)
        left = [
            one for one in self._models[1:] if not pictured or takes_images(one.model, self.means.provider(one.model))
        ]
        self._models = left or self._models
        return bool(left)


def _tokens(response: LLMResponse) -> str:
    usage = response.usage
    return f"{usage.prompt_tokens} + {usage.completion_tokens} tokens" if usage else "tokens unknown"


def _kind(error: FlowcraftError) -> str:
    status = getattr(error, "status", None)
    return f"{type(error).__name__} {status}" if status else type(error).__name__


def _is_down(error: ProviderError) -> bool:
    return (
        error.retryable or isinstance(error, _DOWN) or (error.status or 0) in (404, 410) or (error.status or 0) >= 500
    )


def streamed(call: Call, *, show: bool = True) -> Deltas:
    """Make the call; the pieces come as they arrive, the generator returns the whole answer.

    Without `show` nothing is handed out before the end, and an attempt that broke in the middle can be made again.
    """
    shown = False
    try:
        while True:
            attempt = call.attempt()
            try:
                for delta in attempt.deltas():
                    if show:
                        shown = shown or bool(delta.content or delta.reasoning)
                        yield delta
                return call.succeeded(attempt)
            except ProviderError as error:
                if not call.again(attempt, error, text_shown=shown):
                    raise
            except BaseException as error:
                attempt.failed(error)
                raise
    finally:
        call.request.scope.close()


def whole(deltas: Deltas) -> LLMResponse:
    """What the generator returns at its end."""
    while True:
        try:
            next(deltas)
        except StopIteration as end:
            response: LLMResponse = end.value
            return response
