"""TaskHandler: what a program logs becomes a task's output."""

from __future__ import annotations

import logging

import pytest

from taskserver.client import Unreachable
from taskserver.producer import TaskHandler
from taskserver.producer.outbox import Outbox
from tests.server import Server


def logger_with(handler: logging.Handler) -> logging.Logger:
    """A logger of its own, that tells nobody else."""
    logger = logging.Logger("program")
    logger.addHandler(handler)
    return logger


def test_records_become_lines_and_the_task_ends_with_the_handler(server: Server) -> None:
    handler = TaskHandler(server.url, server.key, name="nightly")
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logger_with(handler)
    logger.info("begun\nin two lines")
    logger.error("failed at %d", 7)
    handler.close()
    handler.close()
    task = server.get(f"/v1/tasks/{handler.task_id}").json
    assert (task["name"], task["state"]) == ("nightly", "success")
    assert task["output"] == ["INFO begun", "in two lines", "ERROR failed at 7"]


def test_a_task_that_exists_stays_open(server: Server) -> None:
    handler = TaskHandler(server.url, server.key, server.new_task())
    logger_with(handler).warning("look")
    handler.close()
    task = server.get(f"/v1/tasks/{handler.task_id}").json
    assert (task["state"], task["output"]) == ("running", ["look"])


def test_a_record_that_cannot_be_formatted_is_told_as_logging_does(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = TaskHandler(server.url, server.key)
    logger_with(handler).info("%d", "x")
    handler.close()
    assert "Logging error" in capsys.readouterr().err


def test_who_sends_does_not_wait_for_who_waits_for_the_sending(server: Server) -> None:
    handler = TaskHandler(server.url, server.key)
    outbox = Outbox.to(server.url, server.key)

    async def logs() -> None:
        logger_with(handler).info("of the sending")

    handler.acquire()  # as somebody who logs has while there is no room
    try:
        outbox.start(logs()).result(20)
    finally:
        handler.release()
    handler.close()
    assert server.get(f"/v1/tasks/{handler.task_id}").json["output"] == []


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(Unreachable):
        TaskHandler("http://127.0.0.1:1", "x" * 40)
