"""Ports that nobody else is given while a server of ours is down."""

from __future__ import annotations

import socket


def held_port(port: int = 0) -> socket.socket:
    """A socket that is bound to a port of 127.0.0.1, a free one if none is named; to be closed when it is not needed.

    Linux lets another socket listen where this one is bound, since both say
    SO_REUSEADDR, and gives the port to nobody who asks for any free one.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", port))
    return holder
