"""What can only be known while a pipeline runs is told with file, line, code and the way out: exactly these words."""

import os
from pathlib import Path

import pytest
from fakes import ScriptedProvider, llm_of
from pictures import png

from flowcraft.runner.run import run_pipeline

HEAD = "flowcraft: 1\ninputs: {n: {type: integer, default: 3}, t: {type: string, default: abc}}\nstages:\n"
USED = """flowcraft: 1
inputs: {number: integer}
stages: [{id: b, run: 'true'}]
outputs: {o: '${{ 1 / inputs.number }}'}
"""
CASES = {
    "FC300": (
        "  - {id: a, run: 'echo ${{ 1 / (inputs.n - 3) }}'}\n",
        "p.yaml:4:24: FC300: this divides by zero, in: echo ${{ 1 / (inputs.n - 3) }}",
        None,
    ),
    "FC300 null": (
        "  - {id: a, run: 'echo null', output: json}\n  - {id: b, run: 'echo ${{ stages.a.output }}'}\n",
        "p.yaml:5:28: FC300: 'stages.a.output' is null, in: echo ${{ stages.a.output }}",
        "give a fallback: stages.a.output | default('...')",
    ),
    "FC301": (
        "  - {id: a, run: 'echo 7', output: json}\n  - {id: b, if: stages.a.output, run: x}\n",
        "p.yaml:5:17: FC301: a condition must be true or false, and this is a number, in: stages.a.output",
        "compare it: x == 'yes', x | length > 0, x is not none",
    ),
    "FC302": (
        "  - {id: a, foreach: {in: range(inputs.n), max: 2}, run: x}\n",
        "p.yaml:4:27: FC302: 'a' has 3 items, at most 2 are allowed",
        "narrow it down, or allow more: foreach: {in: ..., max: 3}",
    ),
    "FC303": (
        "  - {id: a, prompt: x, reads: [large.png]}\n",
        "p.yaml:4:31: FC303: the image 'large.png' is larger than 5 MiB",
        "make it smaller in a stage before",
    ),
    "FC303 many": (
        "  - {id: a, prompt: x, reads: ['many/*']}\n",
        "p.yaml:4:31: FC303: with 'many/99.png' there are more than 100 images, or 20 MiB of them",
        "narrow `reads` down, or use foreach",
    ),
    "FC304": (
        "  - {id: a, prompt: x, reads: [data.bin]}\n",
        "p.yaml:4:31: FC304: 'data.bin' is neither text in UTF-8 (byte 0) nor an image (PNG, JPEG, GIF, WebP)",
        "convert it in a stage before, or leave it out of `reads`",
    ),
    "FC210": (
        "  - {id: a, run: 'echo --x'}\n  - {id: b, run: [ls, '${{ stages.a.output }}']}\n",
        "p.yaml:5:24: FC210: '--x' would be an option of 'ls', and comes from a result, in: ${{ stages.a.output }}",
        "write -- before it, or both in one: run: [ls, ..., '--name=${{ stages.a.output }}']",
    ),
    "FC210 in a check": (
        "  - {id: a, run: 'echo --x', check: [{run: [ls, '${{ output }}']}]}\n",
        "p.yaml:4:50: FC210: '--x' would be an option of 'ls', and comes from a result, in: ${{ output }}",
        "write -- before it, or both in one: run: [ls, ..., '--name=${{ output }}']",
    ),
    "a map under foreach": (
        "  - {id: a, run: 'echo {}', output: json}\n  - {id: b, foreach: stages.a.output, run: x}\n",
        "p.yaml:5:22: 'foreach' of 'b' goes over a list, and this is a map",
        None,
    ),
    "a question of a check": (
        "  - {id: a, run: 'echo null', output: json, check: [{ask: 'Is ${{ output }} right?'}]}\n",
        "p.yaml:4:67: FC300: 'output' is null, in: Is ${{ output }} right?",
        "give a fallback: output | default('...')",
    ),
    "a file that is missing": (
        "  - id: a\n    run: x\n    reads:\n      - none.md\n",
        "p.yaml:7:7: 'a' reads none.md, and there is no such file",
        "check its name, or make it in a stage before; one that may be missing needs a glob",
    ),
    "a folder that is missing": (
        "  - {id: a, run: x, cwd: '${{ inputs.t }}'}\n",
        "p.yaml:4:26: there is no folder 'abc' in {here}",
        "make it in a stage before this one",
    ),
    "a path outside": (
        "  - {id: a, prompt: x, output: {save: '../${{ inputs.t }}'}}\n",
        "p.yaml:4:39: '../abc' leaves the workspace",
        "use a path relative to the workspace, without '..'",
    ),
    "a model that nobody knows": (
        "  - id: a\n    prompt: x\n    model: ${{ inputs.t }}\n",
        "p.yaml:6:12: FC129: unknown model 'abc'",
        "known: embedded, kiro-cli, large, qwen-code, qwen3-coder-plus, small; any other with its provider: openai/abc",
    ),
    "no prompt": (
        "  - {id: a, run: 'true'}\n  - id: b\n    prompt: ${{ stages.a.output }}\n",
        "p.yaml:6:13: the prompt of 'b' is empty",
        "look at the values it is made of",
    ),
    "a text from a file": (
        "  - {id: a, prompt: {file: text.md}}\n",
        "text.md:2:8: FC300: this divides by zero, in: of ${{ 1 / (inputs.n - 3) }}.",
        None,
    ),
    "a default": (
        "  - {id: a, prompt: x}\ndefaults: {system: 'Be ${{ 1 / (inputs.n - 3) }}'}\n",
        "p.yaml:5:28: FC300: this divides by zero, in: Be ${{ 1 / (inputs.n - 3) }}",
        None,
    ),
    "a pipe under reads": (
        "  - {id: a, prompt: x, reads: [pipe]}\n",
        "p.yaml:4:31: 'a' reads pipe, which is not an ordinary file",
        "name a file",
    ),
    "a folder that is to be read": (
        "  - {id: a, prompt: \"${{ read('many') }}\"}\n",
        "p.yaml:4:26: FC300: 'many' is a folder, in: ${{ read('many') }}",
        "name a file; 'many/**' means all files in it",
    ),
    "an input of a used pipeline": (
        "  - {id: a, uses: used.yaml, with: {number: '${{ inputs.t }}'}}\n",
        "p.yaml:4:45: the input 'number' of 'a' does not fit: it is 'abc', a whole number is wanted",
        "look at its `with`",
    ),
    "an output of a used pipeline": (
        "  - {id: a, uses: used.yaml, with: {number: 0}}\n",
        "used.yaml:4:15: FC300: output 'o': this divides by zero, in: ${{ 1 / inputs.number }}",
        None,
    ),
}


