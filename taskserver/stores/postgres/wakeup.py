"""PostgresWakeup: wake-ups between the nodes of a database, and what they tell each other without storing it.

``NOTIFY`` takes a lock of the whole cluster through the commit of its
transaction, so no write transaction may hold it. What is published is
collected, and one statement of its own every ``PAUSE`` tells it to the others.
Within a node waiters are woken at once.

A notification is lines of text: the node that sends it, then topics; or the
node, an empty line and a partial.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from secrets import token_urlsafe

from taskserver.partial import Partial, Unfinished
from taskserver.stores.postgres.connect import APPLICATION_NAME, Address, Connection, Pool, borrowed
from taskserver.stores.postgres.failures import describe
from taskserver.stores.postgres.schema import NODES
from taskserver.wakeup import LocalWakeup, Subscription, Wakeup

log = logging.getLogger(__name__)

PAUSE = 0.01  # seconds between two notifications
MAX_TOPICS_BYTES = 7900  # in one notification: PostgreSQL takes less than 8000 bytes, and the node's name comes first
MAX_PENDING = 50_000  # topics that could not be told yet; beyond that the others look at everything
MAX_PARTIALS = 1000  # of so many tasks in one statement; those of others are left out, until they move again
PROBE_INTERVAL = 5.0  # seconds; tells whether the listening connection still lives
LAST_WORDS = 2.0  # seconds for telling the others, at the end, what they do not know yet
RECONNECT_PAUSE = 0.2  # seconds after the listening connection was lost; grows to RECONNECT_LIMIT
RECONNECT_LIMIT = 5.0

ALL = "*"  # in the place of topics: look at everything again
SEPARATOR = "\n"  # stands in no topic

_NOTIFY = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"


class PostgresWakeup(Wakeup):
    """See ``Wakeup``. ``start`` begins to listen; ``pool`` lends the connections to notify.

    ``listen`` is the database's address for the connection that listens: where
    the others go through a pooler that gives them to one transaction after the
    other, it must not. ``hear`` is given the partials that other nodes tell.
    """

    def __init__(self, pool: Pool, listen: Address, namespace: str, hear: Callable[[Partial], None]) -> None:
        self._local = LocalWakeup()
        self._pool = pool
        self._listen = listen
        self._namespace = int(namespace)
        self._channel = f"taskserver_{namespace}"
        self._node = token_urlsafe(6)
        self._hear = hear
        self._pending: dict[str, None] = {}
        self._partials: dict[int, Partial] = {}  # by log
        self._something = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when this node hears the others, or could not connect at once and goes on trying."""
        listening = asyncio.Event()
        self._background = [
            asyncio.create_task(self._keep_listening(listening)),
            asyncio.create_task(self._keep_telling()),
        ]
        await listening.wait()

    def subscribe(self, *topics: str) -> Subscription:
        return self._local.subscribe(*topics)

    def publish(self, topics: Iterable[str]) -> None:
        new = dict.fromkeys(topics)
        if new:
            self._local.publish(new)
            self._pending.update(new)
            self._something.set()

    def publish_here(self, topics: Iterable[str]) -> None:
        self._local.publish(topics)

    def tell(self, partial: Partial) -> None:
        """Tell the other nodes something that is not stored. Never blocks, never raises; it may get lost."""
        if partial.log in self._partials or len(self._partials) < MAX_PARTIALS:
            self._partials[partial.log] = partial
            self._something.set()

    def wake_all(self) -> None:
        self._local.wake_all()

    async def close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._background:
            self._background = []
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._tell(), LAST_WORDS)  # the last changes of this node
        await self._local.close()

    # --- telling -------------------------------------------------------------------

    async def _keep_telling(self) -> None:
        while True:
            await self._something.wait()
            try:
                await self._tell()
            except Exception as error:  # waiters look again by themselves
                log.warning("other nodes are not told of changes yet: %s", describe(error))
                await asyncio.sleep(RECONNECT_PAUSE)
            await asyncio.sleep(PAUSE)

    async def _tell(self) -> None:
        self._something.clear()
        pending, self._pending = self._pending, {}
        partials, self._partials = self._partials, {}
        if pending:
            topics = list(pending) if len(pending) <= MAX_PENDING else [ALL]
            try:
                await self._notify(_parts(topics))
            except BaseException:
                self._pending = dict.fromkeys(topics) | self._pending
                self._something.set()
                raise
        if partials:  # behind the lines that they come after, and alone: what of them is refused must delay no wake-up
            try:
                await self._notify(map(_partial_text, partials.values()))
            except Exception as error:
                log.debug("unfinished lines are not told: %s", describe(error))

    async def _notify(self, texts: Iterable[str]) -> None:
        payloads = [f"{self._node}{SEPARATOR}{text}" for text in texts]
        async with borrowed(self._pool) as connection:
            await connection.execute(_NOTIFY, self._channel, payloads)

    # --- listening -----------------------------------------------------------------

    async def _keep_listening(self, listening: asyncio.Event) -> None:
        pause = RECONNECT_PAUSE
        while True:
            try:
                connection = await self._listen.connect(application_name=f"{APPLICATION_NAME} listening")
                try:
                    lost = asyncio.Event()
                    connection.add_termination_listener(lambda *_, lost=lost: lost.set())
                    # Tells `taskserver copy` that there is a node.
                    if not await connection.fetchval(f"SELECT pg_try_advisory_lock_shared({NODES})", self._namespace):
                        log.error("the database is being copied; what is written to it now may be missing in the copy")
                    await connection.add_listener(self._channel, self._heard)
                    pause = RECONNECT_PAUSE
                    self._local.wake_all()  # what was told while nobody listened here is lost: let everybody look
                    listening.set()
                    await _until_lost(connection, lost)
                    log.warning("the connection that hears of other nodes' changes was lost")
                finally:
                    connection.terminate()
            except Exception as error:
                log.warning("other nodes' changes are not heard of: %s", describe(error))
            listening.set()
            await asyncio.sleep(pause)
            pause = min(2 * pause, RECONNECT_LIMIT)

    def _heard(self, connection: Connection, pid: int, channel: str, payload: str) -> None:
        node, *topics = payload.split(SEPARATOR)
        if node == self._node:
            return
        if topics == [ALL]:
            self._local.wake_all()
        elif not topics[0]:
            self._hear(_partial_of(topics[1:]))
        else:
            self._local.publish(topics)


async def _until_lost(connection: Connection, lost: asyncio.Event) -> None:
    """Return when the connection is lost, also where the network keeps silent about it."""
    while True:
        # Not wait_for: until Python 3.12 it may swallow the cancellation that ends this.
        waiting = asyncio.ensure_future(lost.wait())
        try:
            await asyncio.wait({waiting}, timeout=PROBE_INTERVAL)
        finally:
            waiting.cancel()
        if lost.is_set():
            return
        await connection.execute("SELECT 1", timeout=PROBE_INTERVAL)


def _parts(topics: Iterable[str]) -> Iterator[str]:
    """The topics joined, in parts that fit into a notification."""
    part: list[str] = []
    size = 0
    for topic in topics:
        length = len(topic.encode()) + len(SEPARATOR)
        if part and size + length > MAX_TOPICS_BYTES:
            yield SEPARATOR.join(part)
            part, size = [], 0
        part.append(topic)
        size += length
    yield SEPARATOR.join(part)


def _partial_text(partial: Partial) -> str:
    return SEPARATOR.join(["", str(partial.log), str(partial.last), *partial.unfinished])


def _partial_of(parts: list[str]) -> Partial:
    log_number, last, *unfinished = parts
    return Partial(int(log_number), int(last), Unfinished(*unfinished))
