"""What the ledger costs: per stage beside bare commits, eight processes at once, and the start of a large resume.

    python benchmarks/ledger.py

Bars: at most 2 commits a stage and 3 times the CPU of the bare commits; no "database is locked"; a resume of 1,000
stages starts within 0.2 s of a plain start and repeats no call.
"""

import json
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
from flowcraft.runner.fingerprint import Fingerprint
from flowcraft.runner.ledger import Ledger, NewRun
from flowcraft.runner.outcome import Outcome

STAGES = 1000
TEXT = "x" * 1000
WRITER = """
import sys
from pathlib import Path
from flowcraft.core.errors import LedgerError
from flowcraft.runner.ledger import Ledger, NewRun
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
    """A run of 1,000 stages whose last one fails: seconds to the first request, started plainly and resumed."""
    stages = [{"id": f"s{number}", "prompt": f"question {number}", "needs": []} for number in range(STAGES - 1)]
    stages.append({"id": "end", "prompt": "the end", "needs": [stage["id"] for stage in stages]})
    with Server() as server:
        world = World(folder / "world", server)
        (world.folder / "p.yaml").write_text(json.dumps({"flowcraft": 1, "stages": stages}))
        plain = min(first_request(world, ("run", "p.yaml", "--fresh"), leave=number < 2) for number in range(3))
        asked = len(world.asked)
        resumed = []
        for _ in range(3):
            server.arm("body")
            resumed.append(first_request(world, ("resume",), leave=True))
        repeated = [prompt for prompt in world.asked[asked:] if prompt != "the end"]
    return {"plain start": plain, "resume": min(resumed), "repeated calls": len(repeated)}


def first_request(world: World, words: tuple[str, ...], *, leave: bool) -> float:
    """Seconds from the start of the process to its first request; then it is killed, or runs to its last stage."""
    world.server.arm("body", "" if leave else "the end")
    before, begun_s = len(world.server.asked), time.perf_counter()
    process = world.start(*words, quiet=True)
    while len(world.server.asked) == before and process.poll() is None:
        time.sleep(0.001)
    seconds = time.perf_counter() - begun_s
    world.server.reached.wait(300)
    process.kill()
    process.communicate()
    return seconds


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
        above = figures["resume"] - figures["plain start"]
        print(f"1,000 stages: first request {figures['plain start']:.2f} s after a plain start, ", end="")
        print(f"{figures['resume']:.2f} s in a resume ({above:+.2f} s), {figures['repeated calls']:.0f} calls repeated")
    return 1 if failed or figures["repeated calls"] else 0


if __name__ == "__main__":
    sys.exit(main())
