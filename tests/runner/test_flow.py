"""Loops, groups, other pipelines, functions, gates and last stages: whole runs with a scripted model."""

import json
import os
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from fakes import Reply, ScriptedProvider, llm_of

from flowcraft.core.errors import RateLimitError
from flowcraft.llm.base import BaseLLMProvider, ChatRequest
from flowcraft.runner.gates import Decision
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable


def written(stages: str, head: str = "", tail: str = "", name: str = "p.yaml") -> Path:
    path = Path.cwd() / name
    path.write_text(f"flowcraft: 1\n{dedent(head)}stages:\n{indent(dedent(stages).strip(), '  ')}\n{dedent(tail)}")
    return path


def run_(
    stages: str, model: BaseLLMProvider | None = None, *, head: str = "", tail: str = "", **options: Any
) -> RunRecord:
    with llm_of(model or ScriptedProvider(), options.pop("expensive", None), **options.pop("settings", {})) as llm:
        return run_pipeline(written(stages, head, tail), options.pop("inputs", None), llm=llm, **options)


def statuses(record: RunRecord) -> dict[str, str]:
    return {outcome.path: outcome.status for outcome in record.outcomes}


def output(record: RunRecord, path: str) -> Any:
    return next(outcome.output for outcome in record.outcomes if outcome.path == path)


def error(record: RunRecord, path: str) -> str:
    return next(outcome.error or "" for outcome in record.outcomes if outcome.path == path)


def upper(request: ChatRequest) -> str:
    return request.messages[-1].content.upper()


# -- foreach -------------------------------------------------------------------------------------------


def test_a_stage_runs_once_per_item_and_keeps_their_order() -> None:
    record = run_(
        """
        - id: names
          foreach: {in: range(12), as: n, parallel: 4}
          run: echo "${{ n }}-${{ index }}"
        - id: all
          run: printf '%s' "${{ stages.names.output | join(',') }}"
        """
    )

    assert output(record, "names") == [f"{n}-{n}" for n in range(12)]
    assert output(record, "all") == ",".join(f"{n}-{n}" for n in range(12))
    assert [outcome.path for outcome in record.outcomes][:3] == ["names", "names[0]", "names[1]"]
    assert record.outcomes[0].iterations == 12


def test_a_failed_item_is_null_where_the_stage_goes_on() -> None:
    record = run_(
        """
        - id: each
          foreach: [a, "${{ inputs.other }}", c]
          on_error: continue
          run: test "${{ item }}" != b && echo "${{ item }}"
        """,
        head="inputs: {other: {type: string, default: b}}\n",
    )

    assert record.status == "succeeded"
    assert output(record, "each") == ["a", None, "c"]
    assert statuses(record)["each[1]"] == "failed"


def test_a_failed_item_stops_the_items_after_it() -> None:
    record = run_("- {id: each, foreach: {in: range(50), parallel: 1}, run: 'test ${{ item }} -lt 2'}")

    assert record.status == "failed"
    assert error(record, "each").startswith("item 2: ")
    assert "each[4]" not in statuses(record)


def test_more_items_than_allowed_are_an_error() -> None:
    record = run_("- {id: each, foreach: {in: range(inputs.n), max: 2}, run: x}", head="inputs: {n: {default: 3}}\n")

    assert "3 items, at most 2" in error(record, "each")
    assert "FC302" in error(record, "each")


def test_no_items_are_no_failure() -> None:
    assert output(run_("- {id: each, foreach: glob('*.none'), run: x}"), "each") == []


# -- repeat and groups ---------------------------------------------------------------------------------


def test_a_group_is_repeated_until_it_holds() -> None:
    record = run_(
        """
        - id: loop_it
          repeat: {until: stages.count.output | int >= 3, max: 5}
          stages:
            - id: note
              run: echo "round ${{ loop.index }} of ${{ loop.max }} ${{ loop.last }}" >> log
            - id: count
              run: wc -l < log | tr -d ' '
        - id: after
          run: echo "${{ stages.loop_it.output.count }} ${{ stages.loop_it.iterations }}"
        """
    )

    assert output(record, "after") == "3 3"
    assert Path("log").read_text().splitlines()[-1] == "round 3 of 5 false"
    assert [outcome.path for outcome in record.outcomes] == [
        "loop_it",
        *(f"loop_it[{n}]{part}" for n in (1, 2, 3) for part in ("", "/note", "/count")),
        "after",
    ]


