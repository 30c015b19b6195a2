"""What hostile pipelines cost before they are refused: CPU beyond that of a harmless file, and peak memory.

    python benchmarks/hostile.py

Each is a file of its own in a `flowcraft validate` or `flowcraft run` of its own. Bars (bad input): 1 s, 256 MiB.
What the refusals say is tested in tests/core/test_document.py and tests/pipeline.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_CPU_S, MOST_MIB = 1.0, 256
PATIENCE_S = 60
HEAD = "flowcraft: 1\n"
STAGES = "stages: [{id: a, run: 'true'}]\n"
LETTERS = "abcdefghij"


def documents() -> Iterator[tuple[str, str]]:
    """YAML that is small and large at once, deep, long, or of odd values (reliability 5.1 to 5.7)."""
    for kind, one in (("lists", "[{}]"), ("maps", "{{{}}}"), ("merges", "{{<<: [{}]}}")):
        lines = [f"x-a: &a {one.format('1, 1' if kind == 'lists' else 'k: 1')}"]
        for before, name in itertools.pairwise(LETTERS):
            inside = [f"q{number}: *{before}" if kind == "maps" else f"*{before}" for number in range(9)]
            lines.append(f"x-{name}: &{name} {one.format(', '.join(inside))}")
        yield f"aliases in {kind}", HEAD + "\n".join(lines) + "\n" + STAGES
    for depth in (1_000, 100_000, 1_000_000):
        yield f"{depth:,} brackets", "[" * depth
    yield "2 MiB", HEAD + "#" + "x" * (2 << 20)
    yield "500,000 items", HEAD + "x-a: [" + "1," * 500_000 + "]\n"
    yield "90,000 keys", HEAD + "x-a:\n" + "".join(f"  k{number}: 1\n" for number in range(90_000))
    yield "900,000 letters in a line", HEAD + "stages: [{id: a, run: '" + "x" * 900_000 + "'}]\n"
    yield "30,000 stages", HEAD + "stages:\n" + "".join(f"  - {{id: s{n}, run: x}}\n" for n in range(30_000))
    odd = ("9" * 5_000, "0x" + "f" * 5_000, "9" * 1_000_000, ".nan", "!!python/name:os.system", '"\\ud800"', "&a [*a]")
    for value in odd:
        yield f"value {value[:24]}", f"{HEAD}x-a: {value}\n{STAGES}"


def schemas() -> Iterator[tuple[str, str]]:
    """JSON Schemas that fetch, loop, or take for ever (5.8)."""
    doubled: Any = {"type": "string"}
    for _ in range(14):
        doubled = {"anyOf": [doubled, doubled]}
    deep: Any = {}
    for _ in range(200):
        deep = {"properties": {"a": deep}}
    chain = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(24)}
    found = {
        "fetched by http": {"$ref": "http://127.0.0.1:9/x.json"},
        "fetched from a file": {"$ref": "file:///etc/passwd"},
        "a slow pattern": {"type": "string", "pattern": "^(a+)+$"},
        "2^14 alternatives": doubled,
        "2^24 alternatives by reference": {"$defs": {**chain, "a24": {"type": "string"}}, "$ref": "#/$defs/a0"},
        "200 levels": deep,
        "a reference to itself": {"$ref": "#"},
        "70,000 letters": {"enum": ["x" * 70_000]},
    }
    for name, schema in found.items():
        stage = {"id": "a", "run": "echo 1", "output": {"schema": schema}}
        yield f"schema: {name}", HEAD + "stages:\n  - " + json.dumps(stage) + "\n"


def crowds() -> Iterator[tuple[str, str]]:
    """Files of up to 1 MiB in one line, as programs write JSON, with the same in every stage."""
    links = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(24)}
    doubling = {"$defs": {**links, "a24": {"type": "string"}}, "$ref": "#/$defs/a0"}
    stages: dict[str, tuple[int, dict[str, Any]]] = {
        "doubling schemas": (500, {"run": "x", "output": {"schema": doubling}}),
        "patterns": (8_000, {"run": "x", "output": {"schema": {"pattern": "^(a+)+$"}}}),
        "wrong schemas": (8_000, {"run": "x", "output": {"schema": {"typ": "x", "requird": [1]}}}),
        "a schema file": (5_000, {"run": "x", "output": {"schema": {"file": "big.json"}}}),
        "a prompt file": (5_000, {"prompt": {"file": "big.txt"}}),
        "unknown keys": (12_000, {"run": "x", "bogus": 1}),
        "no kind": (15_000, {"foo": 1}),
        "unknown names": (12_000, {"prompt": "${{ stages.zzz.output }} ${{ bar }}"}),
        "the same file written": (6_000, {"prompt": "x", "output": "files", "writes": ["src/**/*.py"], "needs": []}),
        "no such pipeline": (12_000, {"uses": "./x.yaml"}),
    }
    for name, (count, keys) in stages.items():
        listed = [{"id": f"s{number}", **keys} for number in range(count)]
        yield f"{count:,} stages: {name}", json.dumps({"flowcraft": 1, "stages": listed})


def templates() -> Iterator[tuple[str, str]]:
    """Templates that ask for much (5.10); they are run."""
    asked = (
        *("'a' * 10 ** 9", "[0] * 10 ** 8", "'%1000000000d' % 1", "2 ** 62 ** 9", "'a' | center(100000000)"),
        *("range(10 ** 9) | list", "range(10000) | map('string') | join('x' * 10000)", "lipsum(n=10000)"),
        *("(" * 3000 + "1" + ")" * 3000, "1" + " + 1" * 20_000, "x" + ".b" * 5_000, "read('/dev/zero')"),
    )
    loops = (
        "${% for i in range(10000) %}${% for j in range(10000) %}x${% endfor %}${% endfor %}",
        "${% for i in range(9999) %}${{ 'x' * 1000 }}${% endfor %}",
        "${% for a in [1] %}" * 200,
    )
    for source in (*(f"${{{{ {one} }}}}" for one in asked), *loops):
        stage = {"id": "a", "run": "true", "env": {"X": source}}
        yield f"template: {source[:40]}", HEAD + "stages:\n  - " + json.dumps(stage) + "\n"


def cost(command: str, text: str, folder: Path) -> tuple[float, float, int]:
    """CPU seconds, peak memory in MiB and exit code of one command on one file."""
    (folder / "p.yaml").write_text(text, encoding="utf-8")
    child = subprocess.Popen(
        ["timeout", str(PATIENCE_S), sys.executable, "-m", "flowcraft", command, "p.yaml"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, child.returncode


def main() -> int:
    over = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "big.txt").write_text("word ${{ 1 }} " * 3_000 + "x" * 900_000, encoding="utf-8")
        properties = {f"k{number}": {"type": "string"} for number in range(2_200)}
        (folder / "big.json").write_text(json.dumps({"properties": properties}), encoding="utf-8")
        start = {
            command: min(cost(command, HEAD + STAGES, folder)[0] for _ in range(3)) for command in ("validate", "run")
        }
        for made, command in (
            (documents, "validate"),
            (schemas, "validate"),
            (crowds, "validate"),
            (templates, "run"),
        ):
            for label, text in made():
                cpu_s, mib, code = cost(command, text, folder)
                beyond_s = max(0.0, cpu_s - start[command])
                bad = beyond_s > MOST_CPU_S or mib > MOST_MIB or code not in (0, 1, 2)
                over += bad
                print(f"{label[:48]:48}  {beyond_s:5.2f} s  {mib:4.0f} MiB  exit {code}{'  OVER' if bad else ''}")
    print(f"over a bar, or with another exit code than 0, 1, 2: {over}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
