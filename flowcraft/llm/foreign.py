"""Providers that others have written: whatever they do beside what was agreed is their failure, never a bug of ours.

They are held to what our own do by themselves: the time limit, cancel, and the size of an answer. Only between two
pieces, since nobody can end what blocks in the code of others.
"""

import os
import traceback
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache

from flowcraft.core.errors import DeadlineError, FlowcraftError, ProviderError, TransportError
from flowcraft.core.masking import Mask
from flowcraft.core.scope import Scope
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, Usage, refuse_images
from flowcraft.llm.factory import code_of
from flowcraft.llm.formats.chat_format import MAX_ANSWER_CHARS, too_long

_OPTIONAL = type(None)
_FIELDS: dict[str, tuple[type, ...]] = {
    "content": (str,),
    "reasoning": (str,),
    "finish_reason": (str, _OPTIONAL),
    "usage": (Usage, _OPTIONAL),
    "model": (str, _OPTIONAL),
    "request_id": (str, _OPTIONAL),
    "cost": (Decimal, _OPTIONAL),
}


def answer_of(provider: BaseLLMProvider, request: ChatRequest) -> Iterator[Delta]:
    """What a provider of others answers, checked; raises ProviderError, Cancelled or UsageError."""
    if not provider.takes_images:
        refuse_images(request.messages, provider.config.name)
    size = 0
    try:
        _check_time(request.scope, sent=False)
        for delta in provider.deltas(request):
            _check(delta)
            size += len(delta.content) + len(delta.reasoning)
            if size > MAX_ANSWER_CHARS:
                raise too_long()
            yield delta
            if not delta.finish_reason:  # what came whole counts, however late it is
                _check_time(request.scope, sent=True)
    except FlowcraftError:
        raise
    except OSError as error:  # its connection, most likely
        raise TransportError(f"the provider failed: {_told(error, provider)}", hint="try again") from error
    except Exception as error:
        raise ProviderError(f"the provider failed: {_told(error, provider)}", hint=code_of(type(provider))) from error


def _check(delta: Delta) -> None:
    if not isinstance(delta, Delta):
        raise TypeError(f"deltas yielded {type(delta).__name__}, Delta is wanted")
    wrong = _mismatch(tuple(map(type, delta)))
    if wrong:
        raise TypeError(wrong)


@lru_cache(maxsize=64)  # most pieces of most answers are made of the same types
def _mismatch(given: tuple[type, ...]) -> str:
    """What is wrong with a Delta of values of these types; empty if nothing is."""
    for kind, (name, kinds) in zip(given, _FIELDS.items(), strict=True):
        if not issubclass(kind, kinds):
            return f"{name} of the answer is of the type {kind.__name__}, {kinds[0].__name__} is wanted"
    return ""


def _check_time(scope: Scope, *, sent: bool) -> None:
    scope.check()
    if scope.expired:
        hint = "raise the timeout of the call, or llm.timeouts.total, if the provider is only slow"
        raise DeadlineError("the time for the whole call is over", sent=sent, hint=hint)


def _told(error: Exception, provider: BaseLLMProvider) -> str:
    # Not str(error): in an exception of others that may fail, too.
    told = "".join(traceback.format_exception_only(type(error), error)).strip()
    return Mask([os.environ.get(provider.config.api_key_env or "", "")]).text(told)
