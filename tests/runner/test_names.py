"""What templates can name."""

from pathlib import Path

from flowcraft.pipeline.expr import Template
from flowcraft.pipeline.model import Input, Pipeline
from flowcraft.runner.names import Names, RunNames
from flowcraft.runner.outcome import Outcome

PIPELINE = Pipeline(
    name="p",
    file=Path("p.yaml"),
    stages=(),
    inputs=(Input(name="open", schema={}), Input(name="token", schema={}, secret=True)),
)


def names() -> Names:
    return Names.of(PIPELINE, {"open": "o", "token": "t"}, RunNames("r1", Path("runs/r1")))


def test_a_secret_has_a_name_in_env_only() -> None:
    assert Template("${{ inputs.token | default('none') }}").text(names().public) == "none"
    assert Template("${{ inputs.token }}").text(names().private) == "t"


def test_a_stage_without_output_has_no_such_name() -> None:
    known = names()
    known.add("a", Outcome(path="a", kind="run", status="skipped", reason="x"), ())
    known.add("b", Outcome(path="b", kind="run", status="failed", error="x", output="some", exit_code=1), ())
    known.add("c", Outcome(path="c", kind="prompt", status="succeeded", output=None), ())

    text = Template("${{ stages.a.output is defined }} ${{ stages.b.output }} ${{ stages.c.output is defined }}")

    assert text.text(known.public) == "false some true"


def test_the_folder_of_the_run_is_not_made_before_it_is_named(workspace: Path) -> None:
    run = RunNames("r1", workspace / "runs" / "r1")

    assert Template("${{ run.id }} ${{ run.status }}").text({"run": run}) == "r1 running"
    assert not (workspace / "runs").exists()
    assert Template("${{ run.dir }}").text({"run": run}) == str(workspace / "runs" / "r1")
    assert (workspace / "runs" / "r1").is_dir()
