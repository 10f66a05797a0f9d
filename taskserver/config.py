"""Every default and limit of the server, named, with its reason.

A number that appears anywhere else in the package without a name is a mistake.
Sizes are bytes, times are seconds, unless the name says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network

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
MAX_KEEP_FINISHED = 100 * 366 * 24 * 3600
MAX_LINE_NUMBER = 2**32 - 1  # a chunk's key keeps 32 bits for the line number

MAX_URL_LENGTH = 8 * KIB  # what nginx and most proxies accept
MAX_HEADER_LENGTH = 16 * KIB  # one field, Authorization included
PARSER_LINE_LIMIT = 64 * KIB  # the parser's own bound: above ours, so that we answer in the room's shape

DEFAULT_WAITERS = 20_000  # some 10 KiB each
DEFAULT_FAILED_SIGN_INS = 30  # a minute: no person reaches it, and a script that goes on with a wrong key does
MAX_OUTPUT_RESERVE = 1000  # lines: what a person reads of an end

# Of a body that comes faster than it is stored. What has come goes into one commit: a live body that is sent as fast as
# it is taken costs half of the CPU per line that it does with aiohttp's 128 KiB.
BODY_BUFFER = 512 * KIB

# Of an unfinished line that is told. A bar with a colour for each cell has some 2 KiB; two of them have to fit into one
# of PostgreSQL's notifications, which take 8000 bytes.
PARTIAL_BYTES = 3 * KIB
PARTIAL_PAUSE = 0.25  # seconds between two looks at it that are told: a bar that moves, at the cost of a slow producer

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
    waiters: int = DEFAULT_WAITERS
    """Requests that may wait at the same time."""
    waiters_per_key: int | None = None
    """The same with one key; None for no bound of its own: behind a dashboard thousands may share a key."""
    rate: float | None = None
    """Requests per second; None for no bound. Off by default: `posit-sdk` and Airflow's client give up at a 429."""
    rate_per_key: float | None = None
    """The same with one key."""
    failed_sign_ins: int | None = DEFAULT_FAILED_SIGN_INS
    """Wrong keys per minute that an address may show before it is told to come back later; None for no bound."""
    output_lines: int = MAX_LINE_NUMBER
    """Lines of one task's output, `output_reserve` included."""

    @property
    def output_reserve(self) -> int:
        """So many of the `output_lines` are for the lines that come last: a mark of what was left out, and an end."""
        return min(MAX_OUTPUT_RESERVE, math.ceil(self.output_lines / 4))

    def share(self, processes: int) -> Limits:
        """The bounds of one of several processes that answer in turn, so that together they keep these.

        Rounded up: nobody has none.
        """
        if processes == 1:
            return self

        def whole(bound: int | None) -> int | None:
            return None if bound is None else math.ceil(bound / processes)

        return replace(
            self,
            waiters=math.ceil(self.waiters / processes),
            waiters_per_key=whole(self.waiters_per_key),
            rate=None if self.rate is None else self.rate / processes,
            rate_per_key=None if self.rate_per_key is None else self.rate_per_key / processes,
            failed_sign_ins=whole(self.failed_sign_ins),
        )


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
    retention: float = 10.0
    """How often what has ended long enough is looked for, and what deleted tasks left."""
    deaf: float = 3.0
    """A look for overdue leases that comes so long after the one before: meanwhile heartbeats could not come either."""
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
    keep_finished: int | None = None
    """Seconds after which finished tasks and runs are removed; None: never."""
    log_format: str = "text"
    """`text`, or `json`: one object a line."""
    metrics: str = "key"
    """Who may read `/metrics`: `key`, whoever has one that may read, or `open`, everybody."""
    workers: int = DEFAULT_WORKERS
    """Processes that answer requests. The first one commits for all."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Whose word counts about where a request comes from (see ``web.addresses``)."""
    tls_cert: str | None = None
    """A PEM file with the certificate and those between it and its authority; None: no TLS."""
    tls_key: str | None = None
    """A PEM file with the private key; None: it is in the other file."""
    cors_origins: tuple[str, ...] = ()
    """Whose pages' scripts may read the answers (see ``web.cors``); ``*`` means everybody's."""
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)
    memory: Memory = field(default_factory=Memory)
    searching: Searching = field(default_factory=Searching)
