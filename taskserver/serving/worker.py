"""A worker: answers requests, and has the first process commit."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys

import uvloop

from taskserver.serving.assignment import Assignment
from taskserver.serving.door import Entrance, Reception
from taskserver.serving.process import allow_connections, log_to_stderr, make_runner
from taskserver.serving.tls import Certificate
from taskserver.stores import join_store
from taskserver.web.app import make_app, make_services

log = logging.getLogger(__name__)


def main() -> None:
    """The whole life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process says when to stop
    try:
        assignment = pickle.load(sys.stdin.buffer)  # noqa: S301 - the first process's
    except EOFError:
        return  # the first process is gone
    log_to_stderr()
    uvloop.run(work(assignment))


async def work(assignment: Assignment) -> None:
    """Answer requests until SIGTERM."""
    allow_connections()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    certificate = Certificate(assignment.settings)
    certificate.reload_at_hangup()
    store = await join_store(assignment.invitation, lost=_leave)
    try:
        settings = assignment.settings
        runner = make_runner(make_app(make_services(settings, store, upkeep=False)), settings)
        await runner.setup()
        try:
            assert runner.server is not None
            entrance = Entrance(socket.socket(fileno=assignment.door), Reception(runner.server, certificate.context))
            entrance.open()
            await stop.wait()
            await entrance.close()
        finally:
            await runner.cleanup()
    finally:
        await store.close()


def _leave() -> None:
    """End at once, without a word to anybody: nothing can be committed any more, and somebody else serves soon."""
    log.error("the first process is gone; worker %d ends", os.getpid())
    os._exit(1)
