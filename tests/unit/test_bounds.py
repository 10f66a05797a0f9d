"""How often (``web.bounds``): token buckets, requests per key and in all, and the share of one of several processes."""

from __future__ import annotations

import pytest

from taskserver.config import MAX_LINE_NUMBER, Limits
from taskserver.errors import TooManyRequests
from taskserver.web import bounds
from taskserver.web.bounds import BURST, Buckets, Throttle
from taskserver.web.failures import headers


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(buckets: Buckets, name: str, most: int = 100) -> int:
    """How many tokens there are, taken one by one."""
    for number in range(most):
        if buckets.missing(name):
            return number
        buckets.take(name)
    return most


class TestBuckets:
    @pytest.mark.parametrize(("rate", "burst"), [(10.0, 5.0), (3.0, 7.0), (0.1, 30.0), (1e3, 99.0)])
    def test_a_full_one_has_its_burst_and_no_more(self, clock: Clock, rate: float, burst: float) -> None:
        assert taken(Buckets(rate, burst, clock), "a") == burst

    def test_one_token_is_saved_at_least(self, clock: Clock) -> None:
        assert taken(Buckets(0.01, 0.05, clock), "a") == 1

    def test_it_tells_when_there_is_another_and_then_there_is_one(self, clock: Clock) -> None:
        buckets = Buckets(4.0, 2.0, clock)
        assert taken(buckets, "a") == 2
        assert buckets.missing("a") == pytest.approx(0.25, abs=1e-3)
        clock.now += 0.24
        assert buckets.missing("a") > 0
        clock.now += 0.01
        assert taken(buckets, "a") == 1
        clock.now += 0.5
        assert taken(buckets, "a") == 2

    def test_over_a_long_time_it_gives_its_rate_exactly(self, clock: Clock) -> None:
        buckets, given = Buckets(7.0, 3.0, clock), 0
        for _ in range(10_000):
            given += taken(buckets, "a")
            clock.now += 0.1
        assert given == pytest.approx(3 + 7.0 * 999.9, abs=1)

    def test_names_have_buckets_of_their_own(self, clock: Clock) -> None:
        buckets = Buckets(1.0, 3.0, clock)
        assert taken(buckets, "a") == taken(buckets, "b") == 3

    def test_those_that_are_full_again_are_forgotten(self, clock: Clock) -> None:
        buckets = Buckets(1.0, 3.0, clock)
        for number in range(50):
            buckets.take(str(number))
        assert len(buckets) == 50
        clock.now += 1.1
        for _ in range(50):
            buckets.take("busy")
            clock.now += 1.1
        assert len(buckets) == 1

    def test_there_is_a_bound_on_how_many_are_known(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounds, "MOST_BUCKETS", 10)
        buckets = Buckets(1.0, 3.0, clock)
        for number in range(100):
            taken(buckets, str(number))
        assert len(buckets) == 10
        assert taken(buckets, "99") == 0  # the latest are known
        assert taken(buckets, "0") == 3  # one that was quiet for long counts as full


class TestThrottle:
    def test_without_limits_it_is_off(self, clock: Clock) -> None:
        assert Throttle(Limits(), clock).off
        assert not Throttle(Limits(rate=1.0), clock).off
        assert not Throttle(Limits(rate_per_key=1.0), clock).off

    def admitted(self, throttle: Throttle, key: str | None) -> int:
        """How many requests in a row are let in."""
        for number in range(100):
            try:
                throttle.admit(key)
            except TooManyRequests:
                return number
        return 100

    def test_each_key_has_its_own(self, clock: Clock) -> None:
        throttle = Throttle(Limits(rate_per_key=2.0), clock)
        assert self.admitted(throttle, "ann") == self.admitted(throttle, "bob") == 2 * BURST
        assert self.admitted(throttle, None) == 100

    def test_all_have_one_in_common(self, clock: Clock) -> None:
        throttle = Throttle(Limits(rate=2.0), clock)
        assert self.admitted(throttle, "ann") == 2 * BURST
        assert self.admitted(throttle, "bob") == self.admitted(throttle, None) == 0

    def test_it_tells_when_to_come_back(self, clock: Clock) -> None:
        throttle = Throttle(Limits(rate_per_key=0.2), clock)
        throttle.admit("ann")
        clock.now += 1
        with pytest.raises(TooManyRequests) as refused:
            throttle.admit("ann")
        assert refused.value.payload == {"retry_after": pytest.approx(4.0, abs=0.01)}
        assert headers(refused.value) == {"Retry-After": "4"}

    def test_a_key_that_asks_too_often_takes_nothing_from_the_others(self, clock: Clock) -> None:
        throttle = Throttle(Limits(rate=4.0, rate_per_key=1.0), clock)
        for _ in range(10):
            self.admitted(throttle, "ann")
        assert self.admitted(throttle, "bob") == BURST
        assert self.admitted(throttle, "cem") == BURST

    def test_who_is_refused_because_of_the_others_keeps_its_own_tokens(self, clock: Clock) -> None:
        throttle = Throttle(Limits(rate=1.0, rate_per_key=0.1), clock)
        for number in range(5):
            throttle.admit(f"other {number}")
        assert self.admitted(throttle, "ann") == 0
        clock.now += 1.0
        assert self.admitted(throttle, "ann") == 1


class TestLimits:
    def test_several_processes_share_what_is_counted(self) -> None:
        limits = Limits(waiters=1001, waiters_per_key=10, rate=100.0, rate_per_key=1.0, failed_sign_ins=30)
        share = limits.share(4)
        assert (share.waiters, share.waiters_per_key, share.failed_sign_ins) == (251, 3, 8)
        assert (share.rate, share.rate_per_key) == (25.0, 0.25)
        assert (share.output_lines, share.body_bytes) == (limits.output_lines, limits.body_bytes)

    def test_no_bound_stays_none(self) -> None:
        limits = Limits(failed_sign_ins=None)
        share = limits.share(4)
        assert share == Limits(failed_sign_ins=None, waiters=5000)
        assert limits.share(1) is limits

    @pytest.mark.parametrize(
        ("lines", "reserve"), [(1, 1), (4, 1), (5, 2), (100, 25), (4000, 1000), (10**6, 1000), (MAX_LINE_NUMBER, 1000)]
    )
    def test_a_part_of_the_output_is_reserved_for_its_end(self, lines: int, reserve: int) -> None:
        assert Limits(output_lines=lines).output_reserve == reserve
