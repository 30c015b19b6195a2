"""What one call may cost at most: the models of a rung with their prices and limits, tries that break off included.

A try that breaks off without an answer may be billed. The llm floor makes such a try again once, and then goes
to the next model of the tier; so each model of a tier may be paid for twice in one call. A model that acts (an
agent) asks as often as it likes, and one whose answers nothing limits has no largest price: then there is no ceiling.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flowcraft.core.errors import FlowcraftError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.pricebook import Rates
from flowcraft.llm.routing import Choice, Named
from flowcraft.runner.bounds import output_limit
from flowcraft.runner.sight import sees

UNLIMITED_OUTPUT = 1 << 22  # tokens: more than any model writes, where a size is needed all the same
USUAL_OUTPUT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The most that several calls use; `answered` is the price if none of them breaks off. None is unknown."""

    ceiling: Decimal | None = Decimal(0)
    answered: Decimal | None = Decimal(0)
    tokens: int | None = 0
    requests: int = 0

    def __add__(self, other: "Bill") -> "Bill":
        return Bill(
            ceiling=_total((self.ceiling, other.ceiling)),
            answered=_total((self.answered, other.answered)),
            tokens=_total((self.tokens, other.tokens)),
            requests=self.requests + other.requests,
        )

    def times(self, count: int) -> "Bill":
        """So often."""
        return Bill(
            ceiling=_total((self.ceiling,), count),
            answered=_total((self.answered,), count),
            tokens=_total((self.tokens,), count),
            requests=self.requests * count,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One model as a stage uses it; `output` is the tokens of an answer at most, None if nothing limits it."""

    model: ModelSettings
    rate: Rates | None
    output: int | None
    acts: bool
    sees: bool

    def price(self, tokens_in: int, tokens_out: int | None) -> Decimal | None:
        """Of one answered try."""
        if self.rate is None:
            return None
        if not self.rate.ceiling(1, 1):
            return Decimal(0)
        return None if self.acts or tokens_out is None else self.rate.ceiling(tokens_in, tokens_out)

    def tokens(self, tokens_in: int) -> int | None:
        """In and out, of one answered try."""
        return None if self.acts or self.output is None else tokens_in + self.output


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One step of a ladder: any of `ways`, each a model with those that stand in for it.

    `unsure` is set where the stage may name yet another model.
    """

    ways: tuple[tuple[Offer, ...], ...]
    tries: int
    unsure: bool = False

    @property
    def name(self) -> str:
        return self.ways[0][0].model.name

    @property
    def offers(self) -> list[Offer]:
        return [offer for way in self.ways for offer in way]

    @property
    def output(self) -> int:
        """The tokens of an answer at most, whoever gives it."""
        outputs = [offer.output for offer in self.offers]
        return UNLIMITED_OUTPUT if None in outputs or self.unsure else max(one for one in outputs if one)

    def bill(self, tokens_in: int) -> Bill:
        """One call with so much input."""
        paid = min(self.tries, 2)
        price = [[offer.price(tokens_in, offer.output) for offer in way] for way in self.ways]
        size = [[offer.tokens(tokens_in) for offer in way] for way in self.ways]
        longest = max(len(way) for way in self.ways)
        return Bill(
            ceiling=None if self.unsure else _most([_total(way, paid) for way in price]),
            answered=None if self.unsure else _most([one for way in price for one in way]),
            tokens=None if self.unsure else _most([_total(way, paid) for way in size]),
            requests=longest * self.tries,
        )

    def usual(self, tokens_in: int) -> Decimal | None:
        """What an ordinary call costs on the first model."""
        first = self.ways[0][0]
        return first.price(tokens_in, min(first.output or USUAL_OUTPUT, USUAL_OUTPUT))


def rung(
    llm: LLMIntegration, choices: Iterable[Choice], params: Mapping[str, Any], tries: int, *, unsure: bool
) -> Rung:
    """The rung of these choices."""
    ways = [(choice.model, *choice.fallbacks) for choice in choices]
    return Rung(
        ways=tuple(tuple(_offer(llm, model, params) for model in way) for way in ways), tries=tries, unsure=unsure
    )


def known_choices(llm: LLMIntegration, stage: str, names: Iterable[Named | str | None]) -> list[Choice]:
    """The choices for these names; those that nobody knows cannot run."""
    found = []
    for name in names:
        try:
            found.append(llm.choose(stage, name))
        except FlowcraftError:
            continue
    return found


def _offer(llm: LLMIntegration, model: ModelSettings, params: Mapping[str, Any]) -> Offer:
    provider = llm.provider(model)
    limit = output_limit(model, params, provider.own_max_tokens)
    return Offer(model=model, rate=llm.rates(model), output=limit, acts=provider.acts, sees=sees(llm, model))


def _total(amounts: Sequence[Any], times: int = 1) -> Any:
    return None if any(amount is None for amount in amounts) else sum(amounts) * times


def _most(amounts: Sequence[Any]) -> Any:
    return None if any(amount is None for amount in amounts) else max(amounts)
