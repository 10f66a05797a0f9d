"""LineStream: a response that is lines, and that somebody else than its handler can end."""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.http import StreamWriter


class LineStream(web.StreamResponse):
    """NDJSON without a ``Content-Type``.

    Airflow's own client breaks on each type that it could have: it refuses those
    that it does not know, and parses several lines of ``application/json`` as
    one value.
    """

    ended = False
    """Whether ``end_with`` has been called."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.CONTENT_TYPE, None)  # aiohttp puts one where there is none

    def end_with(self, line: bytes, chunks: bytes) -> None:
        """Send the last line and the end of the body now, to a prepared response.

        For many at once: nothing is awaited, the handlers go on later and find
        nothing left to write. ``chunks`` is ``last_chunks(line)``, made once for all.
        """
        self.ended = True
        writer = self._payload_writer
        assert isinstance(writer, StreamWriter)
        transport = writer.transport
        if transport is None or transport.is_closing():  # uvloop raises on a closed one
            return
        transport.write(chunks if writer.chunked else line)
        # In one piece, since a second write is a second system call: the writer has no end to add to it.
        writer.chunked = False
        writer.set_eof()


def last_chunks(data: bytes) -> bytes:
    """Data as the last chunk of a chunked body, and the body's end (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
