"""What a run may cost at most, before it starts: arithmetic over models, prices, attempts, rungs, rounds and items.

Input is bounded by the text of the template, the files that are read, and `max_tokens` of every result that is
named; output by `max_tokens`; calls by attempts x rungs x rounds x items. Re-asking adds the answer and the
reasons. A price that nobody knows makes a sum unknown and is never counted as 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeVar

from flowcraft.llm.image_tokens import most_tokens
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import CHEAP, EXPENSIVE
from flowcraft.pipeline.expr import Template
from flowcraft.pipeline.expressions.data import as_json
from flowcraft.pipeline.model import Inclusion, Pipeline, Prompt, Stage
from flowcraft.pipeline.possible import texts
from flowcraft.pipeline.sizes import MAX_BYTES, Known, Size, largest, value_size
from flowcraft.runner.answers import MAX_REASON_BYTES
from flowcraft.runner.bounds import MESSAGE_TOKENS, REQUEST_TOKENS
from flowcraft.runner.checks import JUDGE
from flowcraft.runner.choices import named_by_stage, stage_model
from flowcraft.runner.files import INSTRUCTION
from flowcraft.runner.measures import Around, Attached, Measures
from flowcraft.runner.rungs import Bill, Rung, known_choices, rung
from flowcraft.runner.workspace import Workspace

BYTES_PER_TOKEN = 4  # of usual text, for the usual price
WORDS = 300  # bytes around reasons, schemas and questions
ASKED_TWICE = 2  # a judge that gives no verdict is asked once more


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One stage: calls, the tokens of its first input, usual price and ceiling; None where a price is unknown.

    `answered` is the ceiling without tries that break off, `requests` counts all tries.
    """

    path: str
    models: tuple[str, ...]
    least_calls: int
    most_calls: int
    first_input: int
    usual: Decimal | None
    ceiling: Decimal | None
    answered: Decimal | None
    tokens: int | None
    requests: int
    notes: tuple[str, ...] = ()


