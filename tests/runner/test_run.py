"""Whole runs: a real file, real threads, real bash, a scripted model."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
from fakes import Gate, Reply, ScriptedProvider, llm_of, settings_of
from jsonschema import Draft202012Validator

from flowcraft.core.errors import AuthError, PipelineError, SettingsError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.events import Event, RunFinished, RunStarted, StageFinished, StageStarted, TextPiece
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline

PATIENCE_S = 20.0


def written(stages: str, head: str = "", tail: str = "") -> Path:
    path = Path.cwd() / "p.yaml"
    path.write_text(f"flowcraft: 1\n{dedent(head)}stages:\n{indent(dedent(stages).strip(), '  ')}\n{dedent(tail)}")
    return path


def run_(
    stages: str, model: BaseLLMProvider | None = None, *, head: str = "", tail: str = "", **options: Any
) -> RunRecord:
    with llm_of(model or ScriptedProvider(), options.pop("expensive", None)) as llm:
        return run_pipeline(written(stages, head, tail), options.pop("inputs", None), llm=llm, **options)


def statuses(record: RunRecord) -> dict[str, str]:
    return {outcome.path: outcome.status for outcome in record.outcomes}


def output(record: RunRecord, path: str) -> Any:
    return next(outcome.output for outcome in record.outcomes if outcome.path == path)


def answered(reply: Any, request: ChatRequest) -> Any:
    return reply(request) if callable(reply) else reply


def upper(request: ChatRequest) -> str:
    return request.messages[-1].content.upper()


# -- order and data ---------------------------------------------------------------------------------


def test_what_a_stage_gives_goes_into_the_stages_below() -> None:
    model = ScriptedProvider("a plan", "some code")

    record = run_(
        """
        - id: plan
          prompt: Plan ${{ inputs.what }}
        - id: code
          prompt: "Code this: ${{ stages.plan.output }}"
        - id: count
          run: printf '%s' "${{ stages.code.output }}" | wc -c | tr -d ' '
        """,
        model,
        head="inputs: {what: string}\n",
        tail="outputs:\n  code: ${{ stages.code.output }}\n  size: ${{ stages.count.output | int }}\n",
        inputs={"what": "it"},
    )

    assert model.prompts() == ["Plan it", "Code this: a plan"]
    assert (record.status, record.exit_code) == ("succeeded", 0)
    assert record.outputs == {"code": "some code", "size": 9}


def test_stages_that_can_run_together_do() -> None:
    gates = {name: Gate() for name in ("one", "two")}
    model = ScriptedProvider(otherwise=lambda request: [gates[request.messages[-1].content], "done"])
    records: list[RunRecord] = []

    def work() -> None:
        records.append(run_("- {id: one, needs: [], prompt: one}\n- {id: two, needs: [], prompt: two}", model, jobs=2))

    thread = threading.Thread(target=work)
    thread.start()
    for gate in gates.values():  # both stand at their gates before either may go on
        gate.reached()
    for gate in gates.values():
        gate.open()
    thread.join(PATIENCE_S)

    assert statuses(records[0]) == {"one": "succeeded", "two": "succeeded"}


def test_no_more_stages_run_at_a_time_than_there_are_jobs() -> None:
    most, now, lock = 0, 0, threading.Lock()

    def answer(_: ChatRequest) -> str:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        for _ in range(1000):
            lock.acquire()
            lock.release()
        with lock:
            now -= 1
        return "x"

    stages = "\n".join(f"- {{id: s{n}, needs: [], prompt: x}}" for n in range(12))
    run_(stages, ScriptedProvider(otherwise=answer), jobs=3)

    assert most <= 3


def test_a_skip_is_no_failure_and_the_stages_below_still_run() -> None:
    record = run_(
        """
        - id: a
          if: inputs.wanted
          run: echo a
        - id: b
          run: echo "${{ stages.a.output | default('none') }}"
        """,
        head="inputs: {wanted: boolean}\n",
        inputs={"wanted": False},
    )

    assert statuses(record) == {"a": "skipped", "b": "succeeded"}
    assert output(record, "b") == "none"
    assert record.outcomes[0].reason == "its `if` is false"
    assert record.status == "succeeded"


def test_a_failure_stops_new_stages_and_says_who_blocks() -> None:
    record = run_(
        """
        - id: a
          run: exit 3
        - id: b
          run: echo b
        - id: alone
          needs: []
          run: echo alone
        """,
        jobs=1,
    )

    assert statuses(record) == {"a": "failed", "b": "skipped", "alone": "skipped"}
    assert [outcome.reason for outcome in record.outcomes] == [
        None,
        "blocked by 'a'",
        "not started because 'a' failed",
    ]
    assert (record.status, record.exit_code, record.outputs) == ("failed", 1, {})


def test_keep_going_runs_what_does_not_depend_on_the_failure() -> None:
    record = run_(
        """
        - {id: a, run: exit 3}
        - {id: b, run: echo b}
        - {id: alone, needs: [], run: echo alone}
        """,
        jobs=1,
        keep_going=True,
    )

    assert statuses(record) == {"a": "failed", "b": "skipped", "alone": "succeeded"}
    assert record.status == "failed"


def test_stages_that_run_when_another_fails_come_to_their_end() -> None:
    slow = Gate()

    def heard(event: Event) -> None:
        if isinstance(event, StageFinished) and event.outcome.path == "bad":
            slow.open()

    def fail_when_slow_runs(_: ChatRequest) -> Any:
        slow.reached()
        return AuthError("no", status=401)

    answers: dict[str, Any] = {"slow": [slow, "done"], "bad": fail_when_slow_runs}
    model = ScriptedProvider(
        otherwise=lambda request: found(request) if callable(found := answers[request.messages[-1].content]) else found
    )

    record = run_(
        """
        - {id: slow, needs: [], prompt: slow}
        - {id: bad, needs: [], prompt: bad}
        - {id: c, needs: [slow], prompt: c}
        """,
        model,
        jobs=2,
        on_event=heard,
    )

    assert statuses(record) == {"slow": "succeeded", "bad": "failed", "c": "skipped"}


def test_templates_see_how_earlier_stages_ended() -> None:
    record = run_(
        """
        - id: ask
          prompt: hello
        - id: tell
          run: |
            echo "${{ stages.ask.status }} ${{ stages.ask.ok }} ${{ stages.ask.tokens }} ${{ stages.ask.model }}"
            echo "${{ stages.ask.attempts }} ${{ stages.ask.usd | default('unknown') }}"
            echo "${{ run.status }}"
        """,
        ScriptedProvider("x"),
    )

    assert output(record, "tell") == "succeeded true 15 small-1\n1 unknown\nrunning"


def test_the_folder_of_the_run_is_made_when_it_is_named() -> None:
    record = run_('- {id: a, run: \'echo x > "${{ run.dir }}/f"; cat "${{ run.dir }}/f"\'}')

    assert output(record, "a") == "x"
    assert (Path(".flowcraft") / "runs" / record.id / "f").exists()


def test_templates_read_files_of_the_workspace() -> None:
    Path("docs").mkdir()
    Path("docs/a.md").write_text("text of a")
    model = ScriptedProvider("x")

    run_("- {id: a, prompt: \"${{ read(glob('docs/*.md') | first) }}\"}", model)

    assert model.prompts() == ["text of a"]


def test_a_value_too_large_for_the_environment_reaches_the_script() -> None:
    record = run_(
        """
        - id: big
          prompt: x
        - id: size
          run: printf '%s' "${{ stages.big.output }}" | wc -c | tr -d ' '
        """,
        ScriptedProvider("x" * 300_000),
    )

    assert output(record, "size") == "300000"


def test_no_value_is_read_by_the_shell() -> None:
    hostile = "\"; touch hit; echo '$(touch hit) `touch hit`"

    record = run_(
        """
        - {id: bad, prompt: x}
        - id: a
          run: echo "${{ stages.bad.output }}"
        - id: b
          run: [echo, "${{ stages.bad.output }}"]
        """,
        ScriptedProvider(hostile),
    )

    assert output(record, "a") == output(record, "b") == hostile
    assert not Path("hit").exists()


# -- saving -----------------------------------------------------------------------------------------


def test_an_output_is_saved_before_the_stages_below_start() -> None:
    record = run_(
        """
        - {id: a, prompt: x, output: {save: out/text.md}}
        - {id: b, run: cat out/text.md}
        """,
        ScriptedProvider("the text"),
    )

    assert output(record, "b") == "the text"
    assert record.outcomes[0].saved == "out/text.md"
    assert Path("out/text.md").read_bytes() == b"the text\n"


def test_json_is_saved_as_json() -> None:
    run_("""
        - id: a
          run: [echo, '{"n": 1}']
          output: {schema: {type: object}, save: a.json}
        """)

    assert json.loads(Path("a.json").read_text()) == {"n": 1}


def test_a_place_outside_the_workspace_fails_before_the_model_is_asked() -> None:
    model = ScriptedProvider()

    record = run_(
        "- {id: a, prompt: x, output: {save: '${{ inputs.to }}'}}",
        model,
        head="inputs: {to: string}\n",
        inputs={"to": "../x"},
    )

    assert record.status == "failed"
    assert "leaves the workspace" in str(record.outcomes[0].error)
    assert model.requests == []


def test_what_cannot_be_saved_fails_the_stage_and_keeps_the_answer() -> None:
    def make_folder(_: ChatRequest) -> str:
        Path("out").mkdir()
        return "precious"

    record = run_("- {id: a, prompt: x, output: {save: out}}", ScriptedProvider(make_folder))

    assert record.outcomes[0].status == "failed"
    assert record.outcomes[0].rejected == "precious\n"


# -- what is wrong ----------------------------------------------------------------------------------


def test_a_template_that_fails_names_file_line_and_column() -> None:
    record = run_(
        """
        - id: a
          run: echo '[1]'
          output: json
        - id: b
          run: echo "${{ stages.a.output[3] }}"
        """
    )

    error = str(record.outcomes[1].error)
    assert record.outcomes[1].status == "failed"
    assert "p.yaml:7:20: FC300" in error
    assert "stages.a.output[3]" in error


def test_however_many_items_fail_each_says_where_and_why() -> None:
    record = run_(
        """
        - id: a
          foreach: {in: inputs.items, max: 150}
          on_error: continue
          run: echo "${{ item.x }}"
        """,
        head="inputs: {items: {type: array}}\n",
        inputs={"items": [{"y": number} for number in range(150)]},
    )

    errors = [str(outcome.error) for outcome in record.outcomes if outcome.status == "failed"]
    assert len(errors) == 150
    assert all("FC300: 'item.x' has no value" in error for error in errors)


def test_a_condition_that_is_not_true_or_false_fails_its_stage() -> None:
    record = run_("- {id: a, if: inputs.x, run: echo}", head="inputs: {x: {}}\n", inputs={"x": "yes"})

    assert "true or false" in str(record.outcomes[0].error)


def test_an_empty_prompt_is_not_sent() -> None:
    record = run_("- {id: a, prompt: '${{ inputs.x }}'}", head="inputs: {x: string}\n", inputs={"x": " "})

    assert "prompt of 'a' is empty" in str(record.outcomes[0].error)


@pytest.mark.parametrize("folder", ["missing", "..", "/"])
def test_a_command_runs_in_a_folder_of_the_workspace_only(folder: str) -> None:
    record = run_(
        "- {id: a, run: touch started, cwd: '${{ inputs.d }}'}", head="inputs: {d: string}\n", inputs={"d": folder}
    )

    assert record.outcomes[0].status == "failed"
    assert f"'{folder}'" in str(record.outcomes[0].error)


def test_an_output_that_cannot_be_rendered_fails_the_run() -> None:
    record = run_("- {id: a, run: \"echo '[]'\", output: json}", tail="outputs:\n  x: ${{ stages.a.output[0] }}\n")

    assert (record.status, record.outputs) == ("failed", {})
    assert "output 'x'" in str(record.error)


def test_a_bug_crosses_to_the_caller_and_ends_the_others() -> None:
    gate = Gate()

    def broken(_: ChatRequest) -> Any:
        gate.reached()
        return ZeroDivisionError("bug")

    class Ours(ScriptedProvider):
        __module__ = "flowcraft.fakes"  # what one of others raises is its failure, no bug

    answers: dict[str, Any] = {"wait": [gate], "break": broken}
    model = Ours(
        otherwise=lambda request: found(request) if callable(found := answers[request.messages[-1].content]) else found
    )

    path = written("- {id: a, needs: [], prompt: wait}\n- {id: b, needs: [], prompt: break}")
    with llm_of(model) as llm:
        with pytest.raises(ZeroDivisionError):
            run_pipeline(path, llm=llm)

        waiting = next(request for request in model.requests if request.messages[-1].content == "wait")
        assert waiting.scope.cancelled


def test_an_error_of_the_listener_crosses_to_the_caller() -> None:
    def listener(event: Event) -> None:
        if isinstance(event, StageStarted):
            raise LookupError("screen gone")

    with pytest.raises(LookupError):
        run_("- {id: a, run: sleep 600}", on_event=listener)


# -- before the first call --------------------------------------------------------------------------


def test_an_unknown_model_is_found_before_anything_runs() -> None:
    path = written("- {id: a, run: touch started}\n- {id: b, prompt: x, model: smal}")

    with llm_of(ScriptedProvider()) as llm, pytest.raises(SettingsError) as caught:
        run_pipeline(path, llm=llm)

    assert caught.value.problems[0].place.startswith(f"{path}:")
    assert "small" in str(caught.value)
    assert not Path("started").exists()


@pytest.mark.parametrize("provider", ["no-such-provider", "replay"])  # replay without a recording
def test_a_provider_that_cannot_be_made_is_found_before_anything_runs(provider: str) -> None:
    settings = settings_of(ModelSettings(name="m", provider=provider, model="x"))

    with pytest.raises(UsageError, match=provider):
        run_pipeline(written("- {id: a, run: touch started}\n- {id: b, prompt: x}"), settings=settings)

    assert not Path("started").exists()


@pytest.mark.parametrize("models", [{"nobody": "small"}, {"shell": "small"}, {"ask": "unknown"}])
def test_a_model_for_a_stage_that_asks_none_or_that_nobody_knows_is_refused(models: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        run_("- {id: shell, run: touch started}\n- {id: ask, prompt: x}", models=models)

    assert not Path("started").exists()


def test_inputs_are_checked_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="'x'"):
        run_("- {id: a, run: touch started}", head="inputs: {x: integer}\n", inputs={"x": "many"})

    assert not Path("started").exists()


@pytest.mark.parametrize("jobs", [-1, 100_000])
def test_a_number_of_jobs_that_makes_no_sense_is_refused(jobs: int) -> None:
    with pytest.raises(UsageError, match="jobs"):
        run_("- {id: a, run: echo}", jobs=jobs)


# -- models -----------------------------------------------------------------------------------------


def test_the_model_of_the_command_line_wins_over_the_stage_and_the_stage_over_the_settings() -> None:
    stages = """
        - {id: expensive_one, prompt: x}
        - {id: expensive_two, prompt: x, model: cheap}
        - {id: three, prompt: x, model: cheap}
        - {id: four, prompt: x, model: "${{ 'expensive' if stages.three.ok else 'cheap' }}"}
        """

    record = run_(
        stages, ScriptedProvider(otherwise="s"), expensive=ScriptedProvider(otherwise="l"), models={"three": "large"}
    )

    asked = [(outcome.attempts[0].name, outcome.attempts[0].cause) for outcome in record.outcomes]
    assert asked == [("large", "expensive_stages"), ("small", "stage"), ("large", "--model"), ("large", "stage")]


def test_a_model_that_a_template_names_and_nobody_knows_fails_its_stage() -> None:
    record = run_(
        "- {id: a, prompt: x, model: '${{ inputs.m }}'}", head="inputs: {m: string}\n", inputs={"m": "nobody"}
    )

    assert "nobody" in str(record.outcomes[0].error)


# -- events and record ------------------------------------------------------------------------------


def test_events_tell_the_run_from_start_to_end_in_the_callers_thread() -> None:
    heard: list[tuple[Event, int]] = []

    record = run_(
        "- {id: a, prompt: x}\n- {id: b, run: echo out}",
        ScriptedProvider(["one ", "two"]),
        on_event=lambda event: heard.append((event, threading.get_ident())),
    )

    events = [event for event, _ in heard]
    assert {thread for _, thread in heard} == {threading.get_ident()}
    assert events[0] == RunStarted(record.id, "p", ("a", "b"))
    assert events[1] == StageStarted("a", "prompt", "small", "cheap", events[1].because)  # type: ignore[union-attr]
    assert [type(event).__name__ for event in events[1:7]] == [
        *("StageStarted", "TextPiece", "TextPiece", "AttemptEnded", "StageFinished", "StageStarted")
    ]
    assert [event.text for event in events if isinstance(event, TextPiece)] == ["one ", "two", "out\n"]
    assert events[-1] == RunFinished(record)


def test_a_secret_reaches_the_command_and_nothing_else() -> None:
    heard: list[Event] = []

    record = run_(
        """
        - id: a
          env: {TOKEN: "${{ inputs.token }}"}
          run: |
            test "$TOKEN" = hunter2-hunter2
            echo "got $TOKEN"
        - id: b
          prompt: ${{ stages.a.output }}
        """,
        ScriptedProvider(otherwise=upper),
        head="inputs: {token: {type: string, secret: true}}\n",
        inputs={"token": "hunter2-hunter2"},
        on_event=heard.append,
    )

    everything = json.dumps(record.to_json()) + repr(record) + repr(heard)
    assert output(record, "a") == "got ***"
    assert "hunter2" not in everything
    assert "HUNTER2" not in everything
    assert record.to_json()["inputs"] == {"token": "***"}


@pytest.mark.parametrize(
    "value",
    ["inputs.token | upper", "inputs.token | replace('-', '')", "inputs.login.pass", "inputs.login | tojson"],
)
def test_what_is_made_of_a_secret_is_secret_too(value: str) -> None:
    heard: list[Event] = []

    record = run_(
        f"""
        - id: a
          env: {{MADE: "${{{{ {value} }}}}"}}
          run: echo "got $MADE" | tee /dev/stderr
        """,
        head="inputs: {token: {type: string, secret: true}, login: {type: object, secret: true}}\n",
        inputs={"token": "hunter2-hunter2", "login": {"user": "me", "pass": "hunter2-of-mine"}},
        on_event=heard.append,
    )

    assert record.status == "succeeded"
    assert "hunter2" not in (json.dumps(record.to_json()) + repr(record) + repr(heard)).lower()


def test_an_answer_about_a_secret_is_no_secret() -> None:
    record = run_(
        """
        - id: a
          env: {GIVEN: "${{ 'true' if inputs.token else 'false' }}"}
          run: echo "$GIVEN"
        """,
        head="inputs: {token: {type: string, secret: true}}\n",
        inputs={"token": "hunter2-hunter2"},
    )

    assert output(record, "a") == "true"


@pytest.mark.parametrize(
    "value",
    [
        "inputs.token | int",
        "read(inputs.token)",
        "{'a': 1}[inputs.token]",
        "[1] | map(attribute=inputs.token) | list",
        "[1] | select(inputs.token) | list",
    ],
)
def test_a_failure_with_a_secret_does_not_tell_it(value: str, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    with caplog.at_level("DEBUG"):
        record = run_(
            f"""
            - {{id: a, run: "true", env: {{MADE: "${{{{ {value} }}}}"}}}}
            """,
            head="inputs: {token: {type: string, secret: true}}\n",
            inputs={"token": "hunter2-hunter2"},
            on_event=heard.append,
        )

    said = record.outcomes[0].error
    assert said is not None
    assert "FC300: 'MADE' cannot be made of its secret" in said
    assert "hunter2" not in json.dumps(record.to_json()) + repr(record) + repr(heard) + caplog.text


def test_a_secret_is_handed_on_to_a_secret_input_of_a_used_pipeline() -> None:
    inner = """
        flowcraft: 1
        inputs: {key: {type: string, secret: true}}
        stages:
          - id: use
            env: {KEY: "${{ inputs.key }}"}
            run: test "$KEY" = hunter2-hunter2; echo "with $KEY"
        outputs: {said: "${{ stages.use.output }}"}
    """
    Path("inner.yaml").write_text(dedent(inner))
    heard: list[Event] = []

    record = run_(
        """
        - {id: part, uses: inner.yaml, with: {key: "${{ inputs.token }}"}}
        """,
        head="inputs: {token: {type: string, secret: true}}\n",
        inputs={"token": "hunter2-hunter2"},
        on_event=heard.append,
    )

    assert record.status == "succeeded"
    assert output(record, "part") == {"said": "with ***"}
    assert "hunter2" not in json.dumps(record.to_json()) + repr(record) + repr(heard)


@pytest.mark.parametrize("value", ["${{ inputs.token }}!", "${{ inputs.token | trim }}"])
def test_a_secret_is_not_handed_on_changed_or_to_an_open_input(value: str) -> None:
    for secret in ("true", "false"):
        inner = f"flowcraft: 1\ninputs: {{key: {{type: string, secret: {secret}}}}}\nstages: [{{id: a, run: x}}]\n"
        Path("inner.yaml").write_text(inner)
        given = value if secret == "true" else "${{ inputs.token }}"

        with pytest.raises(PipelineError, match="FC230"):
            run_(
                f"""- {{id: part, uses: inner.yaml, with: {{key: "{given}"}}}}""",
                head="inputs: {token: {type: string, secret: true}}\n",
                inputs={"token": "x"},
            )


def test_the_record_is_what_its_schema_promises() -> None:
    schema = json.loads((Path(__file__).parents[2] / "schemas" / "report.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    records = [
        run_(
            "- {id: a, prompt: x}\n- {id: b, run: echo}",
            ScriptedProvider("x"),
            tail="outputs:\n  o: ${{ stages.a.output }}\n",
        ),
        run_("- {id: a, prompt: x, output: json}", ScriptedProvider("x", Reply(content="y", usage=None))),
        run_("- {id: a, run: exit 1}\n- {id: b, if: stages.a.ok, run: echo}"),
    ]

    for record in records:
        found = json.loads(json.dumps(record.to_json()))
        assert list(Draft202012Validator(schema).iter_errors(found)) == []
        assert set(found) == set(schema["properties"])
        assert set(found["totals"]) == set(schema["$defs"]["totals"]["properties"])
        for stage in found["stages"]:
            assert set(stage) == set(schema["$defs"]["stage"]["properties"])
            for attempt in stage["attempts"]:
                assert set(attempt) == set(schema["$defs"]["attempt"]["properties"])


def test_totals_are_unknown_when_one_call_is() -> None:
    known = run_("- {id: a, prompt: x}", ScriptedProvider("x")).totals
    unknown = run_(
        "- {id: a, prompt: x}\n- {id: b, prompt: x}", ScriptedProvider("x", Reply(content="x", usage=None))
    ).totals

    assert (known.calls, known.tokens, known.cost) == (1, 15, None)
    assert (unknown.calls, unknown.tokens) == (2, None)


# -- stopping ---------------------------------------------------------------------------------------


def stopped(stages: str, model: ScriptedProvider, ready: Callable[[], None], **options: Any) -> RunRecord:
    """Run in a thread, cancel its scope when `ready` has returned, give the record."""
    scope, records = Scope(), []
    thread = threading.Thread(target=lambda: records.append(run_(stages, model, scope=scope, **options)))
    thread.start()
    ready()
    scope.cancel()
    thread.join(PATIENCE_S)
    assert records, "the run did not end"
    return records[0]


def test_cancelling_ends_a_model_call_and_starts_nothing_more() -> None:
    gate = Gate()

    record = stopped("- {id: a, prompt: x}\n- {id: b, prompt: y}", ScriptedProvider([gate]), gate.reached)

    assert statuses(record) == {"a": "cancelled", "b": "skipped"}
    assert record.outcomes[1].reason == "not started because the run was interrupted"
    assert (record.status, record.exit_code) == ("interrupted", 130)


def test_cancelling_ends_a_command() -> None:
    started = threading.Event()

    def listener(event: Event) -> None:
        if isinstance(event, TextPiece):
            started.set()

    record = stopped(
        "- {id: a, run: echo up; sleep 600}",
        ScriptedProvider(),
        lambda: started.wait(PATIENCE_S) and None,
        on_event=listener,
    )

    assert statuses(record) == {"a": "cancelled"}


def test_a_scope_cancelled_beforehand_runs_nothing() -> None:
    scope = Scope()
    scope.cancel()

    record = run_("- {id: a, run: touch started}", scope=scope)

    assert record.status == "interrupted"
    assert not Path("started").exists()


def test_ctrl_c_in_the_listener_gives_a_record() -> None:
    def listener(event: Event) -> None:
        if isinstance(event, StageStarted):
            raise KeyboardInterrupt

    record = run_("- {id: a, run: sleep 600}", on_event=listener)

    assert record.status == "interrupted"
    assert statuses(record) == {"a": "skipped"}


def test_closing_the_integration_elsewhere_ends_the_run() -> None:
    gate = Gate()
    model = ScriptedProvider([gate])
    llm: LLMIntegration = llm_of(model)
    records: list[RunRecord] = []
    path = written("- {id: a, prompt: x}\n- {id: b, prompt: y}")
    thread = threading.Thread(target=lambda: records.append(run_pipeline(path, llm=llm)))
    thread.start()
    gate.reached()

    llm.close()
    thread.join(PATIENCE_S)

    assert records[0].status in ("interrupted", "failed")
    assert len(model.requests) == 1
