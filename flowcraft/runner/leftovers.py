"""What a killed run may have left: programs that still run, files that were never moved to their place."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

RUN_VARIABLE = "FLOWCRAFT_RUN"  # every program that a run starts finds the run's id here
GRACE_S = 2.0  # between TERM and KILL
_PROC = Path("/proc")


def programs(run_id: str) -> list[int]:
    """The processes that carry the id of the run in their environment, ours aside; empty where there is no /proc."""
    mark = f"{RUN_VARIABLE}={run_id}".encode()
    found = []
    for place in _PROC.iterdir() if _PROC.is_dir() else ():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        with suppress(OSError):  # ended meanwhile, or somebody else's
            if mark in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def end_programs(run_id: str, grace_s: float = GRACE_S) -> int:
    """End what a killed session has left running, so that no second copy runs beside it; returns how many."""
    left = programs(run_id)
    for pid in left if grace_s else ():
        _send(pid, signal.SIGTERM)
    until = time.monotonic() + grace_s
    while left and programs(run_id) and time.monotonic() < until:
        time.sleep(0.02)
    for pid in programs(run_id) if left else ():
        _send(pid, signal.SIGKILL)
    return len(left)


def remove_temporary(folder: Path, tag: str) -> None:
    """Remove the files that were being written in `folder` when an earlier session of the run was killed."""
    with suppress(OSError):
        for place in folder.glob(f".flowcraft-{tag}-*.tmp"):
            place.unlink()


def _send(pid: int, number: int) -> None:
    with suppress(OSError):
        os.kill(pid, number)
