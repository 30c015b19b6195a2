"""What is ready, what is blocked, what is never started; no threads, no clock.

Invariants: every stage is handed out once or given an end here, never both; a stage is handed out only
when all it needs has ended; readiness is counted (open needs per stage), so a run costs one
step per stage and one per edge, however large it is.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


class Schedule:
    """The order of one run over `needs` (stage -> the stages it waits for; free of cycles).

    A skip lets the stages below run; a failure blocks them, and stops what has not been started
    unless `keep_going`. Those in `regardless` only wait: what they need may have failed.
    """

    def __init__(
        self, needs: Mapping[str, Sequence[str]], *, keep_going: bool = False, regardless: Collection[str] = ()
    ) -> None:
        self._keep_going = keep_going
        self._regardless = frozenset(regardless)
        self._open = {stage: len(set(wanted)) for stage, wanted in needs.items()}
        self._dependents: dict[str, list[str]] = {stage: [] for stage in needs}
        for stage, wanted in needs.items():
            for need in dict.fromkeys(wanted):
                self._dependents[need].append(stage)
        self._ready = deque(stage for stage, count in self._open.items() if not count)

    def take(self) -> str | None:
        """Hand out the stage that has been ready for longest; None if there is none now."""
        if not self._ready:
            return None
        stage = self._ready.popleft()
        del self._open[stage]
        return stage

    def done(self, stage: str) -> None:
        """`stage` has succeeded or was skipped: what waited for it may start."""
        self._release(self._dependents[stage])

    def failed(self, stage: str) -> dict[str, str]:
        """`stage` has failed: the stages that now never start, each with the reason."""
        ended = dict.fromkeys(self._blocked_by(stage), f"blocked by '{stage}'")
        for over in (stage, *ended):
            self._release(name for name in self._dependents[over] if name in self._regardless)
        if not self._keep_going:
            ended |= self.stop(f"not started because '{stage}' failed")
        return ended

    def stop(self, reason: str) -> dict[str, str]:
        """Start nothing any more: the stages that are left, each with `reason`."""
        left = dict.fromkeys(self._open, reason)
        self._open.clear()
        self._ready.clear()
        return left

    def _release(self, dependents: Iterable[str]) -> None:
        for dependent in dependents:
            if dependent in self._open:
                self._open[dependent] -= 1
                if not self._open[dependent]:
                    self._ready.append(dependent)

    def _blocked_by(self, stage: str) -> Iterator[str]:
        following = deque(self._dependents[stage])
        while following:
            blocked = following.popleft()
            if blocked not in self._regardless and self._open.pop(blocked, None) is not None:
                following.extend(self._dependents[blocked])
                yield blocked
