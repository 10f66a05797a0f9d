"""LocalWakeup: what it does beyond the interface, which tests/contract/ holds it to."""

from __future__ import annotations

import asyncio

import pytest

from taskserver.wakeup import LocalWakeup


async def test_waiters_are_counted_and_forgotten() -> None:
    wakeup = LocalWakeup()
    assert wakeup.subscribers("a") == 0
    with wakeup.subscribe("a", "b"), wakeup.subscribe("a"):
        assert (wakeup.subscribers("a"), wakeup.subscribers("b")) == (2, 1)
    assert (wakeup.subscribers("a"), wakeup.subscribers("b")) == (0, 0)
    assert wakeup._topics == {}


async def test_a_waiter_is_forgotten_however_it_leaves() -> None:
    wakeup = LocalWakeup()

    def fail() -> None:
        with wakeup.subscribe("a"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    async def wait() -> None:
        with wakeup.subscribe("a") as subscription:
            await subscription.wait(20)

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    assert wakeup.subscribers("a") == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert wakeup._topics == {}


async def test_waiters_are_woken_in_the_order_in_which_they_came() -> None:
    wakeup = LocalWakeup()
    woken: list[int] = []

    async def wait(number: int) -> None:
        with wakeup.subscribe("a") as subscription:
            await subscription.wait(20)
            woken.append(number)

    waiting = [asyncio.ensure_future(wait(number)) for number in range(100)]
    await asyncio.sleep(0)
    wakeup.publish(["a"])
    await asyncio.gather(*waiting)
    assert woken == list(range(100))


async def test_a_topic_that_is_named_twice_counts_once() -> None:
    wakeup = LocalWakeup()
    with wakeup.subscribe("a", "a") as subscription:
        assert wakeup.subscribers("a") == 1
        wakeup.publish(["a"])
        assert await subscription.wait(20)
    assert wakeup._topics == {}


async def test_closing_wakes_everybody() -> None:
    wakeup = LocalWakeup()
    with wakeup.subscribe("a") as subscription:
        await wakeup.close()
        assert await subscription.wait(20)
