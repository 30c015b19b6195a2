"""Races and kills around one Qwen login, with the counts that the project promises; prints the figures.

    python benchmarks/refresh_race.py [--rounds 50] [--kills 20] [--processes 8] [--threads 8] [--npm FOLDER]

`--npm` (default: $FLOWCRAFT_TEST_NPM) is a folder with node_modules/@qwen-code/qwen-code; without it the
part with real CLI peers is left out. Everything runs on this machine, against a service of our own.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from qwen_parts import POINTS, Peer, killed, race, write  # noqa: E402
from qwen_service import QwenProcess  # noqa: E402


def main() -> int:
    """Run all parts; the exit status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, count in (("rounds", 50), ("kills", 20), ("processes", 8), ("threads", 8)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--npm", default=os.environ.get("FLOWCRAFT_TEST_NPM"))
    wanted = parser.parse_args()
    with QwenProcess() as service:
        sound = [
            races(service, wanted, refused=False, nodes=0),
            races(service, wanted, refused=True, nodes=0),
        ]
        if wanted.npm:
            sound += [races(service, wanted, refused=False, nodes=2)]
        else:
            print("with real CLI peers: left out (no --npm)")
        sound += [kills(service, wanted.kills)]
    return 0 if all(sound) else 1


@contextlib.contextmanager
def login() -> Iterator[Path]:
    """A path for a credential file in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / ".qwen" / "oauth_creds.json"


def races(service: QwenProcess, wanted: argparse.Namespace, *, refused: bool, nodes: int) -> bool:
    """Rounds in which everybody wants a new token at the same moment."""
    service.reset()
    times, exact, failures, different = [], 0, 0, 0
    with login() as path, contextlib.ExitStack() as stack:
        write(path, service.credentials())
        peers = [Peer.python(path, service, wanted.threads) for _ in range(wanted.processes)]
        peers += [Peer.node(path, service, wanted.npm) for _ in range(nodes)]
        for peer in peers:
            stack.enter_context(peer)
        for _ in range(wanted.rounds):
            fields = write_login(path, service, expired=not refused)
            before, start_s = service.counts(), time.monotonic()
            tokens, failed = race(peers, f"go {fields}" if refused else "go")
            times.append(time.monotonic() - start_s)
            after = service.counts()
            exact += after["refreshed"] - before["refreshed"] == 1 and after["refused"] == before["refused"]
            failures += len(failed)
            different += len(tokens) != 1
    what = "all report 401 for one token" if refused else "expired token"
    who = f"{wanted.processes} processes x {wanted.threads} threads" + (f" + {nodes} real CLI peers" if nodes else "")
    print(f"{who}, {what}: {exact} of {wanted.rounds} rounds with exactly 1 refresh, ", end="")
    print(f"{failures} failed callers, {different} rounds with different tokens, ", end="")
    print(f"{service.counts()['reused']} refresh tokens used twice, ", end="")
    print(f"median {statistics.median(times):.3f} s, longest {max(times):.3f} s")
    return exact == wanted.rounds and not failures and not different


def write_login(path: Path, service: QwenProcess, *, expired: bool) -> str:
    """A new login in the file, as if another program had written it; its access token."""
    old_ns = path.stat().st_mtime_ns
    fields = service.credentials(expired=expired)
    write(path, fields)
    while path.stat().st_mtime_ns <= old_ns:
        os.utime(path, ns=(old_ns + 2_000_000, old_ns + 2_000_000))
    token: str = fields["access_token"]
    return token


def kills(service: QwenProcess, count: int) -> bool:
    """Holders of the locks that die; how long the next one takes, and what is left of the file."""
    sound = True
    with login() as path:
        write(path, service.credentials())
        with Peer.python(path, service) as survivor:
            for point in POINTS:
                waits, broken, lost, failed = [], 0, 0, []
                for _ in range(count):
                    write_login(path, service, expired=True)
                    killed(point, path, service)
                    broken += not whole(path)
                    start_s = time.monotonic()
                    _, errors = race([survivor])
                    waits.append(time.monotonic() - start_s)
                    lost += any("LoginRequired" in error for error in errors)
                    failed += [error for error in errors if "LoginRequired" not in error]
                    broken += not whole(path)
                print(f"killed {point} x {count}: {broken} broken files, {lost} logins lost, ", end="")
                print(f"{len(failed)} other failures, next one done after {statistics.median(waits):.3f} s ", end="")
                print(f"(longest {max(waits):.3f} s)")
                sound = sound and not broken and not failed and not lost and max(waits) < 1.0
        left = sorted(entry.name for entry in path.parent.iterdir())
    print(f"left in the folder: {', '.join(left)}")
    return sound


def whole(path: Path) -> bool:
    """Whether the file is a whole JSON object with a token."""
    try:
        return bool(json.loads(path.read_bytes())["access_token"])
    except (OSError, ValueError, KeyError):
        return False


if __name__ == "__main__":
    sys.exit(main())
