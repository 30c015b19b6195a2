"""Where tasks run; an executor is `concurrent.futures.Executor`, nothing of ours."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from flowcraft.core.errors import UsageError

MAX_JOBS = 256  # threads; each may hold a connection and a child process


@contextmanager
def open_executor(jobs: int) -> Iterator[Executor]:
    """Threads for up to `jobs` tasks at once.

    Leaving the block does not wait: the coordinator has seen the end of every task, or has cancelled it
    and given up on one that does not listen. `with ThreadPoolExecutor` would hold Ctrl-C back until
    that one ends.
    """
    if not 1 <= jobs <= MAX_JOBS:
        raise UsageError(f"jobs must be from 1 to {MAX_JOBS}, not {jobs}", hint="use --jobs 4, say")
    # Twice as many: a task that was given up on keeps its thread, and what is to run in the end needs another.
    executor = ThreadPoolExecutor(max_workers=2 * jobs, thread_name_prefix="flowcraft-stage")
    try:
        yield executor
    finally:
        executor.shutdown(wait=False)
