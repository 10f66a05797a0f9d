"""A connection whose bytes the test writes itself: for what no well-behaved client does."""

from __future__ import annotations

import http.client
import socket
from types import TracebackType

from tests.server import CALL_LIMIT, Answer, Server


class Raw:
    """One TCP connection to the server; use it as a context manager.

    ``receive_buffer`` makes the kernel keep no more than about so many bytes of
    what the server sends, so that a test that does not read is felt by the server.
    """

    def __init__(self, server: Server, receive_buffer: int | None = None) -> None:
        self._server = server
        self.socket = socket.socket()
        self.socket.settimeout(CALL_LIMIT)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", server.port))

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def send(self, data: bytes) -> Raw:
        """Send these bytes."""
        self.socket.sendall(data)
        return self

    def ask(self, method: str, path: str, *headers: str, key: str | None = None) -> Raw:
        """Send the head of a request, as an admin unless ``key`` says otherwise."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Key {key or self._server.key}",
            *headers,
        ]
        return self.send("\r\n".join([*lines, "", ""]).encode())

    def send_chunk(self, data: bytes) -> Raw:
        """Send one piece of a chunked body; an empty one ends the body."""
        return self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def head(self) -> http.client.HTTPResponse:
        """Wait for the head of the answer; its body can be read from what is returned."""
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        return response

    def answer(self) -> Answer:
        """Wait for the whole answer; nothing more can be read from this connection afterwards."""
        response = self.head()
        return Answer(response.status, response.headers, response.read())

    def rest(self) -> bytes:
        """All that the server sends until it closes the connection."""
        data = b""
        while part := self.socket.recv(65536):
            data += part
        return data

    def leave(self) -> None:
        """Close the connection. A repeat does nothing."""
        self.socket.close()
