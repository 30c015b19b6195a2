"""The ceiling of `plan`: no run costs more, whatever the pipeline, prices and answers; and some of its figures."""

import json
import random
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fakes import settings_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowcraft.core.errors import ProviderError, RateLimitError, TransportError
from flowcraft.core.values import LLMSettings, ModelSettings, Prices, Settings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, Usage
from flowcraft.llm.factory import LLMProviderFactory
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.pricebook import rates
from flowcraft.pipeline.expressions.data import INDENTED, as_json, text_of
from flowcraft.pipeline.load import load
from flowcraft.runner.ceiling import Estimator, stops_at, total
from flowcraft.runner.checks import JUDGE
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.workspace import Workspace


class Spender(BaseLLMProvider):
    """Answers as long as it may, counts a token per byte and some per message, bills also what it breaks off.

    At its `worst` it breaks off every other time, and always answers with as much useless text as it may; some of what
    it judges it refuses at length.
    """

    provider_name = "spender"
    chance: ClassVar[random.Random] = random.Random(0)
    worst: ClassVar[bool] = False
    billed: ClassVar[list[Decimal]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        with self.lock:
            dice, kind = self.chance.random(), self.chance.randrange(6)
            accepted = self.chance.choice(["true", "false"])
            if self.worst:
                judges = request.messages[0].content == JUDGE
                dice, kind = (0.9 if len(self.billed) % 2 else 0.4), self.chance.choice([0, 2]) if judges else 0
        if dice < 0.1:
            raise RateLimitError("slow down", status=429, retryable=True)
        if dice < 0.15:
            raise ProviderError("no route", sent=False, retryable=True)
        room = request.params.get("max_tokens") or self.config.max_tokens or 100
        text = self._answer(kind, accepted, room)
        spent = sum(len(message.content.encode()) + 12 for message in request.messages) + 40
        spent += len(json.dumps(request.params.get("response_format") or ""))
        price = rates(self.config)
        assert price
        cut = dice < 0.55
        # Nobody knows how much of a broken answer is billed: all of it, at worst.
        with self.lock:
            self.billed.append(price.ceiling(spent, room if cut else len(text.encode())))
        yield Delta(content=text[:20])
        if cut:
            raise TransportError("cut off", retryable=dice < 0.53)
        yield Delta(content=text[20:])
        yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=spent, completion_tokens=len(text.encode())))

    def _answer(self, kind: int, accepted: str, room: int) -> str:
        texts = [
            "x" * room,
            json.dumps({"ok": accepted == "true", "list": ["y"] * (max(room - 30, 0) // 6)}),
            '{"accepted": ' + accepted + ', "reason": "' + "r" * max(room - 34, 0) + '"}',
            "é" * (room // 2),
            "[" * (room // 2) + "]" * (room // 2),
            f"out.txt\n```\n{'z' * max(room - 18, 0)}\n```\n",
        ]
        return texts[kind][:room]


class OfQwen(Spender):
    """The same under the name of a provider whose prices are in the book, by the size of the input."""

    provider_name = "qwen-code"


PROMPTS = st.sampled_from(
    [
        "plain",
        "${{ inputs.text }} twice ${{ inputs.text }}",
        "${{ stages.%s.output | default('none') }}",
        "${{ stages.%s.output | default('none') | string | upper }}",
        "${{ stages.%s.output | default([]) | tojson(indent=4) }}",
        "${{ [stages.%s.output | default(1), {'k': inputs.text}] }}",
        "${{ stages.%s.output | default('') | string | lines | map('indent', 9, true) | join('--') }}",
        "${{ (stages.%s.output | default('z')) | string | replace('e', 'ee') }}",
        "${% for c in range(3) %}${{ c }} ${{ inputs.text }}${% endfor %}",
        "${% for c in (stages.%s.output | default('') | string | lines) %}<${{ c }}${{ loop.index }}>${% endfor %}",
        "${{ (stages.%s.output | default('z')) | string | truncate(length=40, end=inputs.text) }}",
        "${{ stages.%s.error | default('fine', true) }}",
        "${{ read('given.txt') }}",
        "${{ read('new.txt') }}",
        "${{ read('./out.txt') }}",
    ]
)
SCHEMA = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
MODELS = [
    *("cheap", "expensive", "tiered", "${{ 'cheap' if inputs.text == 'x' else 'large' }}"),
    *(["cheap", "expensive"], ["expensive", "cheap", "tiered"]),
]
LOOPS = [
    {},
    {"foreach": {"in": ["a", "é${{ inputs.text }}"], "parallel": 1}},
    {"repeat": {"until": "loop.last", "max": 2}},
]


def in_turn(extra: dict[str, Any]) -> dict[str, Any]:
    """Items at the same time may not save to one file."""
    each = extra.get("foreach")
    if each is None or "save" not in str(extra.get("output")):
        return extra
    return {**extra, "foreach": {**(each if isinstance(each, dict) else {"in": each}), "parallel": 1}}


EXTRAS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(MODELS),
        "attempts": st.integers(1, 3),
        "output": st.sampled_from(
            ["json", {"schema": SCHEMA}, {"save": "given.txt"}, {"schema": {}, "save": "new.txt"}, {"save": "new.txt"}]
        ),
        "check": st.sampled_from(
            [["output | string | length > 100000"], [{"ask": "good?"}], [{"ask": "${{ output }}?", "model": "tiered"}]]
        ),
        "foreach": st.sampled_from([["a", "b"], {"in": "range(3)", "max": 4}, {"in": "glob('*.txt')", "max": 3}]),
        "repeat": st.sampled_from([{"until": "loop.last", "max": 2}]),
        "retry": st.integers(0, 2),
        "reads": st.sampled_from([["given.txt"], ["*.txt"]]),
        "system": st.sampled_from(["Be brief.", "${{ inputs.text }}"]),
        "params": st.fixed_dictionaries({"max_tokens": st.integers(20, 120)}),
    },
).map(in_turn)
FILES = {"output": "files", "writes": ["out.txt"]}
FINAL = EXTRAS.map(lambda extra: {"id": "last", "prompt": "Sum up ${{ inputs.text }}", **extra})


@st.composite
def stages(draw: st.DrawFn, most: int = 4) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, most))):
        before = found[-1]["id"] if found else None
        prompt = draw(PROMPTS)
        if "%s" in prompt:
            prompt = prompt.replace("%s", before) if before else "first"
        extra = draw(EXTRAS)
        if "glob" in str(extra.get("foreach")) and draw(st.booleans()):
            prompt = "${{ read(item) }}"
        elif draw(st.integers(0, 5)) == 0:
            extra = {**{key: value for key, value in extra.items() if key != "foreach"}, **FILES}
        found.append({"id": f"s{number}", "prompt": prompt, "on_error": "continue", **extra})
    return found


