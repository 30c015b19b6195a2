import threading

import pytest

from flowcraft.core.errors import Cancelled
from flowcraft.core.scope import Scope


def test_a_scope_without_limit_never_expires() -> None:
    scope = Scope()

    assert scope.remaining_s() is None
    assert not scope.expired


def test_a_spent_limit_is_expired() -> None:
    scope = Scope(0.0)

    assert scope.expired
    assert scope.remaining_s() == 0.0


@pytest.mark.parametrize("timeout_s", [1e12, float("inf"), 10**400], ids=["long", "infinite", "an int"])
def test_a_limit_without_end_is_one_that_can_be_waited_for(timeout_s: float) -> None:
    left_s = Scope(timeout_s).remaining_s()
    event = threading.Event()
    event.set()

    assert left_s is not None
    assert left_s > 1e6
    assert event.wait(left_s)
    assert threading.Lock().acquire(timeout=left_s)


def test_a_child_cannot_outlast_its_parent() -> None:
    parent = Scope(10.0)

    assert Scope(99.0, parent=parent).deadline == parent.deadline
    assert (Scope(1.0, parent=parent).deadline or 0) < (parent.deadline or 0)


def test_cancelling_wakes_what_waits() -> None:
    scope = Scope()
    ended = threading.Event()

    def work() -> None:
        with pytest.raises(Cancelled):
            scope.wait(60)
        ended.set()

    worker = threading.Thread(target=work)
    worker.start()
    scope.cancel()

    assert ended.wait(10)
    worker.join()


def test_cancelling_a_parent_cancels_its_children_but_not_the_other_way_round() -> None:
    parent = Scope()
    first, second = Scope(parent=parent), Scope(parent=parent)

    first.cancel()
    assert not parent.cancelled

    parent.cancel()
    assert second.cancelled


def test_a_scope_may_join_a_second_parent() -> None:
    first, second = Scope(), Scope(5.0)
    scope = Scope(parent=first)

    scope.join(second)
    second.cancel()

    assert scope.cancelled
    assert scope.deadline == second.deadline


def test_a_closed_scope_has_left_its_parent() -> None:
    parent = Scope()
    scope = Scope(parent=parent)

    scope.close()
    parent.cancel()

    assert not scope.cancelled


def test_registering_after_the_cancel_wakes_at_once() -> None:
    scope = Scope()
    scope.cancel()
    woken: list[bool] = []

    scope.on_cancel(lambda: woken.append(True))

    assert woken == [True]


def test_what_was_taken_back_is_not_woken() -> None:
    scope = Scope()
    woken: list[bool] = []

    scope.on_cancel(lambda: woken.append(True))()
    scope.cancel()

    assert woken == []


def test_check_raises_only_after_a_cancel() -> None:
    scope = Scope()
    scope.check()

    scope.cancel()

    with pytest.raises(Cancelled):
        scope.check()


def test_a_cancel_that_was_torn_off_is_finished_by_the_next_one() -> None:
    scope, woken = Scope(), []
    torn = iter([KeyboardInterrupt])

    def first() -> None:
        woken.append("first")
        for error in torn:
            raise error

    scope.on_cancel(first)
    scope.on_cancel(lambda: woken.append("second"))
    with pytest.raises(KeyboardInterrupt):
        scope.cancel()

    scope.cancel()
    scope.cancel()

    assert woken == ["first", "first", "second"]
