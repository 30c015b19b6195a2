"""Kill `flowcraft run` at every point and at random, resume, and check what must hold; prints the figures.

    python benchmarks/kill_loop.py --each 20 --random 1000

Refreshes alone are killed by refresh_race.py; point 25, power cuts, is in power_cuts.py.
"""

import argparse
import collections
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kill_points import POINTS, RUN, Point, at_random
from killing import BIG, STAGES, Server, World

TRIES = 4  # for each hit that is wanted: narrow points are missed at times


class Loop:
    """Counts over many worlds."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.figures: collections.Counter[str] = collections.Counter()
        self.worlds = 0
        self.refused_s: list[float] = []
        self.expected: dict[tuple[bool, int], dict[str, bytes]] = {}

    def once(self, point: Point) -> bool:
        """One world: killed at the point, continued, checked; says whether the point was hit."""
        self.worlds += 1
        self.server.answer_bytes = 0
        world = World(self.folder / str(self.worlds), self.server)
        hit = point(world, RUN)
        self.refused_s += [world.refused_s] if world.refused_s else []
        done = world.continued()
        asked = world.asked
        big = BIG in (world.folder / "pad.txt").read_text()
        self.check(world, *done, asked=asked, wanted=self.outputs_alone(big))
        return hit

    def check(self, world: World, code: int, printed: str, *, asked: list[str], wanted: dict[str, bytes]) -> None:
        """Count what does not hold, and show it."""
        faults = world.broken(asked) + ([f"exit code {code}"] if code else [])
        if world.outputs() != wanted:
            faults.append(f"outputs differ: {[name for name in wanted if world.outputs().get(name) != wanted[name]]}")
        self.figures["requests"] += len(asked)
        self.figures["call rows"] += world.rows("SELECT count(*) FROM calls")[0][0]
        self.figures["maybe billed"] += world.rows("SELECT count(*) FROM calls WHERE state = 'started'")[0][0]
        self.figures["recorded results"] += world.rows("SELECT count(*) FROM stages WHERE status = 'succeeded'")[0][0]
        self.figures["faulty runs"] += bool(faults)
        if faults:
            print(f"  FAULT in {world.folder}: {faults}\n{printed}", flush=True)
        else:
            shutil.rmtree(world.folder)

    def outputs_alone(self, big: bool) -> dict[str, bytes]:
        """What an uninterrupted run makes."""
        key = (big, self.server.answer_bytes)
        if key not in self.expected:
            world = World(self.folder / f"alone-{big}-{key[1]}", self.server, big=big)
            code, printed = world.run(*RUN)
            assert code == 0, printed
            self.expected[key] = world.outputs()
        return self.expected[key]

    def randomly(self, kills: int) -> int:
        """Worlds that are killed again and again until so many kills have hit; returns how many runs that took."""
        struck = runs = 0
        self.server.answer_bytes, self.server.pause_s = 0, 0.02  # calls take some of the time, as they do in life
        begun_s = time.monotonic()
        wanted = self.outputs_alone(big=False)
        self.server.span_s = time.monotonic() - begun_s
        while struck < kills:
            self.worlds += 1
            runs += 1
            self.server.answer_bytes = 0
            world = World(self.folder / str(self.worlds), self.server)
            strikes = min(random.randint(1, 6), kills - struck)
            for _ in range(strikes):
                words = ("resume", "--on-unknown", "rerun") if world.rows("SELECT 1 FROM runs") else RUN
                struck += at_random(world, words)
            done = world.continued()
            self.check(world, *done, asked=world.asked, wanted=wanted)
        return runs


def main() -> int:
    """Print one line per point and the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=20, help="hits of each point")
    parser.add_argument("--random", type=int, default=1000, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", default="", help="only points whose names begin so, comma-separated")
    given = parser.parse_args()
    random.seed(given.seed)
    begun_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="kill-loop-"))
    with Server() as server:
        loop = Loop(server, folder)
        for name, point in POINTS.items() if given.each else ():
            if name.startswith(tuple(given.points.split(","))):
                hits = tries = 0
                while hits < given.each and tries < given.each * TRIES:
                    tries += 1
                    hits += loop.once(point)
                print(f"{name}: {hits} hits in {tries} kills, {loop.figures['faulty runs']} faulty so far", flush=True)
        runs = loop.randomly(given.random) if given.random else 0
        print(f"random: {given.random} SIGKILLs over {runs} runs, {loop.figures['faulty runs']} faulty", flush=True)
    figures = loop.figures
    print(", ".join(f"{name}: {count}" for name, count in figures.items()))
    if loop.refused_s:
        middle_s, longest_s = statistics.median(loop.refused_s), max(loop.refused_s)
        print(f"a second resume is refused, start of its process included: {middle_s:.2f} s, at most {longest_s:.2f} s")
    print(f"runs: {loop.worlds}, stages each: {STAGES}, seconds: {time.monotonic() - begun_s:.0f}")
    if not figures["faulty runs"]:
        shutil.rmtree(folder)
    return 1 if figures["faulty runs"] or figures["requests"] > figures["call rows"] else 0


if __name__ == "__main__":
    sys.exit(main())
