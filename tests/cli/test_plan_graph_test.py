"""`plan` with prices, `graph`, `test` and SARIF, by the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from pictures import png
from servers import ChatServer, Handler, answer

from flowcraft.cli.main import run_command

PIPELINE = """flowcraft: 1
inputs: {w: string}
stages:
  - id: a
    model: [cheap, expensive]
    prompt: say ${{ inputs.w }}
    check: [output | length > 9]
  - {id: gate, approve: ok?}
  - id: g
    repeat: {until: stages.b.output == 'x', max: 2}
    stages:
      - {id: b, run: echo x}
outputs: {said: "${{ stages.a.output }}"}
"""
SETTINGS = """llm:
  models:
    small: {provider: openai, model: s, base_url: http://127.0.0.1:9/v1, max_tokens: 500, prices: {input: 1, output: 2}}
    large: {provider: openai, model: l, base_url: http://127.0.0.1:9/v1, max_tokens: 500, prices: {input: 3, output: 9}}
  cheap_model: small
  expensive_model: large
"""
TEST = """
pipeline: p.yaml
inputs: {w: hello}
answers: {a: [no, nope, yes it is long enough]}
approve: {gate: true}
expect:
  status: succeeded
  stages:
    a: {status: succeeded, attempts: 3, rungs: [small, large]}
    gate: succeeded
  outputs: {said: yes it is long enough}
"""


@pytest.fixture(autouse=True)
def files(workspace: Path) -> None:
    (workspace / "p.yaml").write_text(PIPELINE)
    (workspace / "settings.yaml").write_text(SETTINGS)
    (workspace / "p.test.yaml").write_text(TEST)


def printed(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert run_command(list(argv)) == code
    return capsys.readouterr().out


def test_a_test_may_bring_an_image(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "a photo").write_bytes(png())
    (workspace / "p.yaml").write_text("flowcraft: 1\nstages: [{id: a, prompt: what is it?, reads: [in/*]}]\n")
    test = "pipeline: p.yaml\nanswers: {a: a cat}\nfiles: {in/x.png: {from: a photo}}\nexpect: {status: succeeded}\n"
    (workspace / "p.test.yaml").write_text(test)
    assert "ok" in printed(capsys, "test", "p.test.yaml")
    (workspace / "a photo").unlink()
    assert run_command(["test", "p.test.yaml"]) == 2
    assert "a photo cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["3", "{form: x}", "[x]"])
def test_a_file_of_a_test_is_text_or_a_copy(content: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "p.test.yaml").write_text(f"pipeline: p.yaml\nfiles: {{x: {content}}}\n")
    assert run_command(["test", "p.test.yaml"]) == 2
    assert "files.x is neither text nor a file to copy" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["{0}/victim.txt", "../victim.txt", "a/../../victim.txt", "."])
def test_files_of_a_test_stay_in_its_folder(name: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = workspace.parent / "victim.txt"
    victim.write_text("kept")
    name = name.format(workspace.parent)
    (workspace / "p.test.yaml").write_text(f"- pipeline: p.yaml\n  files:\n    '{name}': overwritten\n")

    assert run_command(["test", "p.test.yaml"]) == 2

    assert f"p.test.yaml:3:5: error[FC131]: files.{name} is outside" in capsys.readouterr().err
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a/b"), ("a", "./a")])
def test_files_of_a_test_do_not_stand_in_the_way_of_others(
    names: tuple[str, str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = names
    (workspace / "p.test.yaml").write_text(f"pipeline: p.yaml\nfiles:\n  {first}: x\n  {second}: x\n")

    assert run_command(["test", "p.test.yaml"]) == 2

    assert f"p.test.yaml:4:3: error[FC131]: files.{second} and files.{first} cannot both" in capsys.readouterr().err


def test_a_file_of_a_test_with_an_impossible_name_is_told(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "p.test.yaml").write_text(f"pipeline: p.yaml\nfiles:\n  {'x' * 300}: x\n")

    assert run_command(["test", "p.test.yaml"]) == 2

    assert "cannot be written: File name too long" in capsys.readouterr().err


def test_a_test_does_not_wait_for_a_pipe(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(workspace / "pipe")
    (workspace / "p.test.yaml").write_text("pipeline: p.yaml\nfiles: {x: {from: pipe}}\n")

    assert run_command(["test", "p.test.yaml"]) == 2

    assert "pipe is not an ordinary file" in capsys.readouterr().err


def test_plan_shows_calls_and_prices(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "plan", "p.yaml", "-i", "w=hi")
    data = json.loads(printed(capsys, "plan", "p.yaml", "-i", "w=hi", "--json"))

    assert "small -> large  1-4" in text
    assert "g/b" in text
    assert data["stages"][0]["calls"] == [1, 4]
    assert data["ceiling_usd"] >= (500 * 2 * 2 + 500 * 9 * 2) / 1e6
    assert data["usual_usd"] < data["ceiling_usd"]


def test_plan_says_where_a_budget_ends(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    (workspace / "p.yaml").write_text(PIPELINE.replace("stages:\n", "budget: {usd: 0.001}\nstages:\n", 1))

    text = printed(capsys, "plan", "p.yaml")

    assert "at worst the run stops at 'a'" in text
    assert "counted as empty: w (give them with -i)" in text


def test_plan_takes_inputs_from_their_variables(
    capsys: pytest.CaptureFixture[str], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "p.yaml").write_text(PIPELINE.replace("w: string", "w: {type: string, env: WORD}"))
    assert "counted as empty: w" in printed(capsys, "plan", "p.yaml")

    monkeypatch.setenv("WORD", "x" * 4000)
    text = printed(capsys, "plan", "p.yaml")
    assert "counted as empty" not in text
    assert json.loads(printed(capsys, "plan", "p.yaml", "--json"))["stages"][0]["first_input"] > 900


def test_a_budget_that_cannot_be_kept_is_refused_and_plan_says_so(
    capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    (workspace / "settings.yaml").write_text(SETTINGS.replace(", prices: {input: 1, output: 2}", ""))
    assert "a run is refused" not in printed(capsys, "plan", "p.yaml")
    said = (
        "'a': there is a budget in money, but 'small' has no known price\n  = help: a budget in calls or tokens; or say"
        " what it costs: llm: {models: {small: {prices: {input: ..., output: ...}}}}; or leave such calls out of the"
        " budget: llm: {prices: {unknown: allow}}\n"
    )

    assert run_command(["run", "p.yaml", "-i", "w=hi", "--budget", "usd=1"]) == 2
    assert said in capsys.readouterr().err
    (workspace / "p.yaml").write_text(PIPELINE.replace("stages:\n", "budget: {usd: 1}\nstages:\n", 1))
    assert f"a run is refused: {said}" in printed(capsys, "plan", "p.yaml")


def test_plan_shows_the_budgets_of_stages_and_used_pipelines(
    capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    (workspace / "used.yaml").write_text("flowcraft: 1\nbudget: {time: 90}\nstages: [{id: b, prompt: hi}]\n")
    group = "{id: g, budget: {usd: 5, tokens: 20k}, stages: [{id: c, prompt: hi, budget: {usd: 1}}]}"
    stages = (
        f"[{{id: a, prompt: hi, budget: {{usd: 0.0001}}}}, {group}, {{id: u, uses: used.yaml, budget: {{usd: 2}}}}]"
    )
    (workspace / "p.yaml").write_text(f"flowcraft: 1\nstages: {stages}\n")

    text = printed(capsys, "plan", "p.yaml")

    assert [line for line in text.splitlines() if line.startswith("budget of")] == [
        "budget of a: $0.0001; at worst it stops at 'a'",
        "budget of g: $5, 20000 tokens",
        "budget of g/c: $1",
        "budget of u: $2",
        "budget of u: 90.0 s",
    ]
    rows = {row["stage"]: row["budgets"] for row in json.loads(printed(capsys, "plan", "p.yaml", "--json"))["stages"]}
    assert rows["u"] == [{"usd": 2}, {"time": 90.0}]
    assert rows["u/b"] == []


def test_plan_says_where_nothing_limits_an_answer(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    (workspace / "settings.yaml").write_text(SETTINGS.replace(", max_tokens: 500", ""))
    text = printed(capsys, "plan", "p.yaml")
    assert "note: a: there is no ceiling for small: nothing limits its answers: set max_tokens" in text


def test_plan_renders_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert "=== a: prompt\nsay hi\n" in printed(capsys, "plan", "p.yaml", "-i", "w=hi", "--render")
    assert "say ${{ inputs.w }}" in printed(capsys, "plan", "p.yaml", "--render")


def test_a_pipeline_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    mermaid, dot = printed(capsys, "graph", "p.yaml"), printed(capsys, "graph", "p.yaml", "--format", "dot")

    assert 'gate{{"gate: approve"}}' in mermaid
    assert "a --> gate" in mermaid
    assert "gate -> g__b [lhead=cluster_g];" in dot


def test_scripted_answers_are_played_and_judged(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    assert "1 passed, 0 failed" in printed(capsys, "test")

    (workspace / "p.test.yaml").write_text(TEST.replace("attempts: 3", "attempts: 2").replace("enough]", "enough, x]"))
    text = printed(capsys, "test", code=1)

    assert "a: attempts is 3, not 2" in text
    assert "answers.a: 1 not asked for" in text


def test_a_file_that_cannot_be_run_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    (workspace / "a.test.yaml").write_text("[")
    (workspace / "b.test.yaml").write_text("- {pipeline: gone.yaml}\n- {pipeline: p.yaml, name: lacking}\n")
    (workspace / "c.test.yaml").write_text("name: nothing\n")

    assert run_command(["test"]) == 2

    said = capsys.readouterr()
    assert "ok  p.test.yaml: test 1" in said.out
    assert "1 passed, 0 failed, 4 cannot be run" in said.out
    assert [line for line in said.out.splitlines() if line.startswith("ERROR")] == [
        "ERROR  a.test.yaml",
        "ERROR  b.test.yaml: test 1",
        "ERROR  b.test.yaml: lacking",
        "ERROR  c.test.yaml",
    ]
    assert "b.test.yaml: lacking: input 'w' is missing: inputs: {w: ...}" in said.err


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ("{status: done}", "no run ends as 'done'\n  = help: known: failed, interrupted, paused"),
        ("{status: suceeded}", "did you mean 'succeeded'?"),
        (
            "{stages: {a: suceeded}}",
            "expect.stages.a: no stage ends as 'suceeded'\n  = help: did you mean 'succeeded'?",
        ),
        ("{stages: {a: {status: done}}}", "expect.stages.a: no stage ends as 'done'"),
        ("{stages: [a]}", "'stages' is a map"),
        ("{outputs: x}", "'outputs' is a map"),
    ],
)
def test_an_expectation_that_nothing_can_fulfil_is_told(
    expect: str, said: str, capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    (workspace / "p.test.yaml").write_text(f"pipeline: p.yaml\ninputs: {{w: x}}\nexpect: {expect}\n")

    assert run_command(["test"]) == 2
    assert said in capsys.readouterr().err


def test_a_decision_of_a_test_is_true_or_false(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    (workspace / "p.test.yaml").write_text("pipeline: p.yaml\napprove: {gate: perhaps}\n")

    assert run_command(["test"]) == 2
    assert "approve.gate is neither true nor false" in capsys.readouterr().err


def test_a_test_keeps_a_budget_in_money_where_the_real_model_does(
    capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    model = "{provider: anthropic, model: m, prices: {input: 1, output: 2}}"
    (workspace / "settings.yaml").write_text(f"llm: {{models: {{m: {model}}}, cheap_model: m, expensive_model: m}}\n")
    (workspace / "p.yaml").write_text("flowcraft: 1\nbudget: {usd: 1}\nstages: [{id: a, prompt: hi}]\n")
    (workspace / "p.test.yaml").write_text("pipeline: p.yaml\nanswers: {a: ho}\nexpect: {status: succeeded}\n")

    assert "1 passed, 0 failed" in printed(capsys, "test")


def test_a_test_made_from_a_run_of_models_fails_when_the_pipeline_is_changed(
    capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    words = iter(["no", "nope", "yes it is long enough"])
    with ChatServer(lambda handler: answer(next(words))(handler)) as server:
        (workspace / "settings.yaml").write_text(SETTINGS.replace("http://127.0.0.1:9/v1", server.base_url))
        assert run_command(["run", "p.yaml", "-i", "w=hello"]) == 3
        assert run_command(["approve"]) == 0
    capsys.readouterr()
    printed(capsys, "test", "--record", _latest(capsys), "again.test.yaml")

    assert "1 passed, 0 failed" in printed(capsys, "test", "again.test.yaml")
    (workspace / "p.yaml").write_text(PIPELINE.replace("length > 9", "length > 3"))
    text = printed(capsys, "test", "again.test.yaml", code=1)
    assert "a: attempts is 2, not 3" in text
    assert 'outputs.said is "nope", not "yes it is long enough"' in text
    assert "answers.a: 1 not asked for" in text


def test_a_test_is_made_from_a_run(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    stages, outputs = "stages: [{id: a, run: echo hi}]", "outputs: {x: '${{ stages.a.output }}'}"
    (workspace / "p.yaml").write_text(f"flowcraft: 1\n{stages}\n{outputs}\n")
    printed(capsys, "run", "p.yaml")

    printed(capsys, "test", "--record", _latest(capsys), "again.test.yaml")

    assert "1 passed, 0 failed" in printed(capsys, "test", "again.test.yaml")


RECORDED = """flowcraft: 1
inputs: {pattern: {type: string, default: 'docs/*.md'}, token: {type: string, secret: true}}
stages:
  - {id: facts, prompt: "facts of ${{ read('notes.md') }}", output: {save: facts.md}}
  - id: each
    foreach: {in: glob(inputs.pattern), as: path, parallel: 4}
    prompt: "sum up ${{ read(path) }}"
    check: [output | length > 3]
  - {id: pair, stages: [{id: one, prompt: one}, {id: two, needs: [], prompt: two}]}
  - {id: last, prompt: "all of ${{ stages.each.output | join(' ') }}", reads: [notes.md], needs: [each, facts, pair]}
outputs: {said: "${{ stages.each.output }}", last: "${{ stages.last.output }}"}
"""


def test_a_test_made_from_a_run_needs_nothing_else(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    (workspace / "docs").mkdir()
    for name in ("a", "b", "c", "d"):
        (workspace / f"docs/{name}.md").write_text(f"text {name}\x1b\u2028")
    (workspace / "notes.md").write_text("first notes")
    (workspace / "r.yaml").write_text(RECORDED)
    words = count()

    def said(handler: Handler) -> None:
        number = next(words)
        answer(f"answer {number}" if number % 3 else "no")(handler)

    with ChatServer(said) as server:
        (workspace / "settings.yaml").write_text(SETTINGS.replace("http://127.0.0.1:9/v1", server.base_url))
        for text in ("first", "second"):
            (workspace / "notes.md").write_text(text)
            assert run_command(["run", "r.yaml", "-i", "token=x"]) == 0
    capsys.readouterr()
    assert "cached" in printed(capsys, "show")

    (workspace / "tests").mkdir()
    printed(capsys, "test", "--record", _latest(capsys), "tests/again.test.yaml")
    for file in ("notes.md", "docs", "facts.md", ".flowcraft"):
        shutil.rmtree(file, ignore_errors=True)
        Path(file).unlink(missing_ok=True)

    assert "1 passed, 0 failed" in printed(capsys, "test", "tests/again.test.yaml")


def test_a_run_that_was_stopped_is_no_test(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    (workspace / "p.yaml").write_text("flowcraft: 1\nstages: [{id: a, run: kill -9 $PPID}]\n")
    subprocess.run([sys.executable, "-m", "flowcraft", "run", "p.yaml"], capture_output=True, check=False)

    assert run_command(["test", "--record", _latest(capsys), "again.test.yaml"]) == 2
    assert "has not come to its end" in capsys.readouterr().err


def _latest(capsys: pytest.CaptureFixture[str]) -> str:
    found: str = json.loads(printed(capsys, "runs", "--json"))[0]["id"]
    return found


def test_problems_are_given_as_sarif(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    (workspace / "bad.yaml").write_text("flowcraft: 1\nstages: [{id: a, promt: x}]\n")

    log = json.loads(printed(capsys, "validate", "--format", "sarif", "bad.yaml", code=2))

    result = log["runs"][0]["results"][0]
    assert (log["version"], result["ruleId"]) == ("2.1.0", "FC101")
    region = result["locations"][0]["physicalLocation"]["region"]
    assert (region["startLine"], region["startColumn"], region["endColumn"]) == (2, 18, 23)


AWKWARD = """flowcraft: 1
inputs: {x: {default: a}}
stages:
  - {id: end, prompt: hi}
  - {id: subgraph, if: "inputs.x == 'a\\"b' or inputs.x == '[(%%{init}%% &lt; #35; <b>'", run: echo}
  - id: class
    stages:
      - {id: end, run: echo}
  - {id: a__b, run: echo}
  - id: a
    stages:
      - {id: b, run: echo}
finally:
  - {id: end, run: echo}
"""


def test_ids_that_are_words_of_the_drawing_get_other_names(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    # Both were given to the real parsers (mermaid 11, graphviz); without one here, names and quotes are looked at.
    (workspace / "p.yaml").write_text(AWKWARD)

    mermaid, dot = printed(capsys, "graph", "p.yaml"), printed(capsys, "graph", "p.yaml", "--format", "dot")

    names = re.findall(r'^ *(?:subgraph )?(\w+)[(\[]+"', mermaid, re.MULTILINE)
    assert names == ["S_end", "S_subgraph", "S_class", "S_class__end", "a_U_b", "a", "a__b", "FINALLY", "FINALLY__end"]
    assert "S_class --> a_U_b\n" in mermaid
    assert "S_class__end -> a_U_b [ltail=cluster_S_class];" in dot
    for text in (mermaid, dot):
        labels = [line for line in text.splitlines() if "subgraph: run" in line]
        assert [line.count('"') for line in labels] == [2]
        assert not set("<>#&").intersection(labels[0])
        assert "%%" not in labels[0]


@pytest.mark.skipif(not shutil.which("dot"), reason="needs graphviz")
def test_dot_reads_the_drawing(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    (workspace / "p.yaml").write_text(AWKWARD)

    dot = printed(capsys, "graph", "p.yaml", "--format", "dot")

    drawn = subprocess.run(["dot", "-Tplain"], input=dot, capture_output=True, text=True, check=True).stdout
    nodes = [line.split()[1] for line in drawn.splitlines() if line.startswith("node ")]
    assert sorted(nodes) == ["FINALLY__end", "S_class__end", "S_end", "S_subgraph", "a_U_b", "a__b"]


def test_a_sarif_log_has_the_shape_that_code_scanning_takes(
    capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    # The logs of such files were held to the schema of OASIS (2.1.0, errata 01); this is what it asks of them.
    place = workspace / "é #1"
    place.mkdir()
    (place / "日本 ?.yaml").write_text('flowcraft: 1\nstages:\n  - {id: a, "😀": x, prompt: "${{ inputs.é }}"}\n')
    (workspace / "end.yaml").write_text("flowcraft: 1\nstages: [{id: a")
    files = ["p.yaml", "é #1/日本 ?.yaml", "end.yaml", "gone.yaml"]

    log = json.loads(printed(capsys, "validate", "--format", "sarif", *files, code=2))

    assert set(log) == {"$schema", "version", "runs"}
    [run] = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(run["results"]) >= 4
    assert {result["level"] for result in run["results"]} <= {"error", "warning", "note", "none"}
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["message"]["text"]
        [where] = (location["physicalLocation"] for location in result["locations"])
        assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", where["artifactLocation"]["uri"])
        region = where.get("region")
        assert region is None or (region["startLine"] >= 1 and 1 <= region["startColumn"] < region["endColumn"])
    empty = json.loads(printed(capsys, "validate", "--format", "sarif", "p.yaml"))
    assert empty["runs"][0]["results"] == empty["runs"][0]["tool"]["driver"]["rules"] == []
