"""The process that commits, listens, and keeps the workers running, which answer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence

from taskserver.config import Settings
from taskserver.errors import StartupError
from taskserver.keys import Keys
from taskserver.serving.assignment import Assignment
from taskserver.serving.door import AT_ONCE, hand_over, opened
from taskserver.serving.firstkey import ensure_admin
from taskserver.serving.listening import listen, url_of
from taskserver.store import SharedStore
from taskserver.stores import open_shared_store
from taskserver.upkeep import Upkeep
from taskserver.wakeup import LocalWakeup

log = logging.getLogger(__name__)

START_LIMIT = 60.0  # seconds until a worker takes connections; half of one is usual
STABLE = 10.0  # seconds; a worker that lived so long is replaced at once
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before one that did not is replaced
MOST_FAILURES = 10  # starts in a row that lead to nothing, while no worker is left
STOP_MARGIN = 0.5  # seconds beyond the time that a worker gives its clients
BUSY_PAUSE = 0.01  # seconds; while no worker takes a connection
ACCEPT_PAUSE = 1.0  # seconds; while none can be accepted

# The worker finds its modules where this process finds them, and not in the working directory.
_START = "import sys; sys.path[:] = sys.argv[2:]; from taskserver.serving.worker import main; main()"


async def supervise(settings: Settings, say: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve with several workers until ``stop``. Raises StartupError."""
    store = await open_shared_store(settings.database, synchronous=settings.synchronous)
    try:
        await ensure_admin(settings, Keys(store, LocalWakeup()), say)
        listeners = await listen(settings)
        upkeep = Upkeep(store, settings.timing)
        store.listen(upkeep.committed)
        await upkeep.start()
        try:
            await Supervisor(settings, store, listeners, stop).run(say)
        finally:
            await upkeep.close()
    finally:
        await store.close()


class Worker:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process, door: socket.socket) -> None:
        self._process = process
        self._door = door

    @classmethod
    async def start(cls, settings: Settings, store: SharedStore) -> Worker:
        """Start a process. Raises OSError."""
        invitation = await store.invite()
        door, theirs = socket.socketpair()
        door.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _START, "taskserver-worker", *sys.path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(*invitation.descriptors, theirs.fileno()),
                start_new_session=True,  # Ctrl-C is for the supervisor
            )
        except BaseException:
            door.close()
            raise
        finally:
            os.close(invitation.link)
            number = theirs.fileno()
            theirs.close()
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(Assignment(settings, invitation, number)))
        process.stdin.close()
        return cls(process, door)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    async def ready(self) -> bool:
        """Return when it takes connections; False if it does not get that far."""
        try:
            return await asyncio.wait_for(opened(self._door), START_LIMIT)
        except asyncio.TimeoutError:
            self.signal(signal.SIGKILL)
            return False

    def take(self, connection: socket.socket) -> bool:
        """Give it a connection; tell whether it has taken it."""
        return hand_over(self._door, connection)

    def signal(self, number: int) -> None:
        """Send a signal, if the process has not ended."""
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            pass

    async def wait(self) -> str:
        """Wait for its end and tell how that came."""
        status = await self._process.wait()
        self._door.close()
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


class Supervisor:
    """Keeps as many workers running as the settings say, and gives each its share of the connections."""

    def __init__(
        self, settings: Settings, store: SharedStore, listeners: Sequence[socket.socket], stop: asyncio.Event
    ) -> None:
        self._settings = settings
        self._store = store
        self._listeners = listeners
        self._stop = stop
        self._workers: set[Worker] = set()  # whose processes run
        self._ready: deque[Worker] = deque()  # who take connections; the first one is due next
        self._any_ready = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._failures = 0  # starts in a row that led to nothing

    async def run(self, say: Callable[[str], None]) -> None:
        """Serve until told to stop. Raises StartupError if the workers cannot start (any more)."""
        address = self._listeners[0].getsockname()
        keepers = [asyncio.create_task(self._keep()) for _ in range(self._settings.workers)]
        accepting = [asyncio.create_task(self._accept(listener)) for listener in self._listeners]
        try:
            await _first_of(self._all_ready, self._stop, keepers)
            if self._all_ready.is_set():
                say(f"listening on {url_of(address)}")
                await _first_of(self._stop, self._stop, keepers)
            say("stopping")
        finally:
            self._stop.set()
            await self._close(keepers, accepting)

    async def _close(self, keepers: Sequence[asyncio.Task[None]], accepting: Sequence[asyncio.Task[None]]) -> None:
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        await asyncio.wait(keepers, timeout=self._settings.timing.shutdown + STOP_MARGIN)
        for worker in self._workers:
            log.error("worker %d does not end; it is killed", worker.pid)
            worker.signal(signal.SIGKILL)
        await asyncio.gather(*keepers, return_exceptions=True)

    # --- processes ---------------------------------------------------------------

    async def _keep(self) -> None:
        """Keep one worker running until told to stop."""
        loop = asyncio.get_running_loop()
        short_lives = 0
        while not self._stop.is_set():
            began = loop.time()
            how = await self._run_one()
            if self._stop.is_set():
                return
            short_lives = short_lives + 1 if loop.time() - began < STABLE else 0
            self._check_failures(how)
            log.error("%s; another one takes its place", how)
            if short_lives > 1:
                await self._pause(min(FIRST_PAUSE * 2 ** (short_lives - 2), LONGEST_PAUSE))

    async def _run_one(self) -> str:
        """The life of one process; how it ended."""
        try:
            worker = await Worker.start(self._settings, self._store)
        except OSError as error:
            self._failures += 1
            return f"a worker could not be started: {error}"
        self._workers.add(worker)
        if self._stop.is_set():
            worker.signal(signal.SIGTERM)
        if await worker.ready():
            self._failures = 0
            self._ready.append(worker)
            self._any_ready.set()
            if len(self._ready) == self._settings.workers:
                self._all_ready.set()
            how = await worker.wait()
            self._ready.remove(worker)
            if not self._ready:
                self._any_ready.clear()
        else:
            self._failures += 1
            how = await worker.wait()
        self._workers.discard(worker)
        return f"worker {worker.pid} {how}"

    def _check_failures(self, how: str) -> None:
        if self._failures and not self._all_ready.is_set():
            raise StartupError(f"the workers cannot start: {how}")
        if self._failures >= MOST_FAILURES and not self._ready:
            raise StartupError(f"the workers cannot start any more: {how}")

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    # --- connections -------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count(1):
            await self._any_ready.wait()
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # the client has left already
            except OSError as error:
                log.error("cannot accept connections: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            with connection:
                await self._give(connection)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # accepting does not wait while there are more: let commits go on

    async def _give(self, connection: socket.socket) -> None:
        """Give a connection to the worker that is due, or to the next one that takes it."""
        while True:
            await self._any_ready.wait()
            for _ in range(len(self._ready)):
                self._ready.rotate(-1)
                if self._ready[0].take(connection):
                    return
            await asyncio.sleep(BUSY_PAUSE)


async def _first_of(event: asyncio.Event, other: asyncio.Event, keepers: Sequence[asyncio.Task[None]]) -> None:
    """Return when one of the events is set. Raises what a keeper failed with."""
    waiting = [asyncio.create_task(one.wait()) for one in (event, other)]
    try:
        await asyncio.wait([*waiting, *keepers], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    for keeper in keepers:
        if keeper.done():
            keeper.result()