class Estimator:
    """Goes through a pipeline with the models and prices of `llm`; `values` are the inputs as far as they are given."""

    def __init__(self, llm: LLMIntegration, workspace: Workspace, models: Mapping[str, str]) -> None:
        self._llm = llm
        self._models = models
        self._measures = Measures(workspace, self._output)
        self._rungs: dict[tuple[int, int | None], list[Rung]] = {}  # by the stage, and the retries around it

    def estimates(self, pipeline: Pipeline, values: Mapping[str, Any]) -> list[Estimate]:
        """One estimate per prompt stage (and per stage with questions in its checks), in the order of the file."""
        given = {one.name: values.get(one.name, one.default) for one in pipeline.inputs}
        inputs = {name: value_size("" if value is None else value) for name, value in given.items()}
        known = {name: value for name, value in given.items() if value is not None}
        around = Around(pipeline=pipeline, inputs=inputs, values=known)
        self._measures.writers([*pipeline.stages, *pipeline.finals], around)
        return list(self._whole(around))

    def _whole(self, around: Around) -> Iterator[Estimate]:
        pipeline = around.pipeline
        yield from self._listed(pipeline.stages, around)
        last = replace(around, prefix=f"{around.prefix}finally/", outer=(_by_id(pipeline.stages),))
        yield from self._listed(pipeline.finals, last)

    def _listed(self, stages: Sequence[Stage], around: Around) -> Iterator[Estimate]:
        around = around.within(stages)
        for stage in stages:
            yield from self._stage(stage, around)

    def _stage(self, stage: Stage, around: Around) -> Iterator[Estimate]:
        inner = self._measures.inside(stage, around)
        if isinstance(stage.work, Prompt):
            yield self._prompt(stage, stage.work, inner)
        if stage.below:
            yield from self._listed(stage.below, replace(inner, prefix=f"{around.prefix}{stage.id}/"))
        if isinstance(stage.work, Inclusion):
            yield from self._whole(self._measures.entered(stage, stage.work, inner))
        if any(check.ask for check in stage.checks) and not isinstance(stage.work, Prompt):
            yield self._judged(stage, inner)

    def _prompt(self, stage: Stage, prompt: Prompt, around: Around) -> Estimate:
        rungs = self.rungs(stage, around)
        unknown: list[str] = []
        known = self._measures.known(around, unknown)
        contract = stage.output.format != "text" or bool(stage.checks)
        attempts = prompt.attempts if contract else 1
        attached = self._measures.attached(stage) if stage.reads else Attached()
        base, images = self._base(stage, prompt, known) + attached.size, _most_tokens(attached, rungs)
        again = MAX_REASON_BYTES + WORDS + 2 * MESSAGE_TOKENS + self._schema(stage)
        bill, before = Bill(), 0
        for number, rung_ in enumerate(rungs):
            start = base + images + (before + again if number else 0)
            for attempt in range(attempts):
                bill += rung_.bill(start + attempt * (rung_.output + again))
            before = max(before, rung_.output)
        calls = attempts * len(rungs)
        output = self._measures.candidate(stage, around)
        asks = sum(1 for check in stage.checks if check.ask)
        bill += self._verdicts(stage, output, around).times(calls)
        bill = bill.times(around.times)
        usual_in = base // BYTES_PER_TOKEN + images
        notes = [*attached.notes, *_endless(prompt, known), *_notes(rungs, usual_in), *_blind(rungs, attached)]
        notes += [f"nobody knows how large '{path}' will be: it counts as 1 MiB" for path in unknown]
        return Estimate(
            path=around.prefix + stage.id,
            models=tuple(rung_.name for rung_ in rungs),
            least_calls=1 if around.sure else 0,
            most_calls=calls * around.times * (1 + asks * ASKED_TWICE),
            first_input=usual_in,
            usual=rungs[0].usual(usual_in),
            ceiling=bill.ceiling,
            answered=bill.answered,
            tokens=bill.tokens,
            requests=bill.requests,
            notes=tuple(dict.fromkeys(notes)),
        )

    def rungs(self, stage: Stage, around: Around) -> list[Rung]:
        """The models of a prompt stage; where one is known only when it starts, all that it may be."""
        key = (id(stage), around.retries)
        if key not in self._rungs:
            assert isinstance(stage.work, Prompt)
            fixed = stage.id in self._models
            models: list[Any] = list(stage.work.models) if not fixed else []
            wanted = models or [stage_model(around.pipeline, stage, self._models)]
            self._rungs[key] = [self._rung(stage, around, one, stage.work.params) for one in wanted]
        return self._rungs[key]

    def _rung(self, stage: Stage, around: Around, named: Any, params: Mapping[str, Any]) -> Rung:
        names: list[Any] = [named]
        if isinstance(named, Template):
            found = texts(named, around.values)
            names = [named_by_stage(around.pipeline, stage, name.strip()) for name in sorted(found or ())]
        choices = known_choices(self._llm, stage.id, names)
        unsure = not choices
        if unsure:
            choices = known_choices(self._llm, stage.id, (CHEAP, EXPENSIVE))
        retries = around.retries if stage.retries is None else stage.retries
        tries = 1 + (self._llm.settings.llm.retries if retries is None else retries)
        return rung(self._llm, choices, params, tries, unsure=unsure)

    def _output(self, stage: Stage, around: Around) -> int:
        return max(one.output for one in self.rungs(stage, around))

    def _base(self, stage: Stage, prompt: Prompt, known: Known) -> int:
        """The bytes of the first question, without files."""
        total = largest(prompt.text, known) + MESSAGE_TOKENS + REQUEST_TOKENS
        total += largest(prompt.system, known) + MESSAGE_TOKENS if prompt.system else 0
        total += self._schema(stage)
        if stage.output.format == "files":
            total += len(INSTRUCTION) + sum(len(glob.encode()) + 2 for glob in stage.writes)
        return total

    def _schema(self, stage: Stage) -> int:
        if stage.output.format != "json":
            return 0
        return WORDS + (len(as_json(stage.output.schema, indent=2).encode()) if stage.output.schema else 0)

    def _verdicts(self, stage: Stage, output: Size, around: Around) -> Bill:
        """What the questions about one result cost at most."""
        known = self._measures.known(around)
        inside = replace(known, names={**known.names, "output": output})
        bill = Bill()
        for check in stage.checks:
            if check.ask is None:
                continue
            judge = self._rung(stage, around, check.model, {})
            given = largest(check.ask, inside) + output.printed + len(JUDGE) + 4 * MESSAGE_TOKENS + REQUEST_TOKENS
            for again in range(ASKED_TWICE):
                bill += judge.bill(given + again * (judge.output + MAX_REASON_BYTES + WORDS))
        return bill

    def _judged(self, stage: Stage, around: Around) -> Estimate:
        """The questions about the result of what asks no model itself."""
        inside = around.within(stage.below) if stage.below else around
        bill = self._verdicts(stage, self._measures.candidate(stage, around), inside).times(around.times)
        asks = sum(1 for check in stage.checks if check.ask)
        return Estimate(
            path=around.prefix + stage.id,
            models=("(check)",),
            least_calls=0,
            most_calls=asks * ASKED_TWICE * around.times,
            first_input=0 if bill.tokens is None else bill.tokens // BYTES_PER_TOKEN,
            usual=Decimal(0),
            ceiling=bill.ceiling,
            answered=bill.answered,
            tokens=bill.tokens,
            requests=bill.requests,
        )