@st.composite
def pipelines(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {"stages": draw(stages())}
    if draw(st.booleans()):
        group = {"id": "group", "on_error": "continue", "stages": made["stages"], **draw(st.sampled_from(LOOPS))}
        ask = {"check": [{"ask": "all good? ${{ output }}"}]} if draw(st.booleans()) else {}
        made["stages"] = [{**group, **ask}]
    if draw(st.booleans()):
        part = {
            "with": {"text": draw(st.sampled_from(["${{ inputs.text }}", "${{ inputs.text }}!"]))},
            **draw(st.sampled_from([*LOOPS, {"retry": 1}])),
        }
        made["stages"].append({"id": "part", "uses": "part.yaml", "on_error": "continue", **part})
        made["stages"].append({"id": "after", "prompt": "${{ stages.part.output | default('none') }}"})
    if draw(st.booleans()):
        made["finally"] = [draw(FINAL)]
    return made


# Here the ceiling is near to what may really happen, so that a factor or a part too little is seen.
TIGHT: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["cheap", "expensive", ["cheap", "expensive"], ["tiered", "large"]]),
        "attempts": st.integers(1, 3),
        "check": st.sampled_from([["output == ''"], [{"ask": "good?"}]]),
        "foreach": st.just(["a", "b"]),
        "repeat": st.just({"until": "loop.last", "max": 2}),
        "retry": st.integers(0, 2),
    },
)
ASKS: list[dict[str, Any]] = [
    {},
    {},
    {"check": [{"ask": "good?"}]},
    {"check": [{"ask": "${{ output }}?", "model": "large"}]},
]
AGAIN: list[dict[str, Any]] = [{}, {"foreach": ["a", "b"]}, {"repeat": {"until": "loop.last", "max": 2}}]
Files = dict[str, dict[str, Any]]


