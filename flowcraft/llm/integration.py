"""The SDK's front door: choose the model for a stage, make the call, return one answer."""

import itertools
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flowcraft.core.catalogue import check_models
from flowcraft.core.errors import SettingsError, UsageError
from flowcraft.core.retry import RetryPolicy, RetryQuota
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings, Settings
from flowcraft.llm.attempts import Call, Means, streamed, whole
from flowcraft.llm.base import (
    BaseLLMProvider,
    ChatRequest,
    CompletionStream,
    LLMMessage,
    LLMResponse,
    checked_messages,
    checked_timeout_s,
)
from flowcraft.llm.calls import CallObserver, Observers
from flowcraft.llm.factory import LLMProviderFactory, ProviderNames
from flowcraft.llm.limits import Limiter
from flowcraft.llm.otel import INSTALL, OpenTelemetry
from flowcraft.llm.pricebook import Rates, billed
from flowcraft.llm.routing import Choice, Named, choose

if TYPE_CHECKING:
    from flowcraft.core.settings import SettingsManager

log = logging.getLogger(__name__)

_PROVIDERS = ProviderNames()
_CHOICES_KEPT = 10_000  # a pipeline may have as many stages


class LLMIntegration:
    """Calls the right model for a stage; thread-safe, a context manager.

    `settings` is a `SettingsManager` or its `.settings`; without it the usual files are looked up.
    `providers` maps model names to ready provider objects, used instead of new ones (for tests and
    special wiring). `observer` is told of every attempt before it leaves and when it has ended.
    Raises SettingsError with every model or provider in the settings that nobody knows.
    """

    def __init__(
        self,
        settings: "SettingsManager | Settings | None" = None,
        *,
        providers: Mapping[str, BaseLLMProvider] | None = None,
        observer: CallObserver | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if settings is None:
            # Not above: reading files takes half of the time and memory of all imports, and needs not be.
            settings = import_module("flowcraft.core.settings").SettingsManager()
        found = settings if isinstance(settings, Settings) else getattr(settings, "settings", None)
        if not isinstance(found, Settings):
            raise UsageError(
                f"a {type(settings).__name__} is no settings", hint="LLMIntegration(SettingsManager(path))"
            )
        self.settings = found
        self._given = dict(providers or {})
        self._made: dict[str, BaseLLMProvider] = {}
        self._observer = observer
        self._choices: dict[tuple[str | None, str | Named | None], Choice] = {}
        self._telemetry = _telemetry(self.settings.llm.telemetry)
        self._jitter = jitter
        self._scope = Scope()
        self._renew()
        problems = check_models(self.settings, (*self._given, *_PROVIDERS))
        if problems:
            raise SettingsError(problems)

    def choose(self, stage_name: str | None = None, model: str | Named | None = None) -> Choice:
        """The model that would answer for `stage_name`, and why; calls nothing."""
        # The same for ever: settings are frozen. Kept, since a runner asks for each of its many calls.
        try:
            known = self._choices.get((stage_name, model))
        except TypeError:  # a list, say
            known = None
        if known is not None:
            return known
        if stage_name is not None and not isinstance(stage_name, str):
            raise UsageError(f"the name of a stage is a str, not {type(stage_name).__name__}")
        if model is not None and not isinstance(model, (str, Named)):
            raise UsageError(f"the name of a model is a str, not {type(model).__name__}")
        named = Named(model) if isinstance(model, str) else model
        choice = choose(self.settings, _PROVIDERS, stage=stage_name, named=named)
        if len(self._choices) < _CHOICES_KEPT:
            self._choices[stage_name, model] = choice
        return choice

    def get_current_model_info(self, stage_name: str | None = None) -> dict[str, Any]:
        """Provider, model, type (cheap or expensive), cause and its place for `stage_name`, as a dict."""
        return self.choose(stage_name).info()

    def provider(self, model: ModelSettings) -> BaseLLMProvider:
        """The provider object of a model, made on first use; raises UsageError if there is none."""
        if model.name in self._given:
            return self._given[model.name]
        known = self._made.get(model.name)  # without the lock, which all threads share
        if known is not None:
            return known
        with self._lock:
            if model.name not in self._made:
                self._made[model.name] = LLMProviderFactory.create(model)
            return self._made[model.name]

    def rates(self, model: ModelSettings) -> Rates | None:
        """What single calls to `model` are billed; None if nobody knows, or if a login or plan is used."""
        return billed(model, at_list_price=self.provider(model).at_list_price)

    def chat_completion(
        self,
        messages: Sequence[LLMMessage],
        stage_name: str | None = None,
        *,
        model: str | Named | None = None,
        timeout: float | None = None,
        scope: Scope | None = None,
        observer: CallObserver | None = None,
        retries: int | None = None,
        **params: Any,
    ) -> LLMResponse:
        """Ask the model of `stage_name` and wait for the whole answer.

        `timeout` is the total time in seconds over all attempts and waits (default
        `llm.timeouts.total`), `retries` how often to try again (default `llm.retries`); `params` are
        OpenAI chat-completions parameters. Cancelling `scope` from another thread ends the call.
        Raises ProviderError, UsageError or Cancelled.
        """
        choice = self.choose(stage_name, model)
        own = self._limits(choice, timeout, scope)
        request = ChatRequest(messages=checked_messages(messages), params=params, scope=own)
        return whole(streamed(self._call(choice, request, observer, retries), show=False))

    def stream_completion(  # noqa: PLR0913 - each is a wish of its own about one call
        self,
        messages: Sequence[LLMMessage],
        stage_name: str | None = None,
        *,
        model: str | Named | None = None,
        timeout: float | None = None,
        scope: Scope | None = None,
        observer: CallObserver | None = None,
        retries: int | None = None,
        provisional: bool = False,
        **params: Any,
    ) -> CompletionStream:
        """Ask the model of `stage_name`; the pieces of its answer come as they arrive.

        Arguments and errors as for `chat_completion`. Once a piece was handed out nothing is tried
        again: the error then carries what had arrived as `partial_text`. With `provisional` pieces, which
        the caller can take back, an answer that was cut is asked for once more; its text begins anew after
        `observer` was told of an attempt with the event `retry`.
        """
        choice = self.choose(stage_name, model)
        own = self._limits(choice, timeout, scope)
        request = ChatRequest(messages=checked_messages(messages), params=params, stream=True, scope=own)
        return CompletionStream(streamed(self._call(choice, request, observer, retries, provisional=provisional)), own)

    def workflow(self, name: str) -> AbstractContextManager[None]:
        """A block whose calls belong together, such as a run; shown where `llm.telemetry` is on."""
        return nullcontext() if self._telemetry is None else self._telemetry.workflow(name)

    def close(self) -> None:
        """End running calls and give back connections and child processes."""
        self._scope.cancel()
        with self._lock:
            made, self._made = self._made, {}
        with ExitStack() as stack:  # all of them, also after one that raises
            for provider in (*made.values(), *self._given.values()):
                stack.callback(provider.close)

    def __enter__(self) -> "LLMIntegration":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _renew(self) -> None:
        """Begin with nothing shared with other threads: at first, and in a forked child, where they are gone."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._means = Means(
            provider=self.provider,
            limiter=self._limiter,
            policy=RetryPolicy(retries=self.settings.llm.retries),
            quota=RetryQuota(),
            jitter=self._jitter,
            ids=_ids(),
        )
        self._limiters: dict[str, Limiter] = {}
        closed, self._scope = self._scope.cancelled, Scope()
        if closed:
            self._scope.cancel()

    def _limits(self, choice: Choice, timeout: float | None, scope: Scope | None) -> Scope:
        if self._pid != os.getpid():
            self._renew()
        if self._scope.cancelled:
            raise UsageError("this LLMIntegration is closed", hint="make a new one, or call inside its `with` block")
        own = Scope(choice.model.timeouts.total if timeout is None else checked_timeout_s(timeout), parent=self._scope)
        if scope is not None:
            if not isinstance(scope, Scope):
                raise UsageError(f"scope is a {type(scope).__name__}, a flowcraft.core.scope.Scope is wanted")
            own.join(scope)
        return own

    def _call(
        self,
        choice: Choice,
        request: ChatRequest,
        observer: CallObserver | None,
        retries: int | None,
        *,
        provisional: bool = False,
    ) -> Call:
        means = self._means
        if retries is not None:
            means = means._replace(policy=means.policy._replace(retries=_checked_retries(retries)))
        return Call(choice, request, means, self._told(observer or self._observer), provisional=provisional)

    def _told(self, books: CallObserver | None) -> CallObserver | None:
        if books is None or self._telemetry is None:
            return books or self._telemetry
        return Observers(books, self._telemetry)

    def _limiter(self, model: ModelSettings) -> Limiter | None:
        """The limits of a model, shared by all calls; None if it has none."""
        if model.max_concurrency is None and model.requests_per_minute is None:
            return None
        with self._lock:
            if model.name not in self._limiters:
                self._limiters[model.name] = Limiter(model.max_concurrency, model.requests_per_minute)
            return self._limiters[model.name]


def _ids() -> Iterator[str]:
    """Names that nobody else has made; asking the system for each would hand the processor to another thread."""
    return map(f"{os.urandom(8).hex()}{{:016x}}".format, itertools.count(1))


def _checked_retries(retries: int) -> int:
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise UsageError(f"retries is {retries!r}, a whole number is wanted", hint="retries=0 asks only once")
    return retries


def _telemetry(wanted: str) -> OpenTelemetry | None:
    if wanted == "off":
        return None
    try:
        return OpenTelemetry(draft_cost=wanted == "otel+cost")
    except ImportError:
        log.warning("llm.telemetry is '%s', but OpenTelemetry is not installed: %s", wanted, INSTALL)
        return None
