"""Seats for requests: what their audience tells goes to the connection at once, before their handler goes on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from aiohttp import web

from taskserver.audience import Seat, Subject
from taskserver.keys import Caller
from taskserver.web.context import caller, services
from taskserver.web.prepared import Head, Prepared, write_first, written
from taskserver.web.requests import leave_untimed
from taskserver.web.streaming import Part, write_part


class AnswerSeat(Seat[bytes]):
    """For a long poll; the news are the whole answer, as ``prepared.first_bytes`` makes it."""

    __slots__ = ("_request", "told")

    def __init__(self, who: Caller, request: web.Request) -> None:
        super().__init__(who)
        self._request = request
        self.told: bytes | None = None

    def tell(self, news: bytes) -> bool:
        if write_first(self._request, news):
            self.told = news
            return True
        return False


@dataclass(frozen=True, slots=True)
class Told:
    """What followers are told: ``part`` has what stands at ``[first, end)`` of that which they follow."""

    first: int
    end: int
    part: Part


class StreamSeat(Seat[Told]):
    """For a stream whose response is prepared. ``cursor``: how far its client has been told; ``ended``: all of it."""

    __slots__ = ("_request", "cursor", "ended")

    def __init__(self, who: Caller, request: web.Request) -> None:
        super().__init__(who)
        self._request = request
        self.cursor = 0
        self.ended = False

    def tell(self, news: Told) -> bool:
        if self.cursor != news.first or not write_part(self._request, news.part):
            return False
        self.cursor = news.end
        self.ended = news.part.last
        return True


async def wait_for_answer(
    request: web.Request, key: Hashable, subject: Callable[[], Subject[bytes]], head: Head, timeout: float, sure: bool
) -> Prepared | None:
    """Wait with those who wait for the same; the response, if the answer was written meanwhile.

    None if ``timeout`` seconds have passed or the handler is to look by itself
    for another reason. ``prepared.may_be_first`` must hold. ``sure``: nothing
    can have happened since the handler looked. Raises TooManyWaiters.
    """
    leave_untimed(request)
    seat = AnswerSeat(caller(request), request)
    services(request).audiences.join(key, seat, subject)
    try:
        if not sure:
            seat.look_again()
        await seat.wait(timeout)
        return None if seat.told is None else written(head, seat.told)
    finally:
        seat.leave()