def test_a_loop_that_never_holds_fails() -> None:
    record = run_("- {id: one, repeat: {until: output == 'x', max: 2}, run: echo y}")

    assert record.status == "failed"
    assert "does not hold after 2 rounds" in error(record, "one")
    assert statuses(record) == {"one": "failed", "one[1]": "succeeded", "one[2]": "succeeded"}


def test_groups_loops_and_items_take_as_long_as_all_that_is_inside() -> None:
    record = run_(
        """
        - {id: group, stages: [{id: inner, run: sleep 0.05}]}
        - {id: items, foreach: [1, 2], run: sleep 0.05}
        - {id: rounds, repeat: {until: loop.last, max: 2}, run: sleep 0.05}
        """,
        jobs=1,
    )

    took = {outcome.path: outcome.seconds for outcome in record.outcomes}
    assert took["group"] >= took["group/inner"]
    assert took["items"] >= took["items[0]"] + took["items[1]"]
    assert took["rounds"] >= took["rounds[1]"] + took["rounds[2]"]


def test_items_of_a_group_see_their_item_and_each_other() -> None:
    record = run_(
        """
        - id: files
          foreach: {in: ["a", "b"], as: name}
          stages:
            - {id: one, run: 'echo ${{ name }}1'}
            - {id: two, run: 'echo "${{ stages.one.output }}${{ name }}2"'}
        """
    )

    assert output(record, "files") == [{"one": "a1", "two": "a1a2"}, {"one": "b1", "two": "b1b2"}]


def test_a_failure_in_a_group_fails_it_and_stops_what_is_left() -> None:
    record = run_(
        """
        - id: g
          stages:
            - {id: bad, run: exit 3}
            - {id: after, run: echo}
        - {id: other, needs: [g], run: echo}
        """
    )

    assert statuses(record) == {"g": "failed", "g/bad": "failed", "g/after": "skipped", "other": "skipped"}
    assert error(record, "g").startswith("'bad' failed: ")


def test_a_tolerated_failure_lets_the_run_go_on() -> None:
    record = run_(
        """
        - {id: bad, on_error: continue, run: 'echo out; exit 3'}
        - {id: after, run: 'echo "${{ stages.bad.ok }} ${{ stages.bad.exit_code }} ${{ stages.bad.output }}"'}
        """
    )

    assert record.status == "succeeded"
    assert output(record, "after") == "false 3 out"


def test_a_group_is_held_to_its_checks() -> None:
    record = run_(
        """
        - id: g
          check: [{that: output.a == 'x', say: "want x, not ${{ output.a }}"}]
          stages: [{id: a, run: echo y}]
        """
    )

    assert error(record, "g") == "its result was not accepted: want x, not y"


# -- other pipelines, functions ------------------------------------------------------------------------


def test_another_pipeline_gets_inputs_and_gives_outputs() -> None:
    written(
        "- {id: shout, prompt: 'say ${{ inputs.word }} ${{ inputs.times + 1 }}'}",
        "inputs: {word: string, times: {type: integer, default: 1}}\n",
        "outputs: {said: '${{ stages.shout.output }}'}\n",
        name="inner.yaml",
    )

    record = run_(
        """
        - {id: call, uses: inner.yaml, with: {word: "${{ inputs.w }}", times: 3}}
        - {id: after, run: 'echo "${{ stages.call.output.said }}"'}
        """,
        ScriptedProvider(otherwise=upper),
        head="inputs: {w: string}\n",
        inputs={"w": "hi"},
    )

    assert output(record, "after") == "SAY HI 4"
    assert statuses(record) == {"call": "succeeded", "call/shout": "succeeded", "after": "succeeded"}


def test_a_function_is_called_in_a_process_of_its_own() -> None:
    Path("tools.py").write_text(
        "import os\ndef add(a, b):\n    print('noise')\n    return {'sum': a + b, 'pid': os.getpid()}\n"
        "def slow():\n    import time; time.sleep(600)\ndef bad():\n    raise ValueError('no good')\n"
    )

    record = run_(
        """
        - {id: add, python: "tools:add", with: {a: "${{ 1 + 1 }}", b: 3}}
        - {id: slow, python: "tools:slow", timeout: 0.3, on_error: continue}
        - {id: bad, python: "tools:bad", on_error: continue}
        """
    )

    assert output(record, "add")["sum"] == 5
    assert output(record, "add")["pid"] != os.getpid()
    assert "longer than its limit" in error(record, "slow")
    assert "ValueError: no good" in error(record, "bad")