Amount = TypeVar("Amount", Decimal, int)


def total(amounts: Sequence[Amount | None]) -> Amount | None:
    """The sum; None if one of them is unknown."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known[1:], known[0] if known else 0) if len(known) == len(amounts) else None  # type: ignore[return-value]


def stops_at(estimates: Sequence[Estimate], usd: Decimal | None) -> str | None:
    """The first stage that may not fit into the budget, all before it being as dear as they can be."""
    spent = Decimal(0)
    for estimate in estimates:
        if usd is None or estimate.ceiling is None:
            return None
        spent += estimate.ceiling
        if spent > usd:
            return estimate.path
    return None


def _most_tokens(attached: Attached, rungs: Sequence[Rung]) -> int:
    models = [offer.model for one in rungs for offer in one.offers]
    return sum(max(most_tokens(pixels, model) for model in models) for pixels in attached.images)


def _endless(prompt: Prompt, known: Known) -> list[str]:
    paths = {reference.path for reference in prompt.text.references if reference.path[0] == "stages"}
    names = sorted({str(path[1]) for path in paths if known.of(path).most >= MAX_BYTES})
    return [f"'{name}' may give up to 1 MiB: shorten it with | truncate(2000)" for name in names]


def _blind(rungs: Sequence[Rung], attached: Attached) -> Iterator[str]:
    if attached.images:
        for number, offer in ((number, offer) for one in rungs for way in one.ways for number, offer in enumerate(way)):
            if number and not offer.sees:
                yield f"'{offer.model.name}' cannot stand in: it takes no images"
            elif offer.model.vision is None:
                yield f"nobody knows whether '{offer.model.name}' takes images: set its `vision`"


def _notes(rungs: Sequence[Rung], usual_in: int) -> Iterator[str]:
    for offer in {offer.model.name: offer for one in rungs for offer in one.offers}.values():
        name, model = offer.model.name, offer.model
        if model.context and usual_in > model.context:
            yield f"about {usual_in} tokens do not fit into the window of {name}"
        if offer.rate is not None and offer.price(1, offer.output) is None:
            why = "it may ask as often as it likes" if offer.acts else "nothing limits its answers: set max_tokens"
            yield f"there is no ceiling for {name}: {why}"
    if any(one.unsure for one in rungs):
        yield "the model is known only when the stage starts: there is no ceiling"


def _by_id(stages: Sequence[Stage]) -> Mapping[str, Stage]:
    return {stage.id: stage for stage in stages}
