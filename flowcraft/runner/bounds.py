"""What one call can use at most, in the units of a budget, and which calls have no such bound.

A budget in money is kept to the cent where every call has a largest price. Where nobody knows the price of a model,
a call is refused, before the first one of a run as far as the file shows it: unknown is unknown and never 0. Where
nothing limits the answers of a model, or it asks as often as it likes (an agent), an answer counts as ASSUMED_OUTPUT
tokens until its cost is known, so that the budget may be exceeded by one call: that is said before the first one.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from flowcraft.core.errors import BudgetError, UsageError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import ChatRequest
from flowcraft.llm.image_tokens import most_tokens
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.parts import ImagePart
from flowcraft.llm.pricebook import rates
from flowcraft.llm.routing import Choice
from flowcraft.pipeline.model import Inclusion, Pipeline, Prompt, Stage
from flowcraft.runner.choices import judges_of_stage, models_of_stage

ASSUMED_OUTPUT = 4096  # tokens of an answer that nothing limits, until it is there
MESSAGE_TOKENS = 16  # what services add around a message, at most
REQUEST_TOKENS = 64  # and around all of them: the model's template, with a system message of its own

_ONE = Decimal(1)
_ALLOW = "llm: {prices: {unknown: allow}}"

log = logging.getLogger(__name__)


class Unbounded(NamedTuple):
    """Why a call has no largest price, and the way out; `priced` if its cost will be known afterwards."""

    what: str
    hint: str
    priced: bool


def worst_case(
    llm: LLMIntegration, choice: Choice, request: ChatRequest, units: Mapping[str, Any]
) -> dict[str, Decimal]:
    """The most that one call can use, in those `units` that can be known; raises BudgetError if money cannot."""
    if "tokens" not in units and "usd" not in units:
        return {"calls": _ONE}
    model = choice.model
    input_tokens = _input_tokens(request, model)
    output_tokens = output_limit(model, request.params, llm.provider(model).own_max_tokens)
    worst = {"calls": _ONE}
    if "tokens" in units:
        worst["tokens"] = Decimal(input_tokens + (output_tokens or ASSUMED_OUTPUT))
    if "usd" not in units:
        return worst
    price = llm.rates(model)
    if price:
        worst["usd"] = price.ceiling(input_tokens, output_tokens or ASSUMED_OUTPUT)
    elif llm.settings.llm.unknown_prices == "refuse":
        lack = _priceless(model)
        raise BudgetError(_of_the_run(lack), unit="usd", hint=lack.hint)
    return worst


def output_limit(model: ModelSettings, params: Mapping[str, Any], own: int | None = None) -> int | None:
    """The tokens of an answer at most; None: nothing limits it.

    The request says it, else the settings, the price book, the provider (`own`), and at last the window of the model.
    """
    given = {**model.params, **params}
    named = [given[name] for name in ("max_tokens", "max_completion_tokens") if name in given]
    known = [limit for limit in named if isinstance(limit, int)]
    price = rates(model)
    limit = max(known, default=None) if named else model.max_tokens
    limit = limit or (price.max_output if price else None) or own or model.context
    several = given.get("n")
    thinking = given.get("thinking_budget")  # of Qwen's models, beside the answer
    if limit is None:
        return None
    return (limit + (thinking if isinstance(thinking, int) else 0)) * (several if isinstance(several, int) else 1)


def unbounded(llm: LLMIntegration, model: ModelSettings, params: Mapping[str, Any]) -> Unbounded | None:
    """Why nobody can say what a call to `model` costs at most; None: it has a largest price."""
    price, provider = llm.rates(model), llm.provider(model)
    if price is None:
        return _priceless(model)
    if not price.ceiling(1, 1):
        return None
    if provider.acts:
        what = f"nobody knows what a call to '{model.name}' costs at most: it may ask as often as it likes"
        return Unbounded(what, "a budget in calls or time", priced=True)
    if output_limit(model, params, provider.own_max_tokens) is None:
        settings = f"llm: {{models: {{{model.name}: {{max_tokens: 4000}}}}}}"
        hint = f"params: {{max_tokens: 4000}} in the stage, or {settings} in the settings (or its `context`)"
        what = f"nothing limits the answers of '{model.name}', so nobody knows what a call costs at most"
        return Unbounded(what, hint, priced=True)
    return None


def check_money(pipeline: Pipeline, llm: LLMIntegration, models: Mapping[str, str], *, limited: bool) -> None:
    """Refuse models without a price under a budget in money, that of the run if it is `limited`, before a call.

    Raises UsageError. What is let through without a largest price is logged as a warning, once for each model.
    """
    said = set()
    for owner, stage in _under_a_budget(pipeline, limited, set()):
        params = stage.work.params if isinstance(stage.work, Prompt) else {}
        asked = [(choice, params) for choice in models_of_stage(owner, stage, llm, models)]
        asked += [(choice, {}) for choice in judges_of_stage(owner, stage, llm)]
        for model, given in ((one, given) for choice, given in asked for one in (choice.model, *choice.fallbacks)):
            lack = unbounded(llm, model, given)
            if lack and not lack.priced and llm.settings.llm.unknown_prices == "refuse":
                raise UsageError(f"'{stage.id}': {_of_the_run(lack)}", hint=lack.hint)
            if lack and lack.what not in said:
                said.add(lack.what)
                log.warning("%s", _let_through(lack))


def _under_a_budget(
    pipeline: Pipeline, limited: bool, seen: set[tuple[object, bool]]
) -> Iterator[tuple[Pipeline, Stage]]:
    """The stages that a budget in money holds for, with the pipeline they are in."""
    limited = limited or "usd" in pipeline.budget
    if (pipeline.file, limited) in seen:
        return
    seen.add((pipeline.file, limited))
    waiting = [(stage, limited) for stage in (*pipeline.finals, *pipeline.stages)][::-1]
    while waiting:
        stage, around = waiting.pop()
        around = around or "usd" in stage.budget
        if around:
            yield pipeline, stage
        waiting += [(inner, around) for inner in reversed(stage.below)]
        if isinstance(stage.work, Inclusion):
            yield from _under_a_budget(stage.work.pipeline, around, seen)


def _of_the_run(lack: Unbounded) -> str:
    return f"there is a budget in money, but {lack.what}"


def _let_through(lack: Unbounded) -> str:
    if not lack.priced:
        return f"{_of_the_run(lack)}: its calls do not count in it (llm.prices.unknown: allow)"
    counted = f"each answer counts as {ASSUMED_OUTPUT:,} tokens until its cost is known"
    return f"{_of_the_run(lack)}; {counted} (to keep it to the cent: {lack.hint})"


def _priceless(model: ModelSettings) -> Unbounded:
    what = "is used on a login or plan, which bills no single call" if rates(model) else "has no known price"
    prices = f"llm: {{models: {{{model.name}: {{prices: {{input: ..., output: ...}}}}}}}}"
    hint = (
        f"a budget in calls or tokens; or say what it costs: {prices}; or leave such calls out of the budget: {_ALLOW}"
    )
    return Unbounded(f"'{model.name}' {what}", hint, priced=False)


def _input_tokens(request: ChatRequest, model: ModelSettings) -> int:
    total = REQUEST_TOKENS
    for message in request.messages:
        content, total = message.content, total + MESSAGE_TOKENS
        if isinstance(content, str):
            total += len(content.encode("utf-8", "replace"))  # no tokenizer makes more tokens than there are bytes
            continue
        total += sum(
            most_tokens(part.size, model) if isinstance(part, ImagePart) else len(part.text.encode("utf-8", "replace"))
            for part in message.parts
        )
    shape = request.params.get("response_format")  # services put the schema into the prompt
    return total + (len(json.dumps(shape, default=str)) if shape else 0)