def test_a_function_that_cannot_be_called_or_gives_no_json_is_told_without_our_own_frames() -> None:
    Path("tools.py").write_text("def thing():\n    return {'a': object()}\ndef nan():\n    return float('nan')\n")

    record = run_(
        """
        - {id: thing, python: "tools:thing", on_error: continue}
        - {id: nan, python: "tools:nan", on_error: continue}
        - {id: module, python: "nothing.here:f", on_error: continue}
        - {id: name, python: "tools:f", on_error: continue}
        - {id: arguments, python: "tools:nan", with: {x: 1}, on_error: continue}
        """
    )

    told = {outcome.path: (outcome.error or "").splitlines()[1:] for outcome in record.outcomes}
    assert told == {
        "thing": ["  tools:thing has returned what is not JSON: Object of type object is not JSON serializable"],
        "nan": ["  tools:nan has returned what is not JSON: Out of range float values are not JSON compliant"],
        "module": ["  ModuleNotFoundError: No module named 'nothing'"],
        "name": ["  LookupError: the module tools has no function f"],
        "arguments": ["  TypeError: nan() got an unexpected keyword argument 'x'"],
    }


# -- gates ---------------------------------------------------------------------------------------------

GATED = """
- {id: plan, run: echo plan}
- {id: gate, approve: "Go on with ${{ stages.plan.output }}?"}
- {id: publish, run: 'echo published "${{ stages.gate.output.by }}"'}
"""


def test_a_gate_asks_and_goes_on() -> None:
    asked: list[tuple[str, str]] = []

    def ask(path: str, text: str, limit_s: float | None) -> Decision:
        asked.append((path, text))
        return Decision(approved=True, by="ann")

    record = run_(GATED, ask=ask)

    assert asked == [("gate", "Go on with plan?")]
    assert output(record, "publish") == "published ann"


def test_a_gate_that_is_rejected_ends_the_run_with_4() -> None:
    record = run_(GATED, ask=lambda *_: Decision(approved=False, comment="not today"))

    assert (record.status, record.exit_code) == ("rejected", 4)
    assert error(record, "gate") == "rejected: not today"


def test_a_run_pauses_at_a_gate_and_goes_on_when_it_is_answered() -> None:
    Path("count").write_text("")
    stages = GATED.replace("echo plan}", "'echo x >> count; echo plan'}")
    first = run_(stages, durable=Durable())

    assert (first.status, first.exit_code) == ("paused", 3)
    assert statuses(first) == {"plan": "succeeded", "gate": "waiting", "publish": "waiting"}

    again = run_(stages, durable=Durable(resume=first.id))
    assert again.status == "paused"
    last = run_(stages, durable=Durable(resume=first.id), decisions={"gate": Decision(approved=True, by="bob")})

    assert last.status == "succeeded"
    assert output(last, "publish") == "published bob"
    assert Path("count").read_text() == "x\n"


def test_who_is_asked_once_more_is_told_that_the_question_has_changed() -> None:
    first = run_(GATED, durable=Durable())
    asked: list[str] = []

    def ask(path: str, text: str, limit_s: float | None) -> Decision:
        asked.append(text)
        return Decision(approved=True)

    edited, given = GATED.replace("Go on", "Stop"), {"gate": Decision(approved=False)}
    record = run_(edited, durable=Durable(resume=first.id), decisions=given, ask=ask)

    assert asked == ["(the question has changed since it was shown)\nStop with plan?"]
    assert record.status == "succeeded"


# -- the end -------------------------------------------------------------------------------------------


def test_last_stages_run_whatever_happened() -> None:
    tail = """
    finally:
      - {id: tidy, run: 'echo "${{ run.status }} ${{ stages.a.status }}"'}
    """

    good, bad = run_("- {id: a, run: echo}", tail=tail), run_("- {id: a, run: exit 1}", tail=tail)

    assert (good.status, output(good, "finally/tidy")) == ("succeeded", "succeeded succeeded")
    assert (bad.status, output(bad, "finally/tidy")) == ("failed", "failed failed")


def test_a_last_stage_that_fails_fails_the_run() -> None:
    assert run_("- {id: a, run: echo}", tail="finally: [{id: b, run: exit 1}]\n").status == "failed"


def test_a_text_too_long_for_an_argument_comes_with_a_way_out() -> None:
    word = "'${{ stages.a.output }}'"
    record = run_(f"- {{id: a, run: seq 1 100000}}\n- {{id: b, run: ['true', {word}, {word}, {word}]}}")

    assert "too long arguments" in error(record, "b")
    assert "output: {save: text.txt}" in str(record.outcomes[1].hint)


