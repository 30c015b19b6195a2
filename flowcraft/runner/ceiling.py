"""What a run may cost at most, before it starts: arithmetic over models, prices, attempts, rungs, rounds and items.

Input is bounded by the text of the template, the files that are read, and `max_tokens` of every result that is
named; output by `max_tokens`; calls by attempts x rungs x rounds x items. Re-asking adds the answer and the
reasons. A price that nobody knows makes a sum unknown and is never counted as 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from flowcraft.core.errors import FlowcraftError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.image_tokens import most_tokens
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.pricebook import Rates, rates
from flowcraft.pipeline.expressions.data import as_json
from flowcraft.pipeline.expressions.references import Path
from flowcraft.pipeline.expressions.work import MAX_TEXT
from flowcraft.pipeline.model import Approval, Command, Function, Inclusion, Pipeline, Prompt, Stage, flat
from flowcraft.pipeline.sizes import NUMBER, Known, Size, largest, value_size
from flowcraft.runner.attachments import measured
from flowcraft.runner.budget import ASSUMED_OUTPUT, MESSAGE_TOKENS
from flowcraft.runner.checks import JUDGE, VERDICT
from flowcraft.runner.choices import named_by_stage, stage_model
from flowcraft.runner.files import INSTRUCTION
from flowcraft.runner.prompts import MAX_REASONS
from flowcraft.runner.sight import sees
from flowcraft.runner.workspace import Workspace

BYTES_PER_TOKEN = 4  # of usual text, for the usual price
USUAL_OUTPUT = 500
REASK = MAX_REASONS + 300  # the reasons and the words around them
ASKED_TWICE = 2  # a judge that gives no verdict is asked once more


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One tier of a ladder: what one call may use, and what its models are billed by, None where nobody knows."""

    models: tuple[ModelSettings, ...]
    rates: tuple[Rates | None, ...]
    output: int
    assumed: bool

    @property
    def name(self) -> str:
        return self.models[0].name

    def price(self, tokens_in: int, tokens_out: int) -> Decimal | None:
        """The most that a call costs, whichever model of the tier answers."""
        costs = [rate.ceiling(tokens_in, tokens_out) for rate in self.rates if rate]
        return max(costs) if len(costs) == len(self.models) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One stage: calls, the tokens of its first input, usual price and ceiling; None where a price is unknown."""

    path: str
    models: tuple[str, ...]
    least_calls: int
    most_calls: int
    first_input: int
    usual: Decimal | None
    ceiling: Decimal | None
    tokens: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Around:
    """What holds for the stages of one list: how often it runs, and what its names may hold."""

    pipeline: Pipeline
    prefix: str = ""
    times: int = 1
    sure: bool = True
    inputs: Mapping[str, Size] = field(default_factory=dict)
    outer: tuple[Mapping[str, Stage], ...] = ()
    names: Mapping[str, Size] = field(default_factory=dict)


class Estimator:
    """Goes through a pipeline with the models and prices of `llm`; `values` are the inputs as far as they are given."""

    def __init__(self, llm: LLMIntegration, workspace: Workspace, models: Mapping[str, str]) -> None:
        self._llm = llm
        self._workspace = workspace
        self._models = models
        self._outputs: dict[tuple[int, str], Size] = {}

    def estimates(self, pipeline: Pipeline, values: Mapping[str, Any]) -> list[Estimate]:
        """One estimate per prompt stage (and per stage with questions in its checks), in the order of the file."""
        inputs = {one.name: value_size(values.get(one.name, one.default) or "") for one in pipeline.inputs}
        around = _Around(pipeline, inputs=inputs)
        return [
            *self._listed(pipeline.stages, around),
            *self._listed(pipeline.finals, replace(around, prefix="finally/")),
        ]

    def _listed(self, stages: Sequence[Stage], around: _Around) -> Iterator[Estimate]:
        own = {stage.id: stage for stage in stages}
        around = replace(around, outer=(own, *around.outer))
        for stage in stages:
            yield from self._stage(stage, around)

    def _stage(self, stage: Stage, around: _Around) -> Iterator[Estimate]:
        times = around.times * (stage.each.most if stage.each else 1) * (stage.repeat.most if stage.repeat else 1)
        if stage.each and isinstance(stage.each.items, tuple):
            times = times // stage.each.most * len(stage.each.items)
        names = dict(around.names)
        if stage.each:
            names |= {stage.each.name: self._item(stage, around), "index": Size(NUMBER)}
        if stage.repeat:
            names["loop"] = Size(NUMBER)
        sure = around.sure and stage.condition is None and stage.each is None
        inner = replace(around, times=times, sure=sure, names=names)
        if isinstance(stage.work, Prompt):
            yield self._prompt(stage, stage.work, inner)
        below = replace(inner, prefix=f"{around.prefix}{stage.id}/")
        yield from self._listed(stage.below, below) if stage.below else ()
        if isinstance(stage.work, Inclusion):
            used = stage.work.pipeline
            known = self._known(inner, stage)
            given = {
                name: Size(
                    min(sum(largest(template, known) for template in flat(value)) + len(str(value)), MAX_TEXT), True
                )
                for name, value in stage.work.arguments.items()
            }
            rest = {one.name: value_size(one.default or "") for one in used.inputs if one.name not in given}
            own = replace(below, pipeline=used, inputs={**rest, **given}, outer=(), names={})
            yield from self._listed(used.stages, own)
        if any(check.ask for check in stage.checks) and not isinstance(stage.work, Prompt):
            yield self._judged(stage, inner, times)

    def _prompt(self, stage: Stage, prompt: Prompt, around: _Around) -> Estimate:
        rungs = self.rungs(stage, prompt, around.pipeline)
        known = self._known(around, stage)
        contract = stage.output.format != "text" or bool(stage.checks)
        attempts = prompt.attempts if contract else 1
        base, images, notes = self._base(stage, prompt, known, rungs)
        usual_in = base // BYTES_PER_TOKEN + images
        base += images
        ceiling: Decimal | None = Decimal(0)
        tokens = before = 0
        for number, rung in enumerate(rungs):
            start = base + (before + REASK + 2 * MESSAGE_TOKENS if number else 0)
            for attempt in range(attempts):
                given = start + attempt * (rung.output + REASK + 2 * MESSAGE_TOKENS + self._schema(stage))
                ceiling = _plus(ceiling, rung.price(given, rung.output))
                tokens += given + rung.output
            before = rung.output
        calls = attempts * len(rungs)
        judged, judge_tokens = self._verdicts(stage, rungs, around, known)
        asks = sum(1 for check in stage.checks if check.ask)
        ceiling = _plus(ceiling, None if judged is None else judged * calls)
        tokens += judge_tokens * calls
        usual = rungs[0].price(usual_in, min(rungs[0].output, USUAL_OUTPUT))
        if any(rung.assumed for rung in rungs):
            notes.append(f"no max_tokens: {ASSUMED_OUTPUT} tokens of output are assumed")
        notes += self._window(rungs, usual_in)
        notes += self._sight(rungs) if images else ()
        return Estimate(
            path=around.prefix + stage.id,
            models=tuple(rung.name for rung in rungs),
            least_calls=1 if around.sure else 0,
            most_calls=calls * around.times * (1 + asks * ASKED_TWICE),
            first_input=usual_in,
            usual=usual,
            ceiling=None if ceiling is None else ceiling * around.times,
            tokens=tokens * around.times,
            notes=tuple(notes),
        )

    def rungs(self, stage: Stage, prompt: Prompt, owner: Pipeline) -> list[Rung]:
        """The models of a stage; one that is known only when it starts counts as the dearer tier."""
        named = stage_model(owner, stage, self._models)
        ladder = prompt.models[1:] if stage.id not in self._models else ()
        names = [named_by_stage(owner, stage, model.source) if model.is_static else ... for model in ladder]
        return [self._rung(stage, prompt, name) for name in (named, *names)]

    def _rung(self, stage: Stage, prompt: Prompt, named: Any) -> Rung:
        if named is ...:
            either = [self._llm.choose(stage.id, name) for name in ("cheap", "expensive")]
            models = tuple(model for choice in either for model in (choice.model, *choice.fallbacks))
        else:
            choice = self._llm.choose(stage.id, named)
            models = (choice.model, *choice.fallbacks)
        asked = prompt.params.get("max_tokens") or prompt.params.get("max_completion_tokens")
        outputs = [asked or model.max_tokens or _price_limit(model) for model in models]
        known = [output for output in outputs if output]
        return Rung(
            models=models,
            rates=tuple(self._llm.rates(model) for model in models),
            output=max([*known, *([] if len(known) == len(outputs) else [ASSUMED_OUTPUT])]),
            assumed=len(known) < len(outputs),
        )

    def _base(self, stage: Stage, prompt: Prompt, known: Known, rungs: Sequence[Rung]) -> tuple[int, int, list[str]]:
        """The bytes of the first question, the tokens of its images, and what is to be said of it."""
        notes: list[str] = []
        total = largest(prompt.text, known) + MESSAGE_TOKENS
        total += largest(prompt.system, known) + MESSAGE_TOKENS if prompt.system else 0
        images = 0
        try:
            for file in measured(self._workspace, stage.reads):
                total += 2 * len(file.path) + 80 + (0 if file.is_image else file.size)
                if file.is_image:
                    images += max(most_tokens(file.pixels, model) for rung in rungs for model in rung.models)
        except (OSError, FlowcraftError) as error:
            notes.append(f"files cannot be measured: {error}")
        total += self._schema(stage)
        if stage.output.format == "files":
            total += len(INSTRUCTION) + sum(len(glob) + 2 for glob in stage.writes)
        paths = {reference.path for reference in prompt.text.references if reference.path[0] == "stages"}
        endless = sorted(str(path[1]) for path in paths if known.of(path).most >= MAX_TEXT)
        notes += [f"'{name}' may give up to 1 MiB: shorten it with | truncate(2000)" for name in endless]
        return total, images, notes

    def _schema(self, stage: Stage) -> int:
        if stage.output.format != "json":
            return 0
        return 300 + (len(as_json(stage.output.schema, indent=2).encode()) if stage.output.schema else 0)

    def _verdicts(
        self, stage: Stage, rungs: Sequence[Rung], around: _Around, known: Known
    ) -> tuple[Decimal | None, int]:
        """What the questions about one answer cost at most, and their tokens."""
        total: Decimal | None = Decimal(0)
        tokens = 0
        output = Size(max(rung.output for rung in rungs), stage.output.format != "text")
        inside = replace(known, names={**known.names, "output": output})
        for check in stage.checks:
            if check.ask is None:
                continue
            named = named_by_stage(around.pipeline, stage, check.model.source) if check.model else None
            judge = self._rung(
                stage, Prompt(text=check.ask), ... if check.model and not check.model.is_static else named
            )
            given = largest(check.ask, inside) + output.printed + len(JUDGE) + len(str(VERDICT)) + 4 * MESSAGE_TOKENS
            for again in range(ASKED_TWICE):
                size = given + again * (judge.output + REASK)
                total = _plus(total, judge.price(size, judge.output))
                tokens += size + judge.output
        return total, tokens

    def _judged(self, stage: Stage, around: _Around, times: int) -> Estimate:
        size = Rung(models=(), rates=(), output=self._size_of(stage, around).most, assumed=False)
        cost, tokens = self._verdicts(stage, [size], around, self._known(around, stage))
        asks = sum(1 for check in stage.checks if check.ask)
        return Estimate(
            path=around.prefix + stage.id,
            models=("(check)",),
            least_calls=0,
            most_calls=asks * ASKED_TWICE * times,
            first_input=tokens // BYTES_PER_TOKEN,
            usual=Decimal(0),
            ceiling=None if cost is None else cost * times,
            tokens=tokens * times,
        )

    def _window(self, rungs: Sequence[Rung], usual_in: int) -> list[str]:
        small = [rung.name for rung in rungs for model in rung.models[:1] if model.context and usual_in > model.context]
        return [f"about {usual_in} tokens do not fit into the window of {name}" for name in small]

    def _sight(self, rungs: Sequence[Rung]) -> list[str]:
        unknown = {model.name: None for rung in rungs for model in rung.models if model.vision is None}
        blind = {model.name: None for rung in rungs for model in rung.models[1:] if not sees(self._llm, model)}
        return [
            *(f"nobody knows whether '{name}' takes images: set its `vision`" for name in unknown if name not in blind),
            *(f"'{name}' cannot stand in: it takes no images" for name in blind),
        ]

    def _known(self, around: _Around, stage: Stage) -> Known:
        def file(path: str | None) -> int:
            return self._file(path, stage)

        return Known(lambda path: self._named(path, around), file, around.names)

    def _named(self, path: Path, around: _Around) -> Size:
        if path[0] == "inputs":
            return around.inputs.get(str(path[1]), Size(0)) if len(path) > 1 else Size(MAX_TEXT, True)
        if path[0] == "run" or len(path) < 3:
            return Size(200)
        stage = next((stages[str(path[1])] for stages in around.outer if path[1] in stages), None)
        if stage is None or path[2] not in ("output", "error", "stderr"):
            return Size(NUMBER)
        return self._size_of(stage, around, path[3:]) if path[2] == "output" else Size(64 * 1024)

    def _size_of(self, stage: Stage, around: _Around, path: Path = ()) -> Size:
        """The result of a stage: what a model may answer, a megabyte of what anything else gives."""
        work, many = stage.work, stage.each.most if stage.each else 1
        if isinstance(work, Prompt):
            whole = max(rung.output for rung in self.rungs(stage, work, around.pipeline))
            structured = stage.output.format != "text" or stage.each is not None
            return Size(min((whole + 4) * many, MAX_TEXT), structured)
        if stage.below:
            inner = [one for one in stage.below if not path or one.id == path[0] or stage.each]
            total = sum(self._size_of(one, around, path[1:]).most + len(one.id) + 8 for one in inner)
            return Size(min(total * many, MAX_TEXT), True)
        if isinstance(work, (Command, Function, Inclusion)):
            return Size(MAX_TEXT, not isinstance(work, Command) or stage.each is not None)
        assert isinstance(work, Approval)
        return Size(4096, True)

    def _item(self, stage: Stage, around: _Around) -> Size:
        assert stage.each
        if isinstance(stage.each.items, tuple):
            known = self._known(around, stage)
            sizes = [sum(largest(one, known) for one in flat(item)) or len(str(item)) for item in stage.each.items]
            return Size(max(sizes, default=0), True)
        paths = [reference.path for reference in stage.each.items.references]
        return Size(max((self._named(path, around).most for path in paths), default=4096), bool(paths))

    def _file(self, path: str | None, stage: Stage) -> int:
        if path is None:  # any file: the largest that the loop goes over, if that can be said
            try:
                found = stage.each.items.value({}, self._workspace) if _is_glob(stage) else None  # type: ignore[union-attr]
                sizes = [(self._workspace.root / one).stat().st_size for one in found or ()]
            except (OSError, FlowcraftError):
                return MAX_TEXT
            return max(sizes, default=MAX_TEXT) if found is not None else MAX_TEXT
        try:
            return min((self._workspace.root / path).stat().st_size, MAX_TEXT)
        except OSError:
            return MAX_TEXT


def total(amounts: Sequence[Decimal | None]) -> Decimal | None:
    """The sum; None if one of them is unknown."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if len(known) == len(amounts) else None


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


def _plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other


def _price_limit(model: ModelSettings) -> int | None:
    price = rates(model)
    return price.max_output if price else None


def _is_glob(stage: Stage) -> bool:
    each = stage.each
    return each is not None and not isinstance(each.items, tuple) and each.items.source.strip().startswith("glob('")
