import pytest

from flowcraft.core.errors import AuthError, ProviderError, RateLimitError, TransportError
from flowcraft.core.retry import RetryPolicy, RetryQuota


def down(**fields: object) -> ProviderError:
    return ProviderError("down", status=503, retryable=True, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("attempt", "wait_s"), [(1, 0.5), (2, 1.0), (5, 8.0), (9, 8.0)])
def test_waits_grow_up_to_a_limit(attempt: int, wait_s: float) -> None:
    assert RetryPolicy(retries=20).wait_s(down(), attempt, lambda: 1.0) == wait_s


def test_jitter_covers_the_whole_wait() -> None:
    assert RetryPolicy().wait_s(down(), 1, lambda: 0.0) == 0.0


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (2, True), (3, False)])
def test_gives_up_after_two_retries(attempt: int, again: bool) -> None:
    assert (RetryPolicy().wait_s(down(), attempt, lambda: 1.0) is not None) is again


def test_never_repeats_what_the_provider_calls_final() -> None:
    assert RetryPolicy().wait_s(AuthError("no", status=401), 1, lambda: 1.0) is None


def test_repeats_a_request_that_may_have_been_paid_for_only_once() -> None:
    lost = TransportError("connection lost", retryable=True, sent=True)

    assert RetryPolicy().wait_s(lost, 1, lambda: 1.0) is not None
    assert RetryPolicy().wait_s(lost, 2, lambda: 1.0) is None


def test_repeats_a_request_that_never_left_as_often_as_any() -> None:
    refused = TransportError("connection refused", retryable=True, sent=False)

    assert RetryPolicy().wait_s(refused, 2, lambda: 1.0) is not None


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0.0, 0.0), (12.5, 12.5), (60.0, 60.0), (60.1, None)])
def test_obeys_retry_after_within_reason(asked_s: float, wait_s: float | None) -> None:
    limited = RateLimitError("slow down", status=429, retryable=True, retry_after_s=asked_s)

    assert RetryPolicy().wait_s(limited, 1, lambda: 1.0) == wait_s


def test_no_retries_means_none() -> None:
    lost = TransportError("lost", retryable=True)

    assert RetryPolicy(retries=0).wait_s(lost, 1, lambda: 1.0) is None
    assert RetryPolicy(retries=0).wait_s(down(), 1, lambda: 1.0) is None


def test_a_service_that_stays_down_uses_up_the_quota() -> None:
    quota = RetryQuota()

    paid = sum(quota.take(throttled=False) for _ in range(100))

    assert paid == 35


def test_successes_earn_the_quota_back() -> None:
    quota = RetryQuota()
    while quota.take(throttled=False):
        pass

    for _ in range(14):
        quota.earn()

    assert quota.take(throttled=False)
    assert not quota.take(throttled=False)


def test_throttling_costs_less_than_failure() -> None:
    quota = RetryQuota()

    assert sum(quota.take(throttled=True) for _ in range(200)) == 100