def test_a_function_that_ends_its_process_is_named() -> None:
    Path("tools.py").write_text("import sys\ndef leave(code): sys.exit(code)\ndef bad(): raise ValueError('no')\n")
    record = run_(
        """
        - {id: bad, python: "tools:bad", on_error: continue}
        - {id: left, python: "tools:leave", with: {code: 3}, on_error: continue}
        - {id: gone, python: "tools:leave", with: {code: 0}, on_error: continue}
        """
    )

    assert error(record, "bad").startswith("the function 'tools:bad' ended with exit code 1: ValueError: no\n")
    assert error(record, "left") == "the function 'tools:leave' ended with exit code 3"
    assert error(record, "gone") == "the function 'tools:leave' has ended its process before it returned"
    assert record.outcomes[2].hint == "let it return its result, without sys.exit()"


def test_a_stage_with_a_ladder_is_not_told_to_take_one() -> None:
    stage = "- {id: a, prompt: x, attempts: 1, check: [output == 'no'], on_error: continue%s}"
    record = run_(
        stage % "" + "\n" + stage.replace("id: a", "id: b") % ", model: [cheap, expensive]",
        ScriptedProvider(otherwise="x"),
        expensive=ScriptedProvider(otherwise="y"),
    )

    assert "try `model: [cheap, expensive]` or a simpler contract" in str(record.outcomes[0].hint)
    assert "the whole ladder was asked: try a simpler contract" in str(record.outcomes[1].hint)


# -- the contract --------------------------------------------------------------------------------------


def test_reasons_are_fed_back_and_then_a_stronger_model_is_asked() -> None:
    cheap, strong = ScriptedProvider("one", "two"), ScriptedProvider("three", "four")

    record = run_(
        """
        - id: a
          model: [cheap, expensive]
          prompt: count
          check: [{that: "output == 'four'", say: "${{ output }} is not four"}]
        """,
        cheap,
        expensive=strong,
    )

    attempts = record.outcomes[0].attempts
    assert output(record, "a") == "four"
    assert [(attempt.event, attempt.name) for attempt in attempts] == [
        ("first", "small"),
        ("again", "small"),
        ("escalation", "large"),
        ("again", "large"),
    ]
    assert [message.content for message in strong.requests[0].messages][:2] == ["count", "two"]
    assert "two is not four" in strong.requests[0].messages[-1].content


def test_a_model_that_is_down_makes_the_stage_go_up() -> None:
    down = ScriptedProvider(otherwise=RateLimitError("down", status=503))

    record = run_("- {id: a, model: [cheap, expensive], prompt: x}", down, expensive=ScriptedProvider("fine"))

    assert output(record, "a") == "fine"
    assert record.outcomes[0].attempts[-1].event == "escalation"


def test_all_answers_rejected_are_told_with_the_last_reason_and_where_they_are() -> None:
    record = run_("- {id: a, attempts: 3, prompt: x, check: ['output | length > 9']}", ScriptedProvider(*"abc"))

    assert "flowcraft show a;" in str(record.outcomes[0].hint)

    assert "3 answers were not accepted, the last because: this does not hold: output | length > 9" in error(
        record, "a"
    )


def test_a_command_and_a_model_may_judge() -> None:
    verdict = json.dumps({"accepted": False, "reason": "too rude"})
    model = ScriptedProvider("draft", verdict, "final; $(touch hacked)", json.dumps({"accepted": True, "reason": ""}))

    record = run_(
        """
        - id: a
          prompt: write
          check:
            - run: test -n "${{ output }}"
            - ask: Is it polite?
        """,
        model,
    )

    assert output(record, "a") == "final; $(touch hacked)"
    assert not Path("hacked").exists()
    assert "too rude" in model.requests[2].messages[-1].content
    assert [attempt.event for attempt in record.outcomes[0].attempts] == ["first", "check", "again", "check"]


def test_a_command_is_tried_again() -> None:
    record = run_("- {id: a, retry: 3, run: 'echo x >> n; test $(wc -l < n) -ge 2'}")

    assert record.status == "succeeded"
    assert Path("n").read_text() == "x\nx\n"


# -- files ---------------------------------------------------------------------------------------------

CODE = """
- id: code
  reads: [src/**]
  writes: [src/**]
  prompt: Change it.
  output: files
  check:
    - that: output.files | length > 0
    - run: grep -q good src/a.txt
"""


