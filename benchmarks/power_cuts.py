"""Cut the power at any moment of recorded runs and refreshes, judge what the disk may hold then; prints the figures.

    python benchmarks/power_cuts.py [--cuts 1000] [--resumed 50] [--login 400]

Needs strace. The disk states are made from what the real programs wrote, synced, renamed and removed, in two models
(tests/cuts.py): `prefix` and `subset`. Of the cut runs some are resumed and compared with one that was not cut.
"""

import argparse
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cuts import MODELS
from killing import Server
from power import CHAPTERS, Chapter, after_cut, resumed, story
from power_login import Login
from qwen_service import QwenProcess
from traced import usable

REFRESHES = 20


def ledger(folder: Path, wanted: argparse.Namespace, figures: Counter[str]) -> None:
    """All chapters of the story, each with its share of the cuts."""
    with Server() as server:
        for chapter in story(folder, server):
            share = -(-wanted.cuts // len(CHAPTERS))
            again = -(-wanted.resumed // len(CHAPTERS)) if chapter.run else 0

            def judged(at: int, model: str, seed: int, chapter: Chapter = chapter, again: int = again) -> list[str]:
                faults = after_cut(chapter, at, model, seed, folder / "cut")
                if seed < again:
                    figures["resumed"] += 1
                    faults += resumed(chapter, folder / "cut", server)
                return faults

            cuts(chapter.name, len(chapter.steps), share, judged, figures)


def login(folder: Path, wanted: argparse.Namespace, figures: Counter[str]) -> None:
    """The file of a Qwen login that is refreshed again and again."""
    with QwenProcess() as service:
        made = Login(folder, service, REFRESHES)

    def judged(at: int, model: str, seed: int) -> list[str]:
        return made.after_cut(at, model, seed, folder / "cut")

    cuts("login", len(made.steps), wanted.login, judged, figures)


def cuts(
    name: str, steps: int, count: int, judged: Callable[[int, str, int], list[str]], figures: Counter[str]
) -> None:
    """So many cuts under each model, spread evenly over the steps."""
    for model in MODELS:
        unsound = 0
        for seed in range(count):
            at = random.randint(0, steps)
            faults = judged(at, model, seed)
            unsound += bool(faults)
            if faults:
                print(f"  FAULT after step {at}, seed {seed}: {faults}")
        figures["cuts"] += count
        figures["unsound"] += unsound
        print(f"{name}: {steps} steps, {model}: {count} cuts, {unsound} unsound", flush=True)


def main() -> int:
    """Print one line per program and model, and the sums; exit code 1 if anything was unsound."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, count in (("cuts", 1000), ("resumed", 50), ("login", 400), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=count)
    wanted = parser.parse_args()
    if not usable():
        print("strace is not there, or may not trace", file=sys.stderr)
        return 2
    random.seed(wanted.seed)
    logging.disable(logging.WARNING)  # each login that was saved in time says so
    figures: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="power-cuts-") as folder:
        (Path(folder) / "login").mkdir()
        ledger(Path(folder), wanted, figures)
        login(Path(folder) / "login", wanted, figures)
    print(", ".join(f"{name}: {count}" for name, count in figures.items()))
    return 1 if figures["unsound"] else 0


if __name__ == "__main__":
    sys.exit(main())
