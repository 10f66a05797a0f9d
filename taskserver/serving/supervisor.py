"""The first of several processes: it commits for all, hands out the connections, and replaces workers that die."""

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
from taskserver.serving.assignment import Assignment
from taskserver.serving.door import AT_ONCE, Reception, hand_over, opened
from taskserver.serving.firstkey import ensure_admin
from taskserver.serving.listening import listen, url_of
from taskserver.serving.process import make_runner
from taskserver.serving.tls import Certificate
from taskserver.store import SharedStore
from taskserver.stores import open_shared_store
from taskserver.web.app import make_app, make_services

log = logging.getLogger(__name__)

START_LIMIT = 60.0  # seconds until a worker takes connections; half of one is usual
STABLE = 10.0  # seconds; a worker that lived so long is replaced at once
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before one that did not is replaced
STOP_MARGIN = 0.5  # seconds beyond the time that a worker gives its clients
ACCEPT_PAUSE = 1.0  # seconds; while none can be accepted

# The worker finds its modules where this process finds them, and not in the working directory.
_START = "import sys; sys.path[:] = sys.argv[2:]; from taskserver.serving.worker import main; main()"


async def serve_with_workers(settings: Settings, say: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve with several processes, of which this is the first, until ``stop``. Raises StartupError."""
    certificate = Certificate(settings)
    store = await open_shared_store(settings.database, synchronous=settings.synchronous)
    try:
        services = make_services(settings, store)
        await ensure_admin(settings, services.keys, say)
        listeners = await listen(settings)
        runner = make_runner(make_app(services), settings)
        await runner.setup()
        assert runner.server is not None
        supervisor = Supervisor(settings, store, listeners, Reception(runner.server, certificate.context), stop)
        certificate.reload_at_hangup(supervisor.pass_hangup_on)
        try:
            await supervisor.run(say)
        finally:
            # All processes answer their waits at the same time.
            await asyncio.gather(supervisor.close(), runner.cleanup())
    finally:
        await store.close()


class Worker:
    """One of the other processes."""

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
                start_new_session=True,  # Ctrl-C is for the first process
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
        """Give it a connection; tell whether it takes it."""
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
    """Keeps the other processes running, and gives each one, and this one, its share of the connections."""

    def __init__(
        self,
        settings: Settings,
        store: SharedStore,
        listeners: Sequence[socket.socket],
        reception: Reception,
        stop: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._store = store
        self._listeners = listeners
        self._stop = stop
        self._reception = reception
        self._workers: set[Worker] = set()  # whose processes run
        self._takers: deque[Reception | Worker] = deque([reception])  # of connections; the last one had the last one
        self._complete = asyncio.Event()  # every worker has been ready
        self._accepting: list[asyncio.Task[None]] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._hangups = 0

    async def run(self, say: Callable[[str], None]) -> None:
        """Serve until told to stop. Raises StartupError if the workers cannot start."""
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._settings.workers - 1)]
        await self._until(self._complete)
        if self._complete.is_set():
            say(f"listening on {url_of(self._listeners[0].getsockname(), self._settings.tls_cert is not None)}")
            self._accepting = [asyncio.create_task(self._accept(listener)) for listener in self._listeners]
            await self._until(self._stop)
        say("stopping")
        await self._stop_accepting()

    async def close(self) -> None:
        """End all workers. What they still have committed needs the store."""
        self._stop.set()
        await self._stop_accepting()
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=self._settings.timing.shutdown + STOP_MARGIN)
        for worker in self._workers:
            log.error("worker %d does not end; it is killed", worker.pid)
            worker.signal(signal.SIGKILL)
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def pass_hangup_on(self) -> None:
        """Give a SIGHUP to all workers; to those that are starting when they are ready, as it would end them before."""
        self._hangups += 1
        for taker in self._takers:
            if isinstance(taker, Worker):
                taker.signal(signal.SIGHUP)

    async def _until(self, event: asyncio.Event) -> None:
        """Return when an event is set or this is to stop. Raises what a keeper failed with."""
        waiting = [asyncio.create_task(one.wait()) for one in (event, self._stop)]
        try:
            await asyncio.wait([*waiting, *self._keepers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        for keeper in self._keepers:
            if keeper.done():
                keeper.result()

    # --- processes ---------------------------------------------------------------

    async def _keep(self) -> None:
        """Keep one worker running until told to stop. Raises StartupError if the first ones do not get to work."""
        loop = asyncio.get_running_loop()
        short_lives = 0
        while not self._stop.is_set():
            began = loop.time()
            how = await self._run_one()
            if self._stop.is_set():
                return
            if not self._complete.is_set():
                raise StartupError(f"the workers cannot start: {how}")
            log.error("%s; another one takes its place", how)
            short_lives = short_lives + 1 if loop.time() - began < STABLE else 0
            if short_lives > 1:
                await self._pause(min(FIRST_PAUSE * 2 ** (short_lives - 2), LONGEST_PAUSE))

    async def _run_one(self) -> str:
        """The life of one process; how it ended."""
        hangups = self._hangups
        try:
            worker = await Worker.start(self._settings, self._store)
        except OSError as error:
            return f"a worker could not be started: {error}"
        self._workers.add(worker)
        if self._stop.is_set():
            worker.signal(signal.SIGTERM)
        if await worker.ready():
            self._takers.append(worker)
            if hangups != self._hangups:
                worker.signal(signal.SIGHUP)
            if len(self._takers) == self._settings.workers:
                self._complete.set()
            how = await worker.wait()
            self._takers.remove(worker)
        else:
            how = await worker.wait()
        self._workers.discard(worker)
        return f"worker {worker.pid} {how}"

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    # --- connections -------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count(1):
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # the client has left already
            except OSError as error:
                log.error("cannot accept connections: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            self._give(connection)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # accepting does not wait while there are more: let other things go on

    def _give(self, connection: socket.socket) -> None:
        """Give a connection to who is due, or else to the next one that takes it; this process always does."""
        self._takers.rotate(-1)
        while not self._takers[-1].take(connection):
            self._takers.rotate(-1)

    async def _stop_accepting(self) -> None:
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        await self._reception.close()