def test_files_of_a_rejected_answer_are_put_back() -> None:
    Path("src").mkdir()
    Path("src/a.txt").write_text("old\n")
    bad = "src/a.txt\n```\nbad\n```\nsrc/new/b.txt\n```\nb\n```"
    good = "Here:\n\n**src/a.txt**\n````\ngood\n```\nfence\n```\n````\n"
    model = ScriptedProvider(bad, good)

    record = run_(CODE, model)

    assert record.status == "succeeded", record.outcomes[0].error
    assert output(record, "code")["files"] == ["src/a.txt"]
    assert Path("src/a.txt").read_text() == "good\n```\nfence\n```\n"
    assert not Path("src/new").exists()
    assert "src/a.txt\n```\nold\n```" in model.requests[0].messages[-1].content
    assert list(record.outcomes[0].written) == ["src/a.txt"]


def test_nothing_is_left_of_a_stage_that_fails() -> None:
    Path("src").mkdir()
    Path("src/a.txt").write_bytes(b"old")

    record = run_(CODE, ScriptedProvider(otherwise="src/a.txt\n```\nbad\n```\nsrc/c.txt\n```\n\n```"))

    assert record.status == "failed"
    assert Path("src/a.txt").read_bytes() == b"old"
    assert os.listdir("src") == ["a.txt"]


def test_only_what_may_be_written_is_written() -> None:
    model = ScriptedProvider("../x\n```\n1\n```", "docs/x\n```\n1\n```")

    record = run_(CODE, model)

    assert record.status == "failed"
    assert "leaves the workspace" in model.requests[1].messages[-1].content
    assert "docs/x may not be written, only src/**" in error(record, "code")


def test_an_answer_that_makes_a_file_a_folder_is_sent_back_with_the_reason() -> None:
    Path("src").mkdir()
    Path("src/a.txt").write_text("old")
    block = "```\ngood\n```\n"
    model = ScriptedProvider(f"src/b\n{block}src/b/c\n{block}", f"src/a.txt/d\n{block}", f"src/a.txt\n{block}")

    record = run_(CODE.replace("  output: files", "  attempts: 3\n  output: files"), model)

    assert record.status == "succeeded", record.outcomes[0].error
    assert "src/b/c is below src/b, which is a file" in model.requests[1].messages[-1].content
    assert "'src/a.txt/d' cannot be written: src/a.txt is a file" in model.requests[2].messages[-1].content
    assert os.listdir("src") == ["a.txt"]


def test_line_ends_and_the_missing_last_one_are_kept_and_files_deleted() -> None:
    Path("src").mkdir()
    Path("src/a.txt").write_bytes(b"1\r\n2")
    Path("src/gone").write_text("x")

    run_(CODE, ScriptedProvider("src/a.txt\n```\ngood\n3\n```\n\nsrc/gone (deleted)\n"))

    assert Path("src/a.txt").read_bytes() == b"good\r\n3"
    assert not Path("src/gone").exists()


# -- budgets -------------------------------------------------------------------------------------------


def test_a_budget_of_a_stage_stops_that_stage_only() -> None:
    model = ScriptedProvider(otherwise=Reply(content="x"))

    record = run_(
        """
        - {id: dear, on_error: continue, budget: {tokens: 10}, prompt: "a long question that is over its budget"}
        - {id: other, prompt: fine}
        """,
        model,
    )

    assert statuses(record) == {"dear": "failed", "other": "succeeded"}
    assert "'dear': the budget of 10 tokens is not enough" in error(record, "dear")
    assert model.prompts() == ["fine"]


def test_a_used_pipeline_is_tried_again_stage_by_stage() -> None:
    written("- {id: flaky, run: 'test -e tried || { touch tried; exit 1; }'}", name="inner.yaml")

    record = run_("- {id: call, uses: inner.yaml, retry: 1}")

    assert statuses(record) == {"call": "succeeded", "call/flaky": "succeeded"}


def test_until_and_check_of_a_used_pipeline_see_the_names_around_it() -> None:
    written("- {id: work, run: echo}", tail="outputs: {n: 1}", name="inner.yaml")

    record = run_(
        """
        - id: call
          uses: inner.yaml
          repeat: {until: loop.last and inputs.wanted == output.n, max: 2}
          check: [inputs.wanted == output.n]
        """,
        head="inputs: {wanted: {default: 1}}\n",
    )

    assert statuses(record) == {
        "call": "succeeded",
        "call[1]": "succeeded",
        "call[1]/work": "succeeded",
        "call[2]": "succeeded",
        "call[2]/work": "succeeded",
    }
