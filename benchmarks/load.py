"""CPU of reading, validating and checking a 1,000-stage pipeline, beside yaml.CSafeLoader alone; and of a plan.

python benchmarks/load.py [--stages 1000] [--plan 10000]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from flowcraft.pipeline.expr import Expression, Template
from flowcraft.pipeline.load import load
from flowcraft.pipeline.plan import order

ROUNDS = 7


def cpu_s(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The least CPU time of some rounds, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def pipeline_text(stages: int) -> str:
    """About 180 bytes a stage, with what real files have."""
    lines = ["flowcraft: 1", "inputs: {request: string}", "stages:"]
    for number in range(stages):
        lines.append(f"  - id: stage_{number}")
        if number % 4 == 3:
            lines += [f'    run: echo "${{{{ stages.stage_{number - 1}.output }}}}" | tr a-z A-Z', "    timeout: 30s"]
            lines.append("    description: Turns what the stage above has said into capital letters, for a start.")
        else:
            before = f"${{{{ stages.stage_{number - 1}.output }}}}" if number else "${{ inputs.request }}"
            lines += [
                "    prompt: |",
                f"      Look at this text number {number} and say it shorter, please:",
                f"      {before}",
            ]
            lines += ["    model: cheap", "    params: {temperature: 0, max_tokens: 200}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--plan", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="only the times of the first line, as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "p.yaml"
        text = pipeline_text(asked.stages)
        file.write_text(text, encoding="utf-8")
        # They take turns. Nothing is kept from one round to the next: what is parsed is kept by text in one process.
        rounds = [
            (cpu_s(lambda: yaml.load(text, yaml.CSafeLoader), 1), cpu_s(lambda: fresh(file), 1)) for _ in range(ROUNDS)
        ]
        if asked.json:
            print(json.dumps({"flowcraft": [ours for _, ours in rounds], "CSafeLoader": [bare for bare, _ in rounds]}))
            return
        bare, ours = (min(times) for times in zip(*rounds, strict=True))
        print(
            f"{asked.stages} stages, {len(text) / 1000:.0f} kB: "
            f"yaml {bare:.3f} s, load {ours:.3f} s, {ours / bare:.2f} x"
        )
    for count in (asked.plan // 10, asked.plan):
        pipeline = chain(count)
        print(f"order of {count} stages: {cpu_s(lambda pipeline=pipeline: order(pipeline), 3) * 1000:.1f} ms")
    scope = {"stages": {"a": {"output": {"risk": "low", "items": list(range(20))}}}}
    expression, template = (
        Expression("stages.a.output.risk != 'low' and true"),
        Template("x ${{ stages.a.output.risk }} y"),
    )
    for name, work in (("expression", lambda: expression.condition(scope)), ("template", lambda: template.text(scope))):
        work()
        print(f"{name}: {cpu_s(lambda work=work: [work() for _ in range(1000)]) * 1000:.1f} us a call")


def fresh(file: Path) -> None:
    """Load without what earlier rounds have parsed."""
    from flowcraft.pipeline import expr

    for name in dir(expr):
        clear = getattr(getattr(expr, name), "cache_clear", None)
        if clear:
            clear()
    load(file)


def chain(count: int) -> Any:
    """Stages in a row, without a file."""
    from flowcraft.pipeline.model import Command, Stage

    return [Stage(id=f"s{n}", work=Command(), needs=(f"s{n - 1}",) if n else ()) for n in range(count)]


if __name__ == "__main__":
    main()
