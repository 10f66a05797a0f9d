"""Addresses to listen on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from taskserver.config import LISTEN_BACKLOG, Settings
from taskserver.errors import StartupError


async def listen(settings: Settings) -> list[socket.socket]:
    """A listening socket for each address of the host, as ``asyncio``'s servers have them. Raises StartupError."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        try:
            found = await loop.getaddrinfo(
                settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            listeners = [
                opened.enter_context(_listener(family, address)) for family, _, _, _, address in dict.fromkeys(found)
            ]
        except OSError as error:
            raise cannot_listen(settings, error) from error
        opened.pop_all()
        return listeners


def _listener(family: int, address: Any) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(LISTEN_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def cannot_listen(settings: Settings, error: OSError) -> StartupError:
    """The error that an operator is told."""
    return StartupError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}")


def url_of(address: tuple[Any, ...], secure: bool) -> str:
    """The URL of a socket's address, with TLS or without."""
    host, port = address[:2]
    scheme = "https" if secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
