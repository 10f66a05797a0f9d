"""``kill -9`` of the server under load loses nothing (scripts/killtest runs the same for as long as one likes)."""

from __future__ import annotations

import asyncio
import random

from tests.conftest import NewServer, every_way_to_serve
from tests.e2e.killing import KillTest
from tests.e2e.ledger import Record, compare

ROUNDS = 5
LIMIT = 180.0  # seconds


@every_way_to_serve
async def test_every_acknowledged_line_survives_being_killed(new_server: NewServer) -> None:
    seed = random.SystemRandom().getrandbits(32)
    with new_server() as server:
        try:
            figures = await asyncio.wait_for(KillTest(server, seed).run(ROUNDS), LIMIT)
        except BaseException as error:
            raise AssertionError(f"seed {seed}; the server's log:\n{server.log}") from error
    assert figures.rounds == ROUNDS
    assert figures.load.cut_off > 0


def test_the_ledger_finds_what_is_wrong() -> None:
    record = Record("t", sent=["a", "b", "c", "d"])
    assert not compare(record, ["a", "b"], acknowledged=2)
    assert not compare(record, ["a", "b", "c"], acknowledged=2)  # sent, and its acknowledgement was cut off
    assert compare(record, ["a"], acknowledged=2).lost == 1
    assert compare(record, ["a", "c"], acknowledged=3).lost == 1
    assert compare(record, ["a", "b", "b"], acknowledged=2).repeated == 1
    assert compare(record, ["b", "a"], acknowledged=2).out_of_order == 1
    assert compare(record, ["a", "x"], acknowledged=1).foreign == 1