@st.composite
def nested(draw: st.DrawFn) -> tuple[dict[str, Any], Files]:
    """A pipeline with one prompt stage in groups and used pipelines, each of which may end with another."""
    files: Files = {}

    def whole(depth: int) -> dict[str, Any]:
        last = draw(st.sampled_from([{}, {"finally": [{"id": "last", "prompt": "y", "on_error": "continue"}]}]))
        return {"stages": [one(depth)], **last}

    def one(depth: int) -> dict[str, Any]:
        kind = draw(st.sampled_from(["prompt", "group", "uses"] if depth < 3 else ["prompt"]))
        stage: dict[str, Any] = {"id": "s0", "on_error": "continue"}
        if kind == "prompt":
            return {**stage, "prompt": "x", **draw(TIGHT)}
        stage |= {**draw(st.sampled_from(AGAIN)), **draw(st.sampled_from(ASKS))}
        if kind == "group":
            return {**stage, "stages": [one(depth + 1)]}
        name = f"nested{len(files)}.yaml"
        files[name] = {}
        files[name] |= whole(depth + 1)
        return {**stage, "uses": name, **draw(st.sampled_from([{}, {"retry": 1}]))}

    return whole(0), files


def models(one: int, two: int) -> list[ModelSettings]:
    prices = [Prices(input=Decimal(one), output=Decimal(two)), Prices(input=Decimal(two), output=Decimal(one))]
    found = [
        ModelSettings(name=name, provider="spender", model=name, prices=price, max_tokens=90)
        for name, price in zip(("small", "large"), prices, strict=True)
    ]
    return [*found, ModelSettings(name="tiered", provider="qwen-code", model="qwen3-coder-plus", max_tokens=70)]


@pytest.fixture
def spender() -> Iterator[type[Spender]]:
    LLMProviderFactory.register_provider("spender", Spender)
    yield Spender
    LLMProviderFactory.unregister_provider("spender")


JUDGED = {"id": "g", "on_error": "continue", "foreach": ["a", "b"], "check": [{"ask": "good?"}]}

SAVED = [
    {"id": "s0", "prompt": "x", "output": {"save": "new.txt"}, "params": {"max_tokens": 2000}},
    {"id": "s1", "prompt": "${{ read('new.txt') }}" * 20, "params": {"max_tokens": 20}},
]


@example(  # hardly ever drawn
    whole=({"stages": [{**JUDGED, "stages": [{"id": "s0", "prompt": "x"}]}]}, {}),
    part=[{"id": "s0", "prompt": "x"}],
    last={},
    seed=1,
    one=1,
    two=900,
    of_text=("", 0),
    fallback=False,
    retries=1,
    worst=True,
)
@example(
    whole=({"stages": SAVED}, {}),
    part=[{"id": "s0", "prompt": "x"}],
    last={},
    seed=1,
    one=900,
    two=1,
    of_text=("", 0),
    fallback=False,
    retries=1,
    worst=True,
)
@settings(max_examples=160, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    whole=st.tuples(pipelines(), st.just({})) | nested(),
    part=stages(2),
    last=st.just({}) | st.fixed_dictionaries({"finally": st.tuples(FINAL)}),
    seed=st.integers(0, 1 << 20),
    one=st.just(1) | st.integers(1, 900),
    two=st.just(900) | st.integers(1, 900),
    of_text=st.sampled_from([("", 0), ("some text é", 1), ("\x01\n", 30), ("long ", 8000)]),
    fallback=st.booleans(),
    retries=st.integers(0, 2),
    worst=st.booleans(),
)
def test_a_run_is_never_billed_more_than_the_ceiling(
    workspace: Path,
    spender: type[Spender],
    whole: tuple[dict[str, Any], Files],
    part: list[dict[str, Any]],
    last: dict[str, Any],
    seed: int,
    one: int,
    two: int,
    of_text: tuple[str, int],
    fallback: bool,
    retries: int,
    worst: bool,
) -> None:
    head = {"flowcraft": 1, "inputs": {"text": "string"}}
    outputs = {"outputs": {"x": "${{ stages.s0.output | default('none') }}"}}
    (workspace / "part.yaml").write_text(json.dumps({**head, "stages": part, **last, **outputs}))
    for name, data in {"p.yaml": whole[0], **whole[1]}.items():
        given = {} if name in whole[1] else head
        (workspace / name).write_text(json.dumps({"flowcraft": 1, **given, **data}))
    for name in ("out.txt", "new.txt"):
        (workspace / name).unlink(missing_ok=True)
    (workspace / "given.txt").write_text("given\n```\n`````" * 3)
    text = of_text[0] * of_text[1]
    spender.chance, spender.billed, spender.worst = random.Random(seed), [], worst
    small, large, tiered = models(one, two)
    wanted = Settings(
        llm=LLMSettings(
            cheap_models=("small", "tiered") if fallback else ("small",),
            expensive_models=("large", "small") if fallback else ("large",),
            expensive_stages=("s1",),
            qwen_oauth_path=Path("unused"),
            models={model.name: model for model in (small, large, tiered)},
            retries=retries,
        )
    )
    with LLMIntegration(wanted, providers={"tiered": OfQwen(tiered)}, jitter=lambda: 0.0) as llm:
        pipeline = load(workspace / "p.yaml")
        found = Estimator(llm, Workspace("."), {}).estimates(pipeline, {"text": text})
        record = run_pipeline(pipeline, {"text": text}, llm=llm, jobs=1 if worst else 2)

    ceiling = total([estimate.ceiling for estimate in found])
    assert ceiling is not None
    assert sum(spender.billed, Decimal(0)) <= ceiling
    answered = [attempt for outcome in record.outcomes for attempt in outcome.attempts if attempt.error is None]
    assert len(answered) <= sum(estimate.most_calls for estimate in found)
    assert sum(attempt.cost or 0 for attempt in answered) <= (total([one.answered for one in found]) or 0)
    made = sum(len(outcome.attempts) for outcome in record.outcomes)
    assert made <= sum(estimate.requests for estimate in found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=60,
)


