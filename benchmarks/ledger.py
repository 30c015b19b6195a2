"""What the ledger costs: per stage beside bare commits, eight processes at once, and the start of a large resume.

    python benchmarks/ledger.py

Bars: at most 2 commits a stage and 3 times the CPU of the bare commits; no "database is locked"; a resume of 1,000
stages starts within 0.2 s of a plain start and repeats no call.
"""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from killing import Server, World

from flowcraft.core.values import ModelSettings, Origin
from flowcraft.llm.base import ChatRequest, LLMMessage, LLMResponse, Usage
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.routing import Choice
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.store.fingerprint import Fingerprint
from flowcraft.runner.store.ledger import Ledger, NewRun

STAGES = 1000
REPETITIONS = 5
TEXT = "x" * 1000
WRITER = """
import sys
from pathlib import Path
from flowcraft.core.errors import LedgerError
from flowcraft.runner.store.ledger import Ledger, NewRun
ledger, failed = Ledger(Path(sys.argv[1])), 0
for number in range(1000):
    try:
        ledger.begin(NewRun(id=f"{sys.argv[2]}-{number}", pipeline="p", file="f", file_hash="", inputs={}, options={}))
    except LedgerError as error:
        failed += 1
        print(error)
print("failed", failed)
"""


def bare(folder: Path) -> tuple[float, float]:
    """Two commits a stage of what the ledger writes, and nothing else; CPU and wall time a stage in ms."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE calls (id TEXT PRIMARY KEY, request TEXT, response TEXT)")
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for number in range(STAGES):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO calls VALUES (?, ?, NULL)", (str(number), TEXT))
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE calls SET response = ? WHERE id = ?", (TEXT, str(number)))
        connection.execute("COMMIT")
    return (time.process_time() - cpu_s) / STAGES * 1000, (time.perf_counter() - wall_s) / STAGES * 1000


def kept(folder: Path) -> tuple[float, float, float]:
    """The same stages in the ledger: CPU and wall time a stage in ms, commits a stage."""
    ledger = Ledger(folder)
    run = ledger.begin(NewRun(id="r", pipeline="p", file="f", file_hash="", inputs={}, options={}))
    model = ModelSettings(name="m", provider="openai", model="m")
    choice = Choice(model=model, tier="cheap", cause="default", origin=Origin())
    request = ChatRequest(messages=(LLMMessage("user", TEXT),))
    usage = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)
    response = LLMResponse(content=TEXT, model="m", provider="openai", usage=usage, cost=Decimal("0.00001"))
    mark = Fingerprint("0" * 64, {"prompt": "0" * 64, "model": "0" * 64})
    before = ledger.database.commits
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for number in range(STAGES):
        started = CallStarted(id=str(number), choice=choice, request=request)
        call = ledger.call_started(run, 1, f"s{number}", "0" * 64, started, {})
        ledger.call_finished(call, CallFinished(id=str(number), seconds=1.0, response=response), response.cost)
        outcome = Outcome(path=f"s{number}", kind="prompt", status="succeeded", output=TEXT)
        ledger.stage_ended(run, outcome, mark, {"decision": "ran"}, reusable=True, at_once=False)
    ledger.flush()
    spent = (time.process_time() - cpu_s) / STAGES * 1000, (time.perf_counter() - wall_s) / STAGES * 1000
    ledger.close()
    return *spent, (ledger.database.commits - before) / STAGES


def writers(folder: Path) -> tuple[int, float]:
    """Eight processes with 1,000 transactions each: how many failed, and the seconds."""
    begun_s = time.perf_counter()
    found = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(name)], stdout=subprocess.PIPE)
        for name in range(8)
    ]
    printed = [writer.communicate()[0].decode() for writer in found]
    failed = sum(int(text.rsplit("failed ", 1)[-1]) if "failed " in text else 1000 for text in printed)
    return failed, time.perf_counter() - begun_s


def large_resume(folder: Path) -> dict[str, float]:
    """A run of 1,000 stages before its last one: wall and CPU seconds to the first request, begun anew and resumed.

    Five times each, in turn; medians.
    """
    with Server() as server:
        world = World(folder / "world", server)
        (world.folder / "p.yaml").write_text(large_pipeline("question"))
        (world.folder / "plain.yaml").write_text(large_pipeline("other"))  # so that the server can tell them apart
        first_request(world, ("run", "p.yaml"), "the end")
        ((run,),) = world.rows("SELECT id FROM runs")
        plain, resumed = [], []
        for _ in range(REPETITIONS):
            plain.append(first_request(world, ("run", "plain.yaml"), "other"))
            resumed.append(first_request(world, ("resume", run), "the end"))
        repeated = sum(prompt.startswith("question") for prompt in world.asked) - (STAGES - 1)
    names = ("wall", "CPU")
    medians = {f"plain {names[part]}": statistics.median(one[part] for one in plain) for part in (0, 1)}
    medians |= {f"resume {names[part]}": statistics.median(one[part] for one in resumed) for part in (0, 1)}
    return {**medians, "repeated": repeated}


def large_pipeline(word: str) -> str:
    """999 stages that need nothing, and one that needs them all."""
    stages = [{"id": f"s{number}", "prompt": f"{word} {number}", "needs": []} for number in range(STAGES - 1)]
    stages.append({"id": "end", "prompt": "the end", "needs": [stage["id"] for stage in stages]})
    return json.dumps({"flowcraft": 1, "stages": stages})


def first_request(world: World, words: tuple[str, ...], prompt: str) -> tuple[float, float]:
    """Wall and CPU seconds of a process until it asks `prompt`; then it is killed."""
    world.server.arm("body", prompt)
    begun_s = time.perf_counter()
    process = world.start(*words, quiet=True)
    if not world.server.reached.wait(300):
        raise RuntimeError(f"{words}: the request never came")
    wall_s = time.perf_counter() - begun_s
    process.kill()
    _, process.returncode, used = os.wait4(process.pid, 0)
    return wall_s, used.ru_utime + used.ru_stime


def main() -> int:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = []
        for number in range(5):
            place = folder / str(number)
            place.mkdir()
            pairs.append((bare(place), kept(place)))
        bare_cpu, bare_wall = (statistics.median(pair[0][part] for pair in pairs) for part in (0, 1))
        cpu, wall, commits = (statistics.median(pair[1][part] for pair in pairs) for part in (0, 1, 2))
        print(f"bare commits: {bare_cpu:.3f} ms CPU, {bare_wall:.3f} ms a stage (2 commits)")
        print(f"ledger:       {cpu:.3f} ms CPU, {wall:.3f} ms a stage ({commits:.3f} commits)")
        print(f"ratio:        {cpu / bare_cpu:.2f} x CPU, {wall / bare_wall:.2f} x wall")
        failed, seconds = writers(folder / "0")
        print(f"8 processes x 1,000 transactions: {failed} failed, {seconds:.1f} s")
        figures = large_resume(folder)
        print(f"1,000 stages, to the first request, {REPETITIONS} times in turn, medians:")
        for kind in ("wall", "CPU"):
            plain, resumed = figures[f"plain {kind}"], figures[f"resume {kind}"]
            print(f"  {kind}: plain start {plain:.3f} s, resume {resumed:.3f} s ({resumed - plain:+.3f} s)")
        print(f"  {figures['repeated']:.0f} calls repeated")
    return 1 if failed or figures["repeated"] else 0


if __name__ == "__main__":
    sys.exit(main())
