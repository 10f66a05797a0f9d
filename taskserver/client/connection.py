"""Connection: one server and one key; sends requests and reads answers."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from yarl import URL

from taskserver import __version__
from taskserver.client.answers import ApiError, Unreachable, to_error

CONNECT_TIMEOUT = 10.0
ANSWER_TIMEOUT = (
    30.0  # of silence, beyond what the server was asked to wait; commits are much faster, large answers go on
)

JSON = "application/json"
NDJSON = "application/x-ndjson"

T = TypeVar("T")
C = TypeVar("C", bound="Connected")


class Connection:
    """What clients of one server and one API key share; see ``TaskClient``."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        parsed = URL(self.url)
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query_string or parsed.fragment:
            raise ValueError(f"{url!r} is not a server's URL, such as http://127.0.0.1:8080")
        if not key or not all("!" <= character <= "~" for character in key):
            raise ValueError("an API key consists of visible ASCII characters without spaces")
        self.key = key
        self._headers = {"Authorization": f"Key {key}", "User-Agent": f"taskserver/{__version__}", "Accept": JSON}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections. A repeat does nothing."""
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        read: Callable[[Any], T],
        method: str,
        path: str,
        body: object = None,
        *,
        wait: float = 0,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """One request and its answer, read by ``read``. A body of bytes is NDJSON, any other is sent as JSON.

        Raises ApiError and Unreachable.
        """
        if self._session is None:
            # Each open wait needs a connection of its own, so their number has no bound here.
            self._session = aiohttp.ClientSession(headers=self._headers, connector=aiohttp.TCPConnector(limit=0))
        data, content_type = body, NDJSON
        if body is not None and not isinstance(body, bytes):
            data, content_type = orjson.dumps(body), JSON
        sent = {**(headers or {})}
        if data is not None:
            sent["Content-Type"] = content_type
        try:
            async with self._session.request(
                method,
                URL(self.url + path, encoded=True),
                data=data,
                headers=sent,
                timeout=aiohttp.ClientTimeout(connect=CONNECT_TIMEOUT, sock_read=wait + ANSWER_TIMEOUT),
                allow_redirects=False,
            ) as response:
                answer = await response.read()
        except asyncio.TimeoutError as error:
            raise Unreachable(f"{self.url} does not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"cannot reach {self.url}: {_reason(error)}") from error
        if not 200 <= response.status < 300:
            raise to_error(response, answer)
        try:
            return read(orjson.loads(answer) if answer else None)
        except (ValueError, KeyError, TypeError) as error:
            raise ApiError(response.status, 0, f"{self.url} does not answer like a taskserver") from error


class Connected:
    """Base of the clients: opened by the first request, closed with ``async with`` or ``close``."""

    def __init__(self, url: str, key: str, *, connection: Connection | None = None) -> None:
        self.connection = connection or Connection(url, key)
        self._ask = self.connection.ask

    @property
    def url(self) -> str:
        """The server, without a slash at its end."""
        return self.connection.url

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. A repeat does nothing."""
        await self.connection.close()


def _reason(error: Exception) -> str:
    """What went wrong, in few words."""
    cause = getattr(error, "os_error", getattr(error, "certificate_error", error))
    if isinstance(cause, ssl.SSLError):  # its numbers are OpenSSL's
        return getattr(cause, "verify_message", "") or cause.reason or str(cause)
    number = getattr(cause, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else str(cause) or type(cause).__name__


# --- URLs ------------------------------------------------------------------------


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")


def query(pairs: Iterable[tuple[str, Any]]) -> str:
    """A query of what is not None, with its question mark; empty if there is nothing."""
    given = [(key, value) for key, value in pairs if value is not None]
    return "?" + urlencode(given) if given else ""
