"""Pipeline files: what is made of good ones, and the exact words about bad ones."""

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowcraft.core.errors import PipelineError
from flowcraft.pipeline.load import load
from flowcraft.pipeline.model import Command, Prompt

HERE = Path(__file__).parent
ERRORS = HERE / "errors"
MODELS = ("qwen3-coder-plus", "kiro-cli", "embedded")
CODES = {
    *("FC003", "FC004", "FC010", "FC011", "FC012", "FC100", "FC101", "FC102", "FC103", "FC104", "FC105", "FC106"),
    *("FC107", "FC110", "FC111", "FC112", "FC120", "FC121", "FC122", "FC123", "FC124", "FC125", "FC126", "FC127"),
    *("FC128", "FC129", "FC130", "FC131", "FC132", "FC140", "FC201", "FC202", "FC203", "FC204"),
    *("FC210", "FC220", "FC221", "FC222", "FC223", "FC224", "FC230", "FC240", "FC250", "FC301"),
}


def written(workspace: Path, text: str) -> Path:
    file = workspace / "p.yaml"
    file.write_text(text)
    return file


def complaints(file: Path) -> str:
    with pytest.raises(PipelineError) as error:
        load(file, models=MODELS)
    return str(error.value)


@pytest.mark.parametrize("file", sorted(ERRORS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_bad_file_gets_exactly_these_words(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ERRORS)
    warned = file.stem.startswith("fc250")

    told = "\n".join(map(str, load(Path(file.name)).warnings)) if warned else complaints(Path(file.name))

    assert told == file.with_suffix(".txt").read_text().rstrip("\n")


@pytest.mark.parametrize("stage", ["run: x, bogus: 1", "prompt: '${{ nothing }}'", "run: x, needs: [nobody]", "foo: 1"])
def test_of_very_many_problems_a_hundred_are_told(tmp_path: Path, stage: str) -> None:
    stages = "".join(f"  - {{id: s{number}, {stage}}}\n" for number in range(300))

    told = complaints(written(tmp_path, f"flowcraft: 1\nstages:\n{stages}")).splitlines()

    assert "error[FC002]: more than 100 problems; these are the first" in told[0]
    assert len([line for line in told if "error[" in line]) == 101


def test_a_schema_file_of_many_stages_is_explained_once(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"typ": "string"}')
    stages = "".join(f"  - {{id: s{n}, run: x, output: {{schema: {{file: s.json}}}}}}\n" for n in range(3))

    assert complaints(written(tmp_path, f"flowcraft: 1\nstages:\n{stages}")).count("FC127") == 1


def test_a_prompt_file_of_many_stages_is_warned_of_once(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("Do {{ inputs.task }}")
    stages = "".join(f"  - {{id: s{n}, prompt: {{file: p.md}}}}\n" for n in range(3))

    pipeline = load(written(tmp_path, f"flowcraft: 1\nstages:\n{stages}"))

    assert [warning.code for warning in pipeline.warnings] == ["FC250"]


def test_every_code_has_a_bad_file() -> None:
    told = {code for file in ERRORS.glob("*.txt") for code in re.findall(r"\[(FC\d+)\]", file.read_text())}

    assert told == CODES


def test_the_quickstart_is_loaded() -> None:
    pipeline = load(HERE / "examples" / "quickstart.yaml")

    first, second = pipeline.stages
    assert pipeline.name == "quickstart"
    assert (first.id, first.needs, first.kind, first.line) == ("requirements_analysis", (), "prompt", 6)
    assert second.needs == ("requirements_analysis",)
    assert isinstance(second.work, Prompt)
    assert second.work.model is None
    assert pipeline.outputs["design"].render({"stages": {"architecture_design": {"output": "D"}}}) == "D"
    assert [(one.name, one.schema, one.required) for one in pipeline.inputs] == [("request", {"type": "string"}, True)]


def test_a_pipeline_with_all_keys_is_loaded() -> None:
    pipeline = load(HERE / "examples" / "change.yaml", models=MODELS)
    stages = {stage.id: stage for stage in pipeline.stages}
    coding, publish, log = stages["coding"].work, stages["publish"].work, stages["log"].work

    assert isinstance(coding, Prompt)
    assert isinstance(publish, Command)
    assert isinstance(log, Command)
    assert coding.params == {"temperature": 0, "max_tokens": 8000, "thinking": True}
    assert coding.system is not None
    assert coding.system.text({}) == "You help programmers.\n"
    assert stages["coding"].timeout_s == 5400
    assert stages["log"].timeout_s == 300
    assert stages["style_review"].output.schema == stages["security_review"].output.schema
    assert stages["security_review"].output.format == "json"
    assert publish.cwd is not None
    assert publish.env["LIMIT"].text({}) == "3"
    assert [word.text({"inputs": {"target": "main"}}) for word in log.argv][-2:] == ["main", "3"]
    assert [(one.name, one.required, one.secret, one.env) for one in pipeline.inputs] == [
        ("request", True, False, None),
        ("target", False, False, None),
        ("token", True, True, "GITHUB_TOKEN"),
        ("limit", False, False, None),
    ]


def test_a_name_that_the_file_does_not_give_comes_from_the_file_name(workspace: Path) -> None:
    file = workspace / "Code Review-2.yaml"
    file.write_text("flowcraft: 1\nstages: [{id: a, prompt: hi}]\n")

    assert load(file).name == "code_review_2"


def test_without_known_models_every_name_is_accepted(workspace: Path) -> None:
    file = written(workspace, "flowcraft: 1\nstages: [{id: a, prompt: hi, model: whatever}]\n")

    assert load(file).stages[0].id == "a"


def test_a_link_out_of_the_folder_is_not_followed(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (workspace / "inside.txt").symlink_to(tmp_path / "secret.txt")
    (workspace / "loop").symlink_to(workspace / "loop")
    file = written(
        workspace,
        "flowcraft: 1\nstages:\n  - {id: a, prompt: {file: inside.txt}}\n  - {id: b, prompt: {file: loop}}\n",
    )

    found = complaints(file)

    assert "FC131" in found
    assert "FC130" in found
    assert "secret\n" not in found


@pytest.mark.parametrize("kind", ["fifo", "folder", "binary", "large"])
def test_a_prompt_file_that_is_no_text_is_refused_without_a_wait(workspace: Path, kind: str) -> None:
    place = workspace / "prompt.md"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_bytes(b"\xff\xfe\x00" if kind == "binary" else b"x" * (1 << 20 | 1))
    file = written(workspace, "flowcraft: 1\nstages: [{id: a, prompt: {file: prompt.md}}]\n")

    assert "FC130" in complaints(file)


@pytest.mark.parametrize("stage", ["uses: it", "prompt: x, output: {schema: {file: it}}", "prompt: {file: it}"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_folder_or_a_pipe_in_place_of_a_file_is_told_where_it_is_named(
    workspace: Path, stage: str, make: Callable[[Path], None]
) -> None:
    make(workspace / "it")
    line = f"  - {{id: a, {stage}}}"
    file = written(workspace, f"flowcraft: 1\nstages:\n{line}\n")

    assert f":3:{line.rindex('it') + 1}: error[FC130]: it is not an ordinary file" in complaints(file)


def test_secret_values_are_not_repeated(workspace: Path) -> None:
    text = "flowcraft: 1\ninputs: {t: {type: string, secret: 3}}\nsecrets: {key: hunter2}\nstages: [{id: a, run: x}]\n"

    assert "hunter2" not in complaints(written(workspace, text))


def test_a_long_chain_of_stages_is_loaded(workspace: Path) -> None:
    stages = "".join(f"  - {{id: s{n}, prompt: 'x ${{{{ stages.s0.output }}}}'}}\n" for n in range(1, 1500))
    file = written(workspace, "flowcraft: 1\nstages:\n  - {id: s0, prompt: hi}\n" + stages)

    assert len(load(file).stages) == 1500


def test_a_long_cycle_is_told_once(workspace: Path) -> None:
    stages = "".join(f"  - {{id: s{n}, run: x, needs: [s{(n + 1) % 1200}]}}\n" for n in range(1200))

    assert complaints(written(workspace, "flowcraft: 1\nstages:\n" + stages)).count("FC111") == 1


@pytest.mark.parametrize("text", ["", "[]", "3", "flowcraft: 1\nstages: {}", "flowcraft: 1\nstages: [[], 3, null]"])
def test_a_file_of_another_shape_is_a_pipeline_error(workspace: Path, text: str) -> None:
    assert complaints(written(workspace, text))


KEYS = [
    *("flowcraft", "stages", "id", "prompt", "run", "needs", "if", "output", "schema", "file", "save", "env"),
    *("cwd", "model", "params", "timeout", "inputs", "outputs", "type"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from(["a", "b", "${{ x", "${{ stages.a.output }}", "5m", "'", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5), st.lists(VALUES, max_size=3))
def test_any_data_is_a_pipeline_or_a_pipeline_error(workspace: Path, data: dict[str, Any], stages: list[Any]) -> None:
    file = written(workspace, json.dumps({"flowcraft": 1, **data, "stages": stages}))

    with suppress(PipelineError):
        assert load(file).stages


def test_a_condition_says_nothing_of_another_stage_with_the_same_name(tmp_path: Path) -> None:
    text = """\
flowcraft: 1
inputs: {deep: boolean}
stages:
  - {id: look, prompt: Look.}
  - id: group
    if: stages.look.ok
    stages:
      - {id: look, if: inputs.deep, prompt: Look again.}
      - {id: tell, prompt: "Tell: ${{ stages.look.output }}"}
"""
    with pytest.raises(PipelineError) as caught:
        load(written(tmp_path, text))

    assert [(problem.line, problem.code) for problem in caught.value.problems] == [(9, "FC224")]
