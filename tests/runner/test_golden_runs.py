"""What can only be known while a pipeline runs is told with file, line, code and the way out: exactly these words."""

from pathlib import Path

import pytest
from fakes import ScriptedProvider, llm_of
from pictures import png

from flowcraft.runner.run import run_pipeline

HEAD = "flowcraft: 1\ninputs: {n: {type: integer, default: 3}, t: {type: string, default: abc}}\nstages:\n"
CASES = {
    "FC300": (
        "  - {id: a, run: 'echo ${{ 1 / (inputs.n - 3) }}'}\n",
        "p.yaml:4: FC300: this divides by zero, in: echo ${{ 1 / (inputs.n - 3) }}",
        None,
    ),
    "FC300 null": (
        "  - {id: a, run: 'echo null', output: json}\n  - {id: b, run: 'echo ${{ stages.a.output }}'}\n",
        "p.yaml:5: FC300: 'stages.a.output' is null, in: echo ${{ stages.a.output }}",
        "give a fallback: stages.a.output | default('...')",
    ),
    "FC301": (
        "  - {id: a, run: 'echo 7', output: json}\n  - {id: b, if: stages.a.output, run: x}\n",
        "p.yaml:5: FC301: a condition must be true or false, and this is a number, in: stages.a.output",
        "compare it: x == 'yes', x | length > 0, x is not none",
    ),
    "FC302": (
        "  - {id: a, foreach: {in: range(inputs.n), max: 2}, run: x}\n",
        "p.yaml:4: FC302: 'a' has 3 items, at most 2 are allowed",
        "narrow it down, or allow more: foreach: {in: ..., max: 3}",
    ),
    "FC303": (
        "  - {id: a, prompt: x, reads: [large.png]}\n",
        "FC303: the image 'large.png' is larger than 5 MiB",
        "make it smaller in a stage before",
    ),
    "FC303 many": (
        "  - {id: a, prompt: x, reads: ['many/*']}\n",
        "FC303: with 'many/99.png' there are more than 100 images, or 20 MiB of them",
        "narrow `reads` down, or use foreach",
    ),
    "FC304": (
        "  - {id: a, prompt: x, reads: [data.bin]}\n",
        "FC304: 'data.bin' is neither text in UTF-8 (byte 0) nor an image (PNG, JPEG, GIF, WebP)",
        "convert it in a stage before, or leave it out of `reads`",
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
    Path("many").mkdir()
    for number in range(101):
        Path(f"many/{number}.png").write_bytes(png())

    with llm_of(Seeing()) as llm:
        record = run_pipeline("p.yaml", llm=llm)

    failed = next(outcome for outcome in record.outcomes if outcome.status == "failed")
    assert (failed.error, failed.hint) == (words, hint)
