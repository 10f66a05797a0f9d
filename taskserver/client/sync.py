"""SyncClient: what callers of dags need, for code that is not asynchronous.

with SyncClient("http://127.0.0.1:8080", key) as client:
    run = client.trigger("my_dag", {"n": 21})
    for line in client.tail(run.id):
        print(line.text)
    print(client.result(run.id))
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

from taskserver.client.answers import RunInfo, TailLine
from taskserver.client.runs import RunClient

T = TypeVar("T")


class SyncClient:
    """``RunClient`` for code that is not asynchronous; each call blocks. For one thread at a time.

    Methods mean what those of ``RunClient`` do, with the same arguments and errors.
    """

    def __init__(self, url: str, key: str) -> None:
        self._client = RunClient(url, key)
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A repeat does nothing."""
        if not self._loop.is_closed():
            self._do(self._client.close())
            self._loop.close()

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, **wish: Any) -> RunInfo:
        """Queue a run."""
        return self._do(self._client.trigger(dag_id, conf, **wish))

    def call(self, dag_id: str, conf: Mapping[str, Any] | None = None, **wish: Any) -> RunInfo:
        """Trigger a run and wait for its end."""
        return self._do(self._client.call(dag_id, conf, **wish))

    def wait(self, run: str, **wish: Any) -> RunInfo:
        """The run with its results once it has ended."""
        return self._do(self._client.wait(run, **wish))

    def result(self, run: str, task_id: str | None = None, **wish: Any) -> Any:
        """The value of a result task."""
        return self._do(self._client.result(run, task_id, **wish))

    def tail(self, run: str, **wish: Any) -> Iterator[TailLine]:
        """What the run's tasks print."""
        lines = self._client.tail(run, **wish)
        try:
            while True:
                try:
                    yield self._do(anext(lines))  # type: ignore[arg-type]
                except StopAsyncIteration:
                    return
        finally:
            self._do(lines.aclose())  # type: ignore[attr-defined]

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)
