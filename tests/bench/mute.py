"""`python tests/bench/mute.py …` is `taskserver …` whose nodes do not tell each other of changes."""

from __future__ import annotations

from collections.abc import Iterable

from taskserver.cli import main
from taskserver.stores.postgres.wakeup import PostgresWakeup


def _publish_here(self: PostgresWakeup, topics: Iterable[str]) -> None:
    self._local.publish(topics)


if __name__ == "__main__":
    PostgresWakeup.publish = _publish_here  # type: ignore[method-assign]
    main()
