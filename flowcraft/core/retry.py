"""When a failed call is made again, and after what wait; arithmetic only, nobody sleeps here.

The rules are those of the measured peers at their best: few tries, full jitter, the service's own wish
obeyed within reason, and a quota so that many threads do not hammer a service that is down.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from flowcraft.core.errors import ProviderError

# botocore's "standard" mode: a client that has failed about 35 times in a row stops retrying.
QUOTA, COST, COST_THROTTLED, GAIN = 500, 14, 5, 1


class RetryPolicy(NamedTuple):
    """How often and how patiently to try again; waits in seconds."""

    retries: int = 2
    first_wait_s: float = 0.5
    longest_wait_s: float = 8.0
    longest_retry_after_s: float = 60.0

    def wait_s(self, error: ProviderError, attempt: int, random: Callable[[], float]) -> float | None:
        """How long to wait after the `attempt`-th failure (from 1), or None: do not try again.

        A request that may have been paid for without an answer is repeated once at most.
        """
        ambiguous = error.sent and (error.status is None or error.status < 400)
        if not error.retryable or attempt > (min(1, self.retries) if ambiguous else self.retries):
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= self.longest_retry_after_s else None
        return random() * min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))


class RetryQuota:
    """What all threads of a client may spend on retries; every success earns a little back."""

    def __init__(self) -> None:
        self._left = QUOTA
        self._lock = threading.Lock()

    def take(self, *, throttled: bool) -> bool:
        """Pay for one retry; False if too many have failed lately."""
        cost = COST_THROTTLED if throttled else COST
        with self._lock:
            if self._left < cost:
                return False
            self._left -= cost
            return True

    def earn(self) -> None:
        """Note a success."""
        if self._left < QUOTA:  # nearly never: then the threads need not wait for each other
            with self._lock:
                self._left = min(QUOTA, self._left + GAIN)
