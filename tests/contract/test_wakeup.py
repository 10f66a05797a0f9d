"""Wakeup: every sentence of the interface, for every implementation."""

from __future__ import annotations

import asyncio

import pytest

from taskserver.wakeup import Wakeup

LONG = 20.0  # seconds; a wake-up that comes ends the wait long before


async def test_a_wait_ends_with_the_next_wakeup(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as subscription:
        subscription.clear()
        waiting = asyncio.ensure_future(subscription.wait(LONG))
        await asyncio.sleep(0)
        assert not waiting.done()
        wakeup.publish(["a"])
        assert await waiting is True


async def test_a_wakeup_between_clear_and_wait_is_not_lost(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as subscription:
        subscription.clear()
        wakeup.publish(["a"])
        assert await subscription.wait(LONG) is True


async def test_clear_forgets_what_came_before(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as subscription:
        wakeup.publish(["a"])
        subscription.clear()
        assert await subscription.wait(0.01) is False


async def test_a_wait_without_a_wakeup_ends_with_its_time(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as subscription:
        for timeout in (0, 0.01):
            assert await subscription.wait(timeout) is False


async def test_interest_counts_from_entering_the_context(wakeup: Wakeup) -> None:
    subscription = wakeup.subscribe("a")
    wakeup.publish(["a"])
    with subscription:
        assert await subscription.wait(0.01) is False
        wakeup.publish(["a"])
        assert await subscription.wait(LONG) is True
    subscription.clear()
    wakeup.publish(["a"])
    assert await subscription.wait(0.01) is False


async def test_any_of_its_topics_wakes_a_waiter_and_no_other(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a", "b") as subscription:
        for topic in ("a", "b"):
            subscription.clear()
            wakeup.publish([topic])
            assert await subscription.wait(LONG) is True
        for topics in ([], ["c"], ["A"], ["a:b"], [""]):
            subscription.clear()
            wakeup.publish(topics)
            assert await subscription.wait(0.01) is False


async def test_all_waiters_of_a_topic_are_woken(wakeup: Wakeup) -> None:
    async def wait() -> bool:
        with wakeup.subscribe("a") as subscription:
            ready.release()
            return await subscription.wait(LONG)

    ready = asyncio.Semaphore(0)
    waiting = [asyncio.ensure_future(wait()) for _ in range(100)]
    for _ in waiting:
        await ready.acquire()
    wakeup.publish(["a"])
    assert await asyncio.gather(*waiting) == [True] * 100


async def test_one_publish_wakes_the_waiters_of_many_topics(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as one, wakeup.subscribe("b") as other, wakeup.subscribe("c") as third:
        wakeup.publish(iter(["a", "b", "a"]))
        assert await one.wait(LONG) is True
        assert await other.wait(LONG) is True
        assert await third.wait(0.01) is False


async def test_publishing_to_nobody_and_again_is_harmless(wakeup: Wakeup) -> None:
    wakeup.publish(["nobody"])
    with wakeup.subscribe("a") as subscription:
        for _ in range(3):
            wakeup.publish(["a", "a"])
        assert await subscription.wait(LONG) is True
        subscription.clear()
        assert await subscription.wait(0.01) is False


async def test_a_waiter_can_wait_again(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as subscription:
        for _ in range(3):
            subscription.clear()
            asyncio.get_running_loop().call_soon(wakeup.publish, ["a"])
            assert await subscription.wait(LONG) is True


async def test_a_waiter_who_leaves_does_not_disturb_the_others(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as left, wakeup.subscribe("a") as stays:
        waiting = asyncio.ensure_future(left.wait(LONG))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        wakeup.publish(["a"])
        assert await stays.wait(LONG) is True
        assert await left.wait(LONG) is True


async def test_wake_all_wakes_every_waiter(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as one, wakeup.subscribe("b", "c") as other:
        waiting = [asyncio.ensure_future(subscription.wait(LONG)) for subscription in (one, other)]
        await asyncio.sleep(0)
        wakeup.wake_all()
        assert await asyncio.gather(*waiting) == [True, True]


async def test_closing_twice_does_nothing(wakeup: Wakeup) -> None:
    await wakeup.close()
    await wakeup.close()


async def test_the_waiters_of_one_process_can_be_woken_alone(wakeup: Wakeup) -> None:
    with wakeup.subscribe("a") as subscription, wakeup.subscribe("b") as other:
        wakeup.publish_here(["a"])
        assert await subscription.wait(LONG) is True
        assert await other.wait(0.01) is False
