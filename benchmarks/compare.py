"""FlowCraft beside its peers: start, calls, streams, threads, memory, and runners of pipelines, in one run.

    python benchmarks/compare.py --venv openai=/path/to/venv/bin/python --venv litellm=... --json result.json

Peers are measured in virtual environments of their own, those that are named; `requests` and a raw socket always.
All talk to the same loopback service. They take turns within each round, and ratios are made within a round:
a machine that becomes slower does so for both. CPU time is what to trust, wall time stands beside it.
"""

import argparse
import compileall
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service import serving

HERE = Path(__file__).parent
OURS = "flowcraft"
CLIENTS = ("flowcraft", "requests", "urllib3", "raw_socket", "openai", "openai_async", "langchain", "llm", "litellm")
RUNNERS = ("thread_pool", "flowcraft", "dask", "langgraph", "haystack")
DURABLE = ("bare_commits", "flowcraft_ledger", "langgraph_sqlite", "prefect")
# The peers of our runner with its ledger are those that write, too.
OURS_AMONG = dict.fromkeys(DURABLE, "flowcraft_ledger")
# What runners do, and which of them: haystack looks at all stages after each, prefect asks its server.
STAGES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "stage, chain of 100": (["100"], (*RUNNERS, *DURABLE)),
    "stage, chain of 1,000": (["1000"], (*RUNNERS, *DURABLE[:-1])),
    "stage, chain of 10,000": (["10000"], ("thread_pool", "flowcraft", "dask")),
    "item of 10 ms, 1,000 of them, 16 at a time": (["1000", "fan"], ("thread_pool", "flowcraft", "dask", "langgraph")),
}
# Of these, a tenth of the long stream shows the same, and threads only that one GIL has its limits.
SLOW = ("langchain", "llm", "litellm")
PARTS = ("start", "counts", "sdk", "threads", "memory", "stages", "load")
Figures = dict[str, float]
# What is done in one round, and how often the slow ones are done.
SDK: dict[str, dict[str, Any]] = {
    "call": {"do": "calls", "n": 60},
    "stream event": {"do": "streams", "n": 1, "events": 2000},
    "first text": {"do": "first", "n": 15},
}
THREADS: dict[str, dict[str, Any]] = {
    **{f"{n} threads, call": {"do": "calls", "n": max(2, 256 // n), "threads": n} for n in (2, 16, 64, 256)},
    "64 threads, 100 ms service": {"do": "calls", "n": 6, "threads": 64, "path": "/delay-100"},
    "64 streams of 50 pieces a second": {"do": "paced", "threads": 64, "rate": 50, "seconds": 2},
}


class Peer:
    """A client in a process of its own; `ask` has it measure something."""

    def __init__(self, name: str, python: str, url: str) -> None:
        self.name = name
        command = [python, str(HERE / "clients.py"), name, url]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=_environment()
        )

    def ask(self, **wish: Any) -> dict[str, Any]:
        assert self._child.stdin
        assert self._child.stdout
        print(json.dumps(wish), file=self._child.stdin, flush=True)
        return json.loads(self._child.stdout.readline() or '{"error": "it has died"}')

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()


def main() -> None:
    options = _options()
    pythons = dict.fromkeys((OURS, "requests", "urllib3", "raw_socket"), sys.executable)
    pythons |= dict.fromkeys(("thread_pool", "flowcraft_ledger", "bare_commits"), sys.executable)
    for pair in options.venv:
        name, _, python = pair.partition("=")
        pythons |= {runner: python for runner in (*CLIENTS, *RUNNERS, *DURABLE) if runner.partition("_")[0] == name}
    report: dict[str, Any] = {"machine": _machine(), "versions": {}, "figures": {}, "load": [os.getloadavg()[0]]}
    with serving() as url:
        _measure_clients(report, pythons, url, options)
    if "stages" in options.only:
        runners = [name for name in (*RUNNERS, *DURABLE) if name in pythons]
        _note(report, _stages(runners, pythons, report["versions"], max(3, options.rounds // 3)))
    if "load" in options.only:
        _note(report, _load())
    report["load"].append(os.getloadavg()[0])
    print(f"\n{report['machine']}; load {report['load'][0]:.1f} to {report['load'][1]:.1f}")
    print(json.dumps(report["versions"]))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _measure_clients(report: dict[str, Any], pythons: dict[str, str], url: str, options: argparse.Namespace) -> None:
    clients = [name for name in CLIENTS if name in pythons]
    if {"counts", "sdk", "threads"} & set(options.only):
        with _peers(clients, pythons, url) as peers:
            report["versions"] |= {peer.name: peer.ask(do="about") for peer in peers}
            if "counts" in options.only:
                _note(report, _once(peers, "function calls", do="counts"))
            if "sdk" in options.only:
                _note(report, _rounds(peers, SDK, options.rounds, url))
            if "threads" in options.only:
                quick = [peer for peer in peers if peer.name not in SLOW]
                _note(report, _rounds(quick, THREADS, max(3, options.rounds // 2), url))
    if "start" in options.only:
        _note(report, _starts(pythons, url, options.rounds))
    if "memory" in options.only:
        found: dict[str, list[Figures]] = {}
        for name in [name for name in clients if name != "openai_async"]:  # it keeps what openai keeps
            events = options.events // (10 if name in SLOW else 1)
            with _peers([name], pythons, url) as peers:
                found |= _once(peers, "memory", do="memory", events=events)["memory"]
        _note(report, {"memory": found})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", action="append", default=[], metavar="PEER=PYTHON", help="where a peer is installed")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--events", type=int, default=200_000, help="of the stream whose memory is measured")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


@contextlib.contextmanager
def _peers(names: Sequence[str], pythons: dict[str, str], url: str) -> Iterator[list[Peer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Peer(name, pythons[name], url)) for name in names]


def _rounds(
    peers: list[Peer], tasks: dict[str, dict[str, Any]], rounds: int, url: str
) -> dict[str, dict[str, list[Figures]]]:
    found: dict[str, dict[str, list[Figures]]] = {task: {} for task in tasks}
    for task, wish in tasks.items():
        able, first = [], {}
        for peer in peers:  # once to warm up, and to see who can do it at all
            answer = _asked(peer, wish, url)
            if "error" in answer:
                print(f"{peer.name}: {task}: {answer['error']}", file=sys.stderr)
            else:
                able.append(peer)
                first[peer.name] = answer["connections"]
        for number in range(rounds):
            turn = able if number % 2 else able[::-1]
            for peer in turn:
                figures = {**_asked(peer, wish, url), "at_first": first[peer.name]}
                found[task].setdefault(peer.name, []).append(figures)
    return found


def _asked(peer: Peer, wish: dict[str, Any], url: str) -> dict[str, Any]:
    """What the peer has measured, and how many connections it opened meanwhile."""
    before = _connections(url)
    answer = peer.ask(**wish)
    return {**answer, "connections": _connections(url) - before - 1}


def _connections(url: str) -> int:
    parts = urlsplit(url)
    asking = HTTPConnection(str(parts.hostname), parts.port)
    asking.request("GET", "/connections")
    with asking.getresponse() as response:
        return int(response.read())


def _once(peers: list[Peer], title: str, **wish: Any) -> dict[str, dict[str, list[Figures]]]:
    answers = {peer.name: peer.ask(**wish) for peer in peers}
    return {title: {name: [answer] for name, answer in answers.items() if "error" not in answer}}


def _starts(pythons: dict[str, str], url: str, rounds: int) -> dict[str, dict[str, list[Figures]]]:
    """CPU and wall of whole processes."""
    here = sys.executable
    compileall.compile_dir(HERE.parent / OURS, quiet=1)  # as an installed package is, whatever the environment says
    commands = {"python -c pass": [here, "-c", "pass"], "import argparse, json": [here, "-c", "import argparse, json"]}
    commands |= {
        "import requests": [here, "-c", "import requests"],
        "import flowcraft": [here, "-c", "import flowcraft"],
    }
    commands |= {f"flowcraft {option}": [here, "-m", "flowcraft", option] for option in ("--version", "--help")}
    for name, module in (
        ("openai", "openai"),
        ("litellm", "litellm"),
        ("langchain", "langchain_openai"),
        ("llm", "llm"),
    ):
        if name in pythons:
            commands[f"import {name}"] = [pythons[name], "-c", f"import {module}"]
    for name in ("llm", "litellm"):
        if name in pythons:
            commands[f"{name} --version"] = [str(Path(pythons[name]).with_name(name)), "--version"]
    for name in CLIENTS:
        if name in pythons:
            commands[f"first call, {name}"] = [pythons[name], str(HERE / "clients.py"), name, url]
    found: dict[str, list[Figures]] = {title: [] for title in commands}
    for _ in range(rounds):
        for title, command in commands.items():
            found[title].append(_process(command))
    return {"start of a process": found}


def _process(command: list[str]) -> Figures:
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    call = json.dumps({"do": "calls", "n": 1}) + "\n"
    subprocess.run(command, input=call, text=True, capture_output=True, check=False, env=_environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": time.perf_counter() - wall}


def _stages(
    names: list[str], pythons: dict[str, str], versions: dict[str, Any], rounds: int
) -> dict[str, dict[str, list[Figures]]]:
    found: dict[str, dict[str, list[Figures]]] = {}
    for title, (words, able) in STAGES.items():
        found[title] = {}
        for _ in range(rounds):
            for name in [name for name in names if name in able]:
                command = [pythons[name], str(HERE / "runners.py"), name, *words]
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
                if done.returncode:
                    print(f"{name}, {title}: {done.stderr.strip()[-300:]}", file=sys.stderr)
                    continue
                figures = json.loads(done.stdout.splitlines()[-1])
                versions[name] = figures.pop("about")
                found[title].setdefault(name, []).append(figures)
    return found


def _load() -> dict[str, dict[str, list[Figures]]]:
    """A file of 1,000 stages, read and checked, beside the bare parser."""
    command = [sys.executable, str(HERE / "load.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment())
    rounds = json.loads(done.stdout)
    return {"load of 1,000 stages": {name: [{"cpu": cpu_s} for cpu_s in rounds[name]] for name in rounds}}


def _note(report: dict[str, Any], found: dict[str, dict[str, list[Figures]]]) -> None:
    """Put the figures into the report, and on the screen at once."""
    for title, peers in found.items():
        report["figures"].setdefault(title, {}).update(
            {name: {"runs": runs, "ratio": _ratios(peers, name)} for name, runs in peers.items()}
        )
        print(f"\n{title}")
        for name, runs in peers.items():
            cells = [f"{key} {_shown(statistics.median(run[key] for run in runs))}" for key in runs[0]]
            ratios = report["figures"][title][name]["ratio"]
            versus = [f"{key} {middle:.2f} [{low:.2f}, {high:.2f}]" for key, (low, middle, high) in ratios.items()]
            print(f"  {name:28} {'   '.join(cells)}{'   ours/this: ' if versus else ''}{', '.join(versus)}")
        sys.stdout.flush()


def _ratios(peers: dict[str, list[Figures]], name: str) -> dict[str, list[float]]:
    """Quartiles of our times to this peer's, round by round."""
    ours_is = OURS_AMONG.get(name, OURS)
    if ours_is not in peers or name == ours_is:
        return {}
    found = {}
    for key in [key for key in ("cpu", "wall", "p50", "p99") if key in peers[name][0]]:
        ratios = [ours[key] / theirs[key] for ours, theirs in zip(peers[ours_is], peers[name], strict=False)]
        if len(ratios) > 1:
            found[key] = statistics.quantiles(ratios, n=4)
    return found


def _shown(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value * 1000:.1f} m" if value >= 0.001 else f"{value * 1e6:.1f} u"


def _environment() -> dict[str, str]:
    quiet = {
        # Libraries that would ask the network when they start are told not to.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "0",
        "DO_NOT_TRACK": "1",
        # Prefect starts a server, which takes longer than it is given by default.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "150",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    }
    return {**os.environ, **quiet, "PYTHONPATH": str(HERE.parent)}


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
