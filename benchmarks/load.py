"""CPU of reading, validating and checking a pipeline of 1,000 stages beside yaml.CSafeLoader alone, for several kinds
of files; of loading, ordering and planning ten times as many; and of one expression.

    python benchmarks/load.py [--stages 1000] [--rounds 11]

Rounds take turns and ratios are made within a round: a machine that becomes slower does so for both. No stage is
like another, and nothing is kept from one round to the next.
"""

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

import yaml

from flowcraft.pipeline import expr
from flowcraft.pipeline.expr import Expression, Template
from flowcraft.pipeline.load import load
from flowcraft.pipeline.plan import order

PLANNED = """\
llm:
  cheap_model: small
  expensive_model: small
  models:
    small: {provider: openai, model: m, context: 100000, max_tokens: 500, prices: {input: 0.25, output: 1}}
"""


def cpu_s(work: Callable[[], Any]) -> float:
    """The CPU time of one go, in seconds."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def fresh(file: Path) -> None:
    """Load without what earlier rounds have parsed: that is kept by text in one process."""
    for name in dir(expr):
        clear = getattr(getattr(expr, name), "cache_clear", None)
        if clear:
            clear()
    load(file)


def mixed(number: int) -> str:
    """What real files have, about 180 bytes a stage."""
    head, above = f"- id: stage_{number}\n", f"${{{{ stages.stage_{number - 1}.output }}}}"
    if number % 4 == 3:
        return (
            f'{head}  run: echo "{above}" | tr a-z A-Z\n  timeout: 30s\n'
            f"  description: Turns what stage {number - 1} has said into capital letters, for a start.\n"
        )
    text = f"Look at this text number {number} and say it shorter, please:\n    {above if number else ''}"
    return f"{head}  prompt: |\n    {text}\n  model: cheap\n  params: {{temperature: 0, max_tokens: {200 + number}}}\n"


def prompts(number: int) -> str:
    """One long text and one name: what yaml.CSafeLoader is fastest with."""
    above = f"${{{{ stages.stage_{number - 1}.output }}}}" if number else "Begin."
    words = " ".join(f"word{number + position}" for position in range(15))
    return f"- id: stage_{number}\n  prompt: |\n    {words}\n    {above}\n"


def commands(number: int) -> str:
    """Scripts, programs with arguments, and functions."""
    head = f"- id: stage_{number}\n"
    if number % 3 == 0:
        script = f'    grep -r "word {number}" src > out_{number}.txt\n    echo "${{{{ inputs.title }}}}" {number}\n'
        return f"{head}  run: |\n{script}  timeout: 5m\n  on_error: continue\n  env: {{LEVEL: debug}}\n"
    if number % 3 == 1:
        return f'{head}  run: [python, tool_{number}.py, --name, "${{{{ inputs.title }}}}", {number}]\n  retry: 2\n'
    values = f'{{title: "${{{{ inputs.title }}}}", number: {number}, items: [a, b]}}'
    return f"{head}  python: package.module_{number}:function\n  needs: [stage_{number - 1}]\n  with: {values}\n"


def rich(number: int) -> str:
    """Schemas, conditions, loops, checks, ladders and files, each in one stage of five."""
    head, above = f"- id: stage_{number}\n", f"stages.stage_{number - 1}"
    items = f"{{type: array, minItems: {number % 7 + 1}, items: {{type: string}}}}"
    risk = f"{{type: object, required: [risk], properties: {{risk: {{enum: [low, high]}}, items: {items}}}}}"
    kinds = (
        f"  prompt: Judge text {number}.\n  output: {{schema: {risk}}}\n",
        f"  if: {above}.output.risk != 'low'\n  prompt: |\n    Text {number}:\n"
        f"    ${{% for one in {above}.output.items %}}\n    - ${{{{ one }}}}\n    ${{% endfor %}}\n"
        f"  check: [{{that: output | length > {number}, say: More.}}]\n",
        f"  foreach: stages.stage_{number - 2}.output.items\n  prompt: Look at ${{{{ item }}}} in text {number}.\n",
        f"  prompt: Join ${{{{ {above}.output | join(', ') }}}} for {number}.\n  model: [cheap, expensive]\n",
        f'  if: {above}.ok\n  run: echo "${{{{ {above}.output }}}}" > {number}.txt\n  writes: [{number}.txt]\n',
    )
    return head + kinds[number % 5]


def groups(number: int) -> str:
    """A group with a group in it, every sixth number."""
    if number % 6:
        return ""
    leaves = "".join(
        f'      - {{id: leaf_{leaf}, prompt: "Say {number + leaf} ${{{{ stages.a.output }}}}"}}\n' for leaf in range(3)
    )
    inner = f"  - id: a\n    prompt: Look at {number}.\n  - id: b\n    stages:\n{leaves}"
    return f"- id: group_{number}\n  repeat: {{until: stages.a.ok, max: 3}}\n  stages:\n{inner}"


def short(number: int) -> str:
    """So little that 10,000 are below the limits of a file."""
    above = f"${{{{ stages.s{number - 1}.output }}}}" if number else "Begin."
    return f"- id: s{number}\n  prompt: Say this shorter. {above}\n"


def written(folder: Path, kind: Callable[[int], str], stages: int) -> Path:
    """A file of that many stages."""
    file = folder / f"{kind.__name__}_{stages}.yaml"
    text = "".join(kind(number) for number in range(stages))
    file.write_text(f"flowcraft: 1\ninputs: {{title: string}}\nstages:\n{text}", encoding="utf-8")
    return file


def against_yaml(file: Path, rounds: int) -> None:
    """Print how long it takes beside the bare loader."""
    text = file.read_text(encoding="utf-8")
    pairs = [
        (cpu_s(lambda: yaml.load(text, Loader=yaml.CSafeLoader)), cpu_s(lambda: fresh(file))) for _ in range(rounds)
    ]
    bare, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    low, ratio, high = statistics.quantiles([ours / bare for bare, ours in pairs], n=4)
    print(
        f"{file.stem:14} {len(text) / 1000:4.0f} kB: yaml {bare * 1000:5.1f} ms, load {ours * 1000:6.1f} ms, "
        f"{ratio:.2f} x [{low:.2f}, {high:.2f}]"
    )


def plan_s(folder: Path, file: Path) -> float:
    """The CPU time of `flowcraft plan`, its start included."""
    settings = folder / "settings.yaml"
    settings.write_text(PLANNED, encoding="utf-8")
    command = [sys.executable, "-m", "flowcraft", "plan", file.name, "--settings", settings.name, "-i", "title=t"]
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def growth(folder: Path, stages: int) -> None:
    """Print what ten times as many stages take."""
    files = [written(folder, short, count) for count in (1, stages, 10 * stages)]
    starts, *plans = (min(plan_s(folder, file) for _ in range(3)) for file in files)
    loads = [min(cpu_s(lambda file=file: fresh(file)) for _ in range(3)) for file in files[1:]]
    loaded = [load(file).stages for file in files[1:]]
    orders = [min(cpu_s(lambda one=one: order(one)) for _ in range(5)) for one in loaded]
    for name, (few, many) in (("plan", [plan - starts for plan in plans]), ("load", loads), ("order", orders)):
        each = f"{few * 1e3:.0f} and {many * 1e3:.0f} ms, {many / few:.1f} x"
        print(f"{name:5} of {stages} and {10 * stages} stages: {each}")


def expressions(calls: int = 10_000) -> None:
    """Print what one evaluation takes, once parsed."""
    scope = {"stages": {"a": {"output": {"risk": "low", "items": list(range(20))}}}}
    condition = Expression("stages.a.output.risk != 'low' and true")
    template = Template("x ${{ stages.a.output.risk }} y")
    listed = Template("${{ stages.a.output.items | join(', ') }}")
    for name, work in (
        ("condition", lambda: condition.condition(scope)),
        ("template of a name", lambda: template.text(scope)),
        ("template with a filter", lambda: listed.text(scope)),
    ):
        work()
        least = min(cpu_s(lambda work=work: [work() for _ in range(calls)]) for _ in range(5))
        print(f"{name}: {least / calls * 1e6:.1f} us a call")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=11)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in (mixed, prompts, commands, rich, groups):
            against_yaml(written(folder, kind, asked.stages), asked.rounds)
        growth(folder, asked.stages)
    expressions()


if __name__ == "__main__":
    main()
