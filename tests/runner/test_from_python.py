"""A pipeline from Python, as the README shows it."""

import re
from pathlib import Path

import pytest
from fakes import ScriptedProvider, llm_of

import flowcraft
from flowcraft.core.errors import PipelineError

README = Path(__file__).parents[2] / "README.md"
REVIEW = """flowcraft: 1
inputs: {text: string}
stages:
  - {id: mood, prompt: "Mood of: ${{ inputs.text }}"}
outputs: {mood: "${{ stages.mood.output }}"}
"""
SETTINGS = """llm:
  models: {m: {provider: replay, path: answers.jsonl}}
  cheap_model: m
  expensive_model: m
"""


def test_the_example_of_the_readme_runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "review.yaml").write_text(REVIEW)
    (workspace / "settings.yaml").write_text(SETTINGS)
    (workspace / "answers.jsonl").write_text('{"response": "happy"}\n')
    [code] = [one for one in re.findall("```python\n(.*?)```", README.read_text(), re.DOTALL) if "run_pipeline" in one]

    exec(compile(code, "README.md", "exec"), {})

    assert capsys.readouterr().out == ("['mood']\nsucceeded {'mood': 'happy'}\nmood succeeded happy None\n1 None\n")


def test_a_loaded_pipeline_runs_as_often_as_wanted(workspace: Path) -> None:
    (workspace / "review.yaml").write_text(REVIEW)
    pipeline = flowcraft.Pipeline.load("review.yaml")
    model = ScriptedProvider("good", "bad")

    with llm_of(model, None) as llm:
        found = [flowcraft.run_pipeline(pipeline, {"text": "x"}, llm=llm).outputs["mood"] for _ in range(2)]

    assert isinstance(pipeline, flowcraft.Pipeline)
    assert found == ["good", "bad"]


def test_a_pipeline_with_problems_is_not_loaded(workspace: Path) -> None:
    (workspace / "bad.yaml").write_text("flowcraft: 1\nstages: [{id: a, promt: x}]\n")

    with pytest.raises(PipelineError, match=r"bad.yaml:2:18: error\[FC101\]"):
        flowcraft.Pipeline.load("bad.yaml")
