"""Running: one claimed run, from its first task to its end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from taskserver.client import ApiError, RunClient, TaskInfo, Unreachable, insist, is_away
from taskserver.config import MAX_ERROR_LENGTH, MAX_RETRIES
from taskserver.dagmodel import NOT_MAPPED
from taskserver.model import new_id
from taskserver.producer.output import Say
from taskserver.worker.calling import Ended
from taskserver.worker.claim import Claim
from taskserver.worker.context import Context
from taskserver.worker.dag import Dag
from taskserver.worker.errors import DagError
from taskserver.worker.executor import Executor, Try
from taskserver.worker.graph import CANCEL, Node
from taskserver.worker.progress import Call, Progress
from taskserver.worker.record import GIVEN_BACK, LOST, Lost, Place, Record
from taskserver.worker.values import decode_value, encode_value

T = TypeVar("T")

CANCELLED, NOT_BEGUN = "cancelled", "not begun: the run has ended"
STOPPED, WORKER_ENDS = "stopped: the run has failed", "stopped: its worker ends"
STOP_LIMIT = 30.0  # seconds; each executor has given up earlier


@dataclass(frozen=True)
class Shared:
    """What the runs of a worker share: ``slots`` for as many tries as run at once; ``draining``: nothing new begins.

    ``kept`` renews the claims of runs of which something cannot be stopped, for as long as this process lives.
    """

    client: RunClient
    executor: Executor
    slots: asyncio.Semaphore
    draining: asyncio.Event
    say: Say
    kept: set[asyncio.Task[None]] = field(default_factory=set)


class Running:
    """A run that this worker has claimed."""

    def __init__(self, shared: Shared, dag: Dag, claim: Claim) -> None:
        self._shared = shared
        self._client = shared.client
        self._dag = dag
        self._claim = claim
        self._run = claim.run
        self._progress: Progress
        self._waiting: deque[Call] = deque()
        self._at_work: dict[asyncio.Task[Ended | None], Call] = {}
        self._tries: set[Try] = set()
        self._earlier: dict[tuple[str, int], list[TaskInfo]] = {}
        self._last_words: dict[str, str] = {}
        """Records of tasks that are to run behind the run's end, by task id."""
        self._held: dict[str, asyncio.Task[None]] = {}
        """What keeps these records until the tasks have run, by task id."""
        self._changed = asyncio.Event()
        """Somebody wants the run to stop, or it is not this worker's any more."""
        self._halt = asyncio.Event()
        """Nothing begins any more but the last words."""
        self._giving_up = False
        self._stuck: set[Try] = set()
        """Tries that could not be stopped."""
        self._over = False
        """The run has ended, though some of its tasks may not have."""

    async def work(self) -> str:
        """Do all there is to do; how it has ended: its state, ``given back``, ``left to its lease`` or ``lost``."""
        keeping = self._keeping = asyncio.create_task(self._claim.keep(self._on_change))
        try:
            await self._insist(self._remember)
            try:
                arguments = self._dag.arguments(self._run.conf)
            except DagError as error:
                return await self._finish(str(error))
            self._progress = Progress(self._dag.graph, arguments)
            return await self._go_on()
        except (ApiError, Unreachable) as error:
            if not self._claim.lost:
                self._shared.say(f"run {self._run.id} of {self._dag.dag_id} cannot be worked on: {error}")
            return "lost"
        except Exception as error:  # a bug: those who wait are to know that nothing will come
            with suppress(ApiError, Unreachable):
                await self._finish(f"the worker has failed: {type(error).__name__}: {error}")
            raise
        finally:
            if keeping not in self._shared.kept:
                keeping.cancel()
            self._halt.set()
            await self._stop_all(LOST)
            for holding in self._held.values():
                holding.cancel()

    async def _go_on(self) -> str:
        progress, state = self._progress, ""
        draining = asyncio.ensure_future(self._shared.draining.wait())
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            while not progress.over:
                if not draining.done() or self._over:
                    self._begin()
                if not self._at_work and not progress.over and draining.done() and not self._over:
                    return await self._stop_and_give_back()
                if self._at_work:
                    events = {*self._at_work, changed} | (set() if draining.done() else {draining})
                    await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
                if self._claim.lost and not self._over:
                    return "lost"
                if self._giving_up and not self._over:
                    return await self._stop_and_give_back()
                self._take_results()
                if self._claim.cancelled and not self._over:
                    state = await self._end_early(CANCELLED, stop=True)
                elif progress.hopeless and not self._over and not progress.over:
                    state = await self._end_early(progress.error, stop=self._dag.on_failure == CANCEL)
                if changed.done():
                    self._changed.clear()
                    changed = asyncio.ensure_future(self._changed.wait())
            return state or await self._finish(progress.error)
        finally:
            draining.cancel()
            changed.cancel()

    def give_up(self) -> None:
        """Stop what still runs of the run, and give it back; ``work`` then returns soon."""
        self._giving_up = True
        if self._over:
            self._stop(WORKER_ENDS)
        self._changed.set()

    def _on_change(self) -> None:
        if self._claim.lost:
            self._halt.set()
        self._changed.set()

    # --- calls -----------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin what can begin, and not much more at a time than can run."""
        self._waiting.extend(self._progress.begin())
        while self._waiting and len(self._at_work) < self._shared.executor.concurrency:
            made = self._waiting.popleft()
            self._at_work[asyncio.create_task(self._call(made))] = made

    def _take_results(self) -> None:
        """Note what has become of calls."""
        for task in [task for task in self._at_work if task.done()]:
            made, ended = self._at_work.pop(task), task.result()
            if ended is None:  # a shutdown or the run's end came before it began
                if self._over:
                    self._progress.failed(made, NOT_BEGUN)
                else:
                    self._waiting.append(made)
            elif ended.value is None:
                self._progress.failed(made, ended.error)
            else:
                self._progress.succeeded(made, decode_value(ended.value))
        if self._over:
            waiting, self._waiting = self._waiting, deque()
            for made in waiting:
                if made.node.task_id in self._last_words:
                    self._waiting.append(made)
                else:
                    self._progress.failed(made, NOT_BEGUN)

    async def _call(self, made: Call) -> Ended | None:
        """A call with its retries; None if it may not begin any more."""
        settings = made.node.settings
        tries = self._earlier.get((made.node.task_id, made.map_index), [])
        for task in tries:
            if task.state == "success":
                return Ended(await self._insist(partial(self._value_of, task)))
        failures = [task for task in tries if task.state == "failed"]
        number = 1 + max((int((task.run or {})["try_number"]) for task in tries), default=0)
        ended: Ended | None = Ended(None, failures[-1].code, failures[-1].error) if failures else None
        for retry in range(len(failures), settings.retries + 1):
            if retry and not await self._pause(settings.delay(retry)):
                return None
            if number > MAX_RETRIES + 1:
                return Ended(None, 1, f"it has been tried {MAX_RETRIES + 1} times, which is the limit")
            ended = await self._try(made, number)
            if ended is None or ended.value is not None or ended.stopped:
                break
            number += 1
        return ended

    async def _try(self, made: Call, number: int) -> Ended | None:
        last_word = self._last_words.get(made.node.task_id)
        async with self._shared.slots:
            if self._halted and last_word is None:
                return None
            one = Try(made, self._place(made.node, made.map_index, number), self._context(made, number))
            if last_word is not None and number == 1:
                one.task, one.recorded = last_word, True
            self._tries.add(one)
            try:
                done = await self._shared.executor.run(one)
            finally:
                self._tries.discard(one)
                if one.recorded:
                    self._held.pop(made.node.task_id).cancel()
                if one.left_behind:
                    self._stuck.add(one)
        if done.lost and not self._over:
            # Somebody has ended it beside us, or the run is lost, of which its claim will tell.
            return Ended(None, done.ended.code or 1, done.ended.error or done.lost, stopped=True)
        return done.ended

    async def _pause(self, seconds: float) -> bool:
        """Wait for a retry; False if there will be none."""
        waits = {asyncio.ensure_future(event.wait()) for event in (self._shared.draining, self._halt)}
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._halted

    @property
    def _halted(self) -> bool:
        return self._halt.is_set() or self._shared.draining.is_set()

    # --- the end ---------------------------------------------------------------------

    async def _end_early(self, error: str, *, stop: bool) -> str:
        """End the run while some of its tasks still run, so that those who wait for it know."""
        for node in self._progress.stop():
            record = Record(self._client, self._place(node, NOT_MAPPED, 1), new_id())
            with suppress(Lost):
                await record.create()
                self._last_words[node.task_id] = record.task
                self._held[node.task_id] = asyncio.create_task(record.hold())
        state = await self._finish(error)
        self._over = True
        self._halt.set()
        if stop:
            self._stop(CANCELLED if self._claim.cancelled else STOPPED)
        elif self._giving_up:
            self._stop(WORKER_ENDS)
        return state

    async def _finish(self, error: str) -> str:
        state, text = "failed" if error else "success", error[:MAX_ERROR_LENGTH]
        ended = await self._insist(lambda: self._client.finish(self._run.id, self._run.claim, state, text))
        return ended.state

    async def _stop_and_give_back(self) -> str:
        """Give the run back when nothing of it runs any more: whoever gets it begins at once."""
        if not await self._stop_all(GIVEN_BACK):
            self._shared.kept.add(self._keeping)
            return "left to its lease"
        await self._insist(lambda: self._client.release(self._run.id, self._run.claim))
        return "given back"

    def _stop(self, reason: str) -> None:
        for one in list(self._tries):
            one.stopper.stop(reason)

    async def _stop_all(self, reason: str) -> bool:
        """Stop what is left, and wait until it has stopped; False if something may still run."""
        left, stuck = set(self._at_work), set[asyncio.Task[Ended | None]]()
        if left:
            self._stop(reason)
            _, stuck = await asyncio.wait(left, timeout=STOP_LIMIT)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        return not stuck and not any(one.left_behind for one in self._stuck)

    # --- the server ------------------------------------------------------------------

    async def _remember(self) -> None:
        """Find out what earlier workers have done of the run."""
        for task in (await self._client.get(self._run.id)).tasks if self._run.attempt > 1 else ():
            place = task.run or {}
            self._earlier.setdefault((place["task_id"], place["map_index"]), []).append(task)

    async def _value_of(self, task: TaskInfo) -> bytes:
        seen = await self._client.tasks.get(task.id, first=task.last)
        return encode_value((seen.result or {}).get("data"))

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the server until it answers or the claim is lost."""
        return await insist(ask, None, is_away, deadline=time.monotonic() + self._claim.lease)

    def _place(self, node: Node, map_index: int, number: int) -> Place:
        name = node.settings.name or node.task_id
        return Place(self._run.id, self._run.claim, node.task_id, map_index, number, name, self._claim.lease)

    def _context(self, made: Call, number: int) -> Context:
        run = self._run
        return Context(self._dag.dag_id, made.node.task_id, run.id, run.run_id, run.conf, made.map_index, number)