@given(JSON.filter(lambda value: isinstance(value, (list, dict))), st.integers(0, 60))
def test_a_value_in_a_text_is_no_longer_than_its_json_times_a_factor(value: Any, depth: int) -> None:
    for _ in range(depth):
        value = [value]

    assert len(text_of(value)) <= INDENTED * len(as_json(value, separators=(",", ":")))


def estimate_of(text: str, workspace: Path, llm: dict[str, Any] | None = None, **values: Any) -> Any:
    file = workspace / "p.yaml"
    file.write_text(f"flowcraft: 1\ninputs: {{t: {{type: string, default: ''}}}}\nstages:\n{text}")
    more = {"max_tokens": 100, **(llm or {})}
    model = ModelSettings(
        name="m", provider="m", model="m", prices=Prices(input=Decimal(1), output=Decimal(10)), **more
    )
    with LLMIntegration(settings_of(model), providers={"m": Spender(model)}) as made:
        return Estimator(made, Workspace(workspace), {}).estimates(load(file), values)


def test_the_ceiling_counts_text_and_output(workspace: Path) -> None:
    [found] = estimate_of(f"  - {{id: a, prompt: {'x' * 400}}}\n", workspace)

    assert (found.least_calls, found.most_calls, found.first_input) == (1, 1, 120)
    assert found.answered == Decimal(400 + 16 + 64 + 100 * 10) / 1_000_000


def test_a_call_that_breaks_off_may_be_billed_and_is_made_again_once(workspace: Path) -> None:
    [found] = estimate_of("  - {id: a, prompt: x}\n", workspace)
    [never] = estimate_of("  - {id: a, prompt: x, retry: 0}\n", workspace)

    assert (found.ceiling, found.requests) == (2 * found.answered, 3)
    assert (never.ceiling, never.requests) == (found.answered, 1)


@pytest.mark.parametrize("params", [{"max_tokens": 200}, {"max_completion_tokens": 200}, {"n": 2}])
def test_parameters_of_the_settings_that_allow_more_count(workspace: Path, params: dict[str, Any]) -> None:
    [found] = estimate_of("  - {id: a, prompt: x}\n", workspace, {"params": params})

    assert found.answered == Decimal(1 + 16 + 64 + 200 * 10) / 1_000_000


def test_without_a_limit_of_the_answer_there_is_no_ceiling(workspace: Path) -> None:
    [found] = estimate_of("  - {id: a, prompt: x}\n", workspace, {"max_tokens": None})

    assert (found.ceiling, found.tokens) == (None, None)
    assert found.notes == ("there is no ceiling for m: nothing limits its answers: set max_tokens",)


