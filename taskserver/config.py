"""Every default and limit of the server, named, with its reason.

A number that appears anywhere else in the package without a name is a mistake.
Sizes are bytes, times are seconds, unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 1024
MIB = 1024 * KIB

DEFAULT_HOST = "127.0.0.1"  # nobody is exposed to a network without having said so
DEFAULT_PORT = 8080
DEFAULT_DATABASE = "sqlite:///tasks.db"
DEFAULT_WORKERS = 1  # a second process pays when one core cannot answer all
MAX_WORKERS = 64
DEFAULT_URL = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"

MAX_TASK_WAIT = 20  # CONTRACTS A1: Posit Connect's bound on `wait`
MAX_OUTPUT_WAIT = 55  # below the 60 s at which common proxies give up on an idle request
MAX_OUTPUT_LIMIT = 10_000  # lines in one page of `/output`
DEFAULT_OUTPUT_LIMIT = 1_000
MAX_SEARCH_LENGTH = 1_000  # characters to look for
MAX_SEARCH_LIMIT = 10_000  # line numbers in one answer of a search
DEFAULT_SEARCH_LIMIT = 1_000
MAX_LIST_LIMIT = 500
DEFAULT_LIST_LIMIT = 50

MAX_LEASE = 24 * 3600  # a producer that is silent for a day is lost
DEFAULT_RUN_LEASE = 30  # seconds a claimant may be silent
MAX_RETRIES = 100
MAX_DAG_TASKS = 1000
MAX_CLAIM_DAGS = 1000
MAX_MAP_INDEX = 10_000_000
MAX_NAME_LENGTH = 200
MAX_LABELS = 32
MAX_LABEL_LENGTH = 200
MAX_ERROR_LENGTH = 64 * KIB
MAX_CODE = 2**31 - 1  # an exit status; every client has 32 bits for it
MAX_LINE_NUMBER = 2**32 - 1  # a chunk's key keeps 32 bits for the line number

MAX_URL_LENGTH = 8 * KIB  # what nginx and most proxies accept
MAX_HEADER_LENGTH = 16 * KIB  # one field, Authorization included
PARSER_LINE_LIMIT = 64 * KIB  # the parser's own bound: above ours, so that we answer in the room's shape

LISTEN_BACKLOG = 4096  # aiohttp's 128 drops connections when thousands of clients come at once


@dataclass(frozen=True)
class Limits:
    """Bounds on what one request may bring or hold. Larger ones are refused, never cut."""

    line_bytes: int = 1 * MIB
    """One line as UTF-8. `taskserver run` splits longer ones itself."""
    body_bytes: int = 8 * MIB
    """A request body that is read at once. A chunked (live) body has no bound."""
    result_bytes: int = 1 * MIB
    """A task's result, a run's conf or metadata as JSON: it is kept in the row and in every answer."""
    waiters: int = 20_000
    """Requests that may wait at the same time in one process."""


@dataclass(frozen=True)
class Searching:
    """What one request may look through; the next one goes on there."""

    scan_bytes: int = 16 * MIB
    """As stored: 200,000 ordinary lines, some 50 ms."""
    seconds: float = 0.5
    """For output that is slow to read, such as very short lines that came one by one."""
    at_once: int = 2
    """Searches in one process; others wait their turn: each has a processor's core to itself for its time."""


@dataclass(frozen=True)
class Timing:
    """Clocks of the background work; tests make them short."""

    reread: float = 10.0
    """A wait looks again at this interval even if no wake-up came (DESIGN, invariant 5)."""
    heartbeat: float = 15.0
    """A quiet stream shows at this interval that it lives: proxies close what is silent for a minute."""
    reaper: float = 0.5
    """How often overdue leases are looked for: an upper bound on how late a loss is told."""
    sealer_pause: float = 5.0
    """Pause after a failed attempt to seal, for example on a full disk."""
    shutdown: float = 1.5
    """How long a shutdown waits for answers to be written before it closes connections."""


@dataclass(frozen=True)
class Memory:
    """What is kept of live tasks, so that a poll at the tail reads no database."""

    task_bytes: int = 256 * KIB
    """Newest output kept per task."""
    total_bytes: int = 64 * MIB
    """Newest output kept in all; the task that was quiet longest gives way first."""
    page_bytes: int = 256 * KIB
    """What one request reads from the store at a time, however large its answer is."""
    ahead_readers: int = 8
    """So many readers have their next page read ahead; the others wait for it: thousands of pages are too much."""

    @property
    def large_page_bytes(self) -> int:
        """What is read ahead, a few pages, so that a hop into a thread pays; and what one page of JSON holds at most:
        10,000 ordinary lines (MAX_OUTPUT_LIMIT)."""
        return 4 * self.page_bytes


@dataclass(frozen=True)
class Settings:
    """All of `serve`'s settings. The command line and the environment fill it."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    database: str = DEFAULT_DATABASE
    listen_database: str | None = None
    bootstrap_key_file: str | None = None
    synchronous: str = "full"
    access_log: bool = False
    workers: int = DEFAULT_WORKERS
    """Processes that answer requests. The first one commits for all."""
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)
    memory: Memory = field(default_factory=Memory)
    searching: Searching = field(default_factory=Searching)
