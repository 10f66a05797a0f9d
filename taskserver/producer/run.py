"""A run: create the task, start the command, and bring both to the same end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskserver.client import TaskClient
from taskserver.config import MIB
from taskserver.model import now_us
from taskserver.producer.advice import Left, advice
from taskserver.producer.echo import STDERR, standard_echoes
from taskserver.producer.lines import LineCutter
from taskserver.producer.process import CannotStart, Exit, Process, Source, start_on_pipes, start_on_terminal
from taskserver.producer.pump import Pump, Stop
from taskserver.producer.sender import Sender
from taskserver.producer.spool import Spool
from taskserver.producer.terminal import Terminal

Say = Callable[[str], None]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FORWARDED = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)
LAST_MOMENT = 5.0  # seconds for what is on its way when the user has had enough; an echo may be stuck for ever


@dataclass(frozen=True)
class Options:
    """What a user may wish of a run. Times are in seconds."""

    name: str
    task_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    lease: float = 30.0
    """How long the server may hear nothing before it takes the command for lost."""
    kill_after: float = 10.0
    """From the SIGTERM of a cancel to its SIGKILL."""
    grace: float = 3.0
    """How long output of what the command left behind is waited for."""
    patience: float = 300.0
    """How long a server that is away at the end is waited for."""
    spool_folder: Path | None = None
    spool_limit: int = 1024 * MIB
    pty: bool = False
    quiet: bool = False


async def run_task(client: TaskClient, command: Sequence[str], options: Options, say: Say) -> int:
    """Run a command as a task; return its exit code.

    ``say`` takes a line for the user, from any thread. Raises ApiError,
    Unreachable and OSError, and then the command was not started.
    """
    run = _Run(client, command, options, say)
    try:
        task = await client.create(options.name, task_id=options.task_id, lease=options.lease, labels=options.labels)
    except BaseException:
        run.abandon()
        raise
    if not options.quiet:
        say(client.task_url(task.id))
    return await run.run(task.id)


class _Run:
    def __init__(self, client: TaskClient, command: Sequence[str], options: Options, say: Say) -> None:
        self._client = client
        self._command = command
        self._options = options
        self._tell = say
        self._echoes = standard_echoes()
        self._loop = asyncio.get_running_loop()
        self._spool = Spool(options.spool_folder, options.spool_limit, self._wake, self._say)
        self._sender: Sender
        self._cutters: list[LineCutter] = []
        self._process: Process | None = None
        self._terminal: Terminal | None = None
        self._ended: asyncio.Future[Exit] = self._loop.create_future()
        self._give_up: asyncio.Future[None] = self._loop.create_future()
        self._cancelled = False

    def abandon(self) -> None:
        """Leave nothing behind of a run that does not begin."""
        self._spool.remove()

    async def run(self, task_id: str) -> int:
        """The whole of it, once."""
        self._sender = Sender(
            self._client, task_id, self._spool, self._options.lease, self._cancel, self._say, self._cutters
        )
        sending = asyncio.create_task(self._send())
        with self._forwarding_signals():
            end = await self._execute()
            self._ended.set_result(end)
            self._spool.end()
            await self._wait_for_server(sending)
        self._clear_up(task_id, end)
        return end.code

    async def _send(self) -> None:
        await self._sender.send_all()
        await self._sender.finish(await self._ended)

    async def _execute(self) -> Exit:
        """Start the command, and see it and its output end."""
        try:
            process = self._process = self._start()
        except CannotStart as error:
            self._say(error.message)
            return Exit(error.code, error.message)
        stop = Stop()
        try:
            pumps = [self._pump(source, stop) for source in process.sources]
            end = await process.wait()
            self._process = None
            self._spool.lift_limit()  # what is left is in the pipes; it must not wait for a server that stays away
            drained: set[asyncio.Future[Any]] = {asyncio.gather(*pumps)}
            either = drained | {self._give_up}
            await asyncio.wait(either, timeout=self._options.grace, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(drained, timeout=LAST_MOMENT)
            return end
        finally:
            if self._terminal is not None:
                self._loop.remove_signal_handler(signal.SIGWINCH)
                self._terminal.close()
                self._terminal = None

    def _start(self) -> Process:
        if not self._options.pty:
            return start_on_pipes(self._command)
        self._terminal = terminal = Terminal()
        # Before the command can look at the size; what changed meanwhile is copied once more.
        self._loop.add_signal_handler(signal.SIGWINCH, terminal.copy_size)
        terminal.copy_size()
        process = start_on_terminal(self._command, terminal)
        terminal.start_input()
        return process

    def _pump(self, source: Source, stop: Stop) -> asyncio.Future[None]:
        """Start a pump; the future tells its end."""
        ended: asyncio.Future[None] = self._loop.create_future()
        cutter = LineCutter(source.stream)
        self._cutters.append(cutter)

        def sink(data: bytes) -> None:
            records = cutter.feed(data, now_us())
            if records.count:
                self._spool.write(records.data, records.count)
            else:
                with contextlib.suppress(RuntimeError):  # as in `done`
                    self._sender.stir()

        def done() -> None:
            records = cutter.end(now_us())
            if records.count:
                self._spool.write(records.data, records.count)
            with contextlib.suppress(RuntimeError):  # given up on: there is no loop any more
                self._loop.call_soon_threadsafe(self._pump_ended, pump, ended)

        pump = Pump(source.fd, self._echoes[source.echo], sink, stop, done, self._say)
        pump.start()
        return ended

    def _pump_ended(self, pump: Pump, ended: asyncio.Future[None]) -> None:
        if pump.reader_left and self._terminal is not None and self._process is not None:
            # A pipe tells its writer by itself; a terminal whose window was closed hangs up.
            self._process.signal(signal.SIGHUP)
        if not ended.done():
            ended.set_result(None)

    async def _wait_for_server(self, sending: asyncio.Task[None]) -> None:
        """See the sending end, unless the server stays away or the user has had enough."""
        began = time.monotonic()
        while not sending.done() and not self._give_up.done():
            left = max(began, self._sender.heard_at) + self._options.patience - time.monotonic()
            if left <= 0:
                break
            await asyncio.wait({sending, self._give_up}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if self._give_up.done() and not self._sender.away:
            await asyncio.wait({sending}, timeout=LAST_MOMENT)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending

    # --- from outside ----------------------------------------------------------------

    @contextlib.contextmanager
    def _forwarding_signals(self) -> Iterator[None]:
        # What we were started to ignore (nohup), the command ignores too.
        numbers = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
        for number in numbers:
            self._loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in numbers:
                self._loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.signal(number):
            return
        if number in ENDING and not self._give_up.done():
            self._give_up.set_result(None)

    def _cancel(self) -> None:
        process = self._process
        if process is None or self._cancelled:
            return
        self._cancelled = True
        self._say("the task is to be cancelled: asking the command to end")
        process.signal(signal.SIGTERM)
        self._loop.call_later(self._options.kill_after, process.signal, signal.SIGKILL)

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # as in `done`
            self._sender.wake()

    # --- to the user -----------------------------------------------------------------

    def _say(self, message: str) -> None:
        raw = self._terminal is not None and self._terminal.raw
        with self._echoes[STDERR].own_line(b"\r\n" if raw else b"\n"):
            self._tell(message + "\r" if raw else message)

    def _clear_up(self, task_id: str, end: Exit) -> None:
        sender = self._sender
        if not (sender.finished or sender.over):
            sender.settle()
        lines = self._spool.unsent_lines
        if sender.finished or sender.over or not lines:
            self._spool.remove()
        else:
            self._spool.keep()
        if sender.finished or sender.over:
            return
        left = Left(self._spool.path, sender.first, lines, sender.unanswered, sender.closing)
        for line in advice(self._client.task_url(task_id), left, end):
            self._say(line)