def test_a_model_that_anything_may_name_has_no_ceiling(workspace: Path) -> None:
    named = "  - {id: n, prompt: x}\n  - {id: a, prompt: x, model: '${{ stages.n.output }}'}\n"

    assert estimate_of(named, workspace)[1].ceiling is None


def test_attempts_rounds_and_items_multiply(workspace: Path) -> None:
    [found] = estimate_of(
        "  - {id: a, prompt: x, output: json, attempts: 3, foreach: [1, 2], repeat: {until: loop.last, max: 5}}\n",
        workspace,
    )

    assert found.most_calls == 3 * 2 * 5
    assert found.least_calls == 0


def test_files_that_are_read_count(workspace: Path) -> None:
    (workspace / "big.txt").write_text("x" * 10_000)

    [with_file] = estimate_of("  - {id: a, prompt: x, retry: 0, reads: [big.txt]}\n", workspace)
    [without] = estimate_of("  - {id: a, prompt: x, retry: 0}\n", workspace)

    assert 10_000 <= with_file.tokens - without.tokens <= 10_200


def test_files_that_the_run_itself_makes_larger_count(workspace: Path) -> None:
    (workspace / "a.txt").write_text("x")
    writer = "  - {id: w, prompt: x, output: files, writes: ['*.txt'], params: {max_tokens: 5000}}\n"

    found = estimate_of(f"{writer}  - {{id: a, prompt: x, reads: [a.txt]}}\n", workspace)
    by_command = estimate_of(
        "  - {id: r, run: make, writes: [a.txt]}\n  - {id: a, prompt: x, reads: [a.txt]}\n", workspace
    )

    assert found[1].tokens > 10_000
    assert by_command[0].notes == ("files that 'r' writes are counted as they are now",)


def test_a_file_that_the_run_saves_is_as_large_as_what_is_saved(workspace: Path) -> None:
    saving = "  - {id: a, prompt: x, output: {save: o.txt}, params: {max_tokens: 200}, retry: 0}\n"
    by_file = estimate_of(saving + "  - {id: b, prompt: \"${{ read('o.txt') }}\", retry: 0}\n", workspace)
    by_name = estimate_of(saving + "  - {id: b, prompt: '${{ stages.a.output }}', retry: 0}\n", workspace)
    command = "  - {id: c, run: make, writes: [o.txt]}\n"
    unknown = estimate_of(saving + command + "  - {id: b, prompt: \"${{ read('o.txt') }}\"}\n", workspace)

    assert by_name[1].tokens <= by_file[1].tokens <= by_name[1].tokens + 1
    assert by_file[1].notes == ()
    assert unknown[1].tokens > 1_000_000
    assert unknown[1].notes == ("nobody knows how large 'o.txt' will be: it counts as 1 MiB",)


def test_a_file_of_a_loop_may_be_one_that_the_run_saves(workspace: Path) -> None:
    (workspace / "a.txt").write_text("x")
    stages = (
        "  - {id: a, prompt: x, output: {save: o.txt}, params: {max_tokens: 5000}}\n"
        "  - {id: b, prompt: '${{ read(item) }}', retry: 0, foreach: {in: glob(inputs.t), max: 2}}\n"
    )

    assert estimate_of(stages, workspace, t="*.txt")[1].tokens > 2 * 5000


def test_the_files_of_a_loop_are_measured(workspace: Path) -> None:
    for name, size in (("a.txt", 10), ("b.txt", 3000)):
        (workspace / name).write_text("x" * size)

    [found] = estimate_of(
        "  - {id: a, prompt: '${{ read(item) }}', retry: 0, foreach: {in: glob(inputs.t), max: 2}}\n",
        workspace,
        t="*.txt",
    )

    assert 2 * 3000 < found.tokens < 2 * 3400


def test_the_stage_where_the_budget_ends_is_named(workspace: Path) -> None:
    found = estimate_of("  - {id: a, prompt: x}\n  - {id: b, prompt: x}\n", workspace)

    assert stops_at(found, Decimal("0.003")) == "b"
    assert stops_at(found, Decimal(1)) is None


@pytest.mark.parametrize("count", [3000])
def test_a_large_pipeline_is_estimated(workspace: Path, count: int) -> None:
    stages = "".join(f"  - {{id: s{n}, prompt: 'x ${{{{ stages.s{n - 1}.output }}}}'}}\n" for n in range(1, count))

    assert len(estimate_of("  - {id: s0, prompt: x}\n" + stages, workspace)) == count