class Seeing(ScriptedProvider):
    takes_images = True


@pytest.mark.parametrize("name", CASES)
def test_a_failure_while_running_has_these_words(name: str) -> None:
    stages, words, hint = CASES[name]
    Path("p.yaml").write_text(HEAD + stages)
    Path("data.bin").write_bytes(b"\xff\xfe\x00")
    Path("large.png").write_bytes(png(pad=5 << 20))
    Path("text.md").write_text("The part\nof ${{ 1 / (inputs.n - 3) }}.\n")
    Path("used.yaml").write_text(USED)
    os.mkfifo("pipe")
    Path("many").mkdir()
    for number in range(101):
        Path(f"many/{number}.png").write_bytes(png())

    with llm_of(Seeing()) as llm:
        record = run_pipeline("p.yaml", llm=llm)

    failed = next(outcome for outcome in record.outcomes if outcome.status == "failed")
    assert (failed.error, failed.hint) == (words.replace("{here}", str(Path.cwd())), hint)


def test_an_output_that_cannot_be_made_is_told_with_its_place() -> None:
    outputs = "  - {id: a, run: 'true'}\noutputs:\n  one: fine\n  two: |\n    Hello\n    to ${{ 1 / (inputs.n - 3) }}\n"
    Path("p.yaml").write_text(HEAD + outputs)

    with llm_of(Seeing()) as llm:
        record = run_pipeline("p.yaml", llm=llm)

    told = "p.yaml:9:12: FC300: output 'two': this divides by zero, in: to ${{ 1 / (inputs.n - 3) }}"
    assert (record.status, record.error) == ("failed", told)
