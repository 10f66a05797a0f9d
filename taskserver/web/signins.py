"""Failed sign-ins: who shows wrong keys again and again is told to come back later.

The answer says so and nothing waits: a handler that sleeps would hold a
connection for whoever wants to have many held. A good key is good from
everywhere, at any time: behind one address there may be hundreds of people. So
this does not keep anybody from guessing; that a key has 256 random bits does.
It gives a script that goes on with a revoked key a reason to stop.
"""

from __future__ import annotations

from aiohttp import web

from taskserver.config import Limits
from taskserver.errors import BadCredential, SessionOver, TaskServerError, TokenExpired, TooManySignIns
from taskserver.web.addresses import address_group, client_address
from taskserver.web.bounds import Buckets, later

MINUTE = 60.0


class SignIns:
    """The failed sign-ins of the last minute, by address."""

    def __init__(self, limits: Limits) -> None:
        most = limits.failed_sign_ins
        self._failures = None if most is None else Buckets(most / MINUTE, most)

    def failed(self, request: web.Request, error: BadCredential) -> TaskServerError:
        """Count a credential that was not valid; what is to be answered: ``error``, or TooManySignIns.

        A token that has expired was a good one, so it does not count. Nor does
        the cookie of a session that is over: nobody can sign in with one, and
        whoever has it must get to the form where he can.
        """
        if self._failures is None or isinstance(error, (TokenExpired, SessionOver)):
            return error
        group = address_group(client_address(request))
        if seconds := self._failures.missing(group):
            return TooManySignIns(
                "there were too many failed sign-ins from this address, and this one fails too; try again later",
                later(seconds),
            )
        self._failures.take(group)
        return error
