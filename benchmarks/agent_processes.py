"""Figures of agents as models: cancel, leftovers after starts, kills and crashes, delay of streamed text.

Run it from the repository: `python benchmarks/agent_processes.py [--starts 500] [--cancels 20] [--chunks 500]`.
The agents are the stand-ins of tests/agents; exits with 1 if a figure is missed.
"""

import argparse
import statistics
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from agents.asking import Asking, acp, children, closing, descriptors, eventually, request  # noqa: E402

from flowcraft.core.errors import Cancelled, FlowcraftError  # noqa: E402
from flowcraft.llm.agents.acp.link import CANCEL_GRACE_S  # noqa: E402
from flowcraft.llm.base import Delta  # noqa: E402

LIMIT_S = 0.5  # beyond the grace time
DELAY_MS = 20.0


def cancels(count: int) -> bool:
    """Cancel from another thread; an agent that never obeys is the worst case."""
    print(f"cancel from another thread, {count} times each (limit: grace {CANCEL_GRACE_S} s + {LIMIT_S} s)")
    good = True
    for behaviour, grace_s in (("cancel", 0.0), ("deaf", CANCEL_GRACE_S)):
        times = [_cancel(behaviour) for _ in range(count)]
        within = sum(seconds is not None and seconds <= grace_s + LIMIT_S for seconds in times)
        known = [seconds for seconds in times if seconds is not None]
        slowest = max(known) if known else float("nan")
        print(f"  {_NAMES[behaviour]}: {within}/{count} in time, slowest {slowest:.3f} s, left over {len(children())}")
        good = good and within == count and not children()
    return good


_NAMES = {"cancel": "an agent that obeys", "deaf": "one that ignores cancel and SIGTERM, with a child that does too"}


def _cancel(behaviour: str) -> float | None:
    with closing(acp(behaviour)) as provider:
        asking = Asking(provider).first()
        started = time.monotonic()
        asking.scope.cancel()
        asking.end()
        return asking.ended_at - started if isinstance(asking.error, Cancelled) else None


def leftovers(count: int) -> bool:
    """Agents that answer, die at the start, die in a turn, are killed, or are left in the middle."""
    kinds = ("hello", "dies", "killed_in_turn", "exits", "closed", "left")
    before, threads, started = descriptors(), threading.active_count(), time.monotonic()
    for number in range(count):
        _one(kinds[number % len(kinds)])
    seconds = time.monotonic() - started
    eventually(lambda: not children())
    left, leaked = len(children()), descriptors() - before
    print(f"{count} starts, kills and crashes in {seconds:.1f} s")
    print(f"  left over: {left} processes, {leaked} descriptors, {threading.active_count() - threads} threads")
    return left == 0 and leaked == 0


def _one(kind: str) -> None:
    provider = acp({"closed": "silent_after_text", "left": "cancel"}.get(kind, kind))
    try:
        deltas = provider.deltas(request())
        for _ in deltas:
            if kind == "left":
                deltas.close()  # type: ignore[attr-defined]  # it is a generator
                break
            if kind == "closed":
                provider.close()  # kills it in the middle of its turn
    except FlowcraftError:
        pass
    finally:
        provider.close()


def delays(count: int) -> bool:
    """From the agent's write to the delta in our hands; every chunk is the time at which it was written."""
    with closing(acp("stamp")) as provider:
        late = [_late_ms(delta) for delta in provider.deltas(request(str(count))) if delta.content]
    late.sort()
    p99 = late[int(len(late) * 0.99) - 1]
    print(f"delay of {len(late)} streamed chunks: ", end="")
    print(f"median {statistics.median(late):.2f}, p99 {p99:.2f}, slowest {late[-1]:.2f} ms (limit {DELAY_MS} ms)")
    firsts = []
    for _ in range(20):
        with closing(acp("stamp")) as provider:
            firsts.append(_late_ms(next(iter(provider.deltas(request("1"))))))
    within = sum(delay <= DELAY_MS for delay in firsts)
    print(f"delay of the first text: {within}/{len(firsts)} in time, slowest {max(firsts):.2f} ms")
    return within == len(firsts)


def _late_ms(delta: Delta) -> float:
    return (time.monotonic() - float(delta.content)) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=500)
    parser.add_argument("--cancels", type=int, default=20)
    parser.add_argument("--chunks", type=int, default=500)
    wanted = parser.parse_args()
    results = [delays(wanted.chunks), cancels(wanted.cancels), leftovers(wanted.starts)]
    print("all figures reached" if all(results) else "A FIGURE WAS MISSED")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
