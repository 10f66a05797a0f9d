"""What all stores do with chunks: how large they are, how they are split, joined and compressed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from taskserver.encoding import SEPARATOR, cut, merge_lines
from taskserver.model import Chunk, Lines

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK_BYTES = 64 * 1024  # aimed at: large enough to compress well, small enough to cut a page from
PLAIN, ZSTD = 0, 1  # codecs; the numbers are stored
ZSTD_LEVEL = 6  # on build logs a tenth smaller than 3 at 250 MB/s; higher levels gain little


def pack(chunk: Chunk) -> Chunk:
    """A chunk with payload and side as the codec ZSTD has them."""
    payload, side = zstd.compress(chunk.payload, ZSTD_LEVEL), zstd.compress(chunk.side, ZSTD_LEVEL)
    return Chunk(chunk.first, chunk.count, payload, side)


def unpack(codec: int, chunk: Chunk) -> Chunk:
    """A chunk as it was before it was stored with ``codec``."""
    if codec == PLAIN:
        return chunk
    return Chunk(chunk.first, chunk.count, zstd.decompress(chunk.payload), zstd.decompress(chunk.side))


def split_chunk(chunk: Chunk) -> Iterator[Chunk]:
    """Parts of about CHUNK_BYTES each; a line is never split."""
    if len(chunk.payload) < 2 * CHUNK_BYTES or chunk.count == 1:
        yield chunk
        return
    first = chunk.first
    pending, size = [], 0
    for fragment in chunk.payload.split(SEPARATOR):
        pending.append(fragment)
        size += len(fragment) + len(SEPARATOR)
        if size >= CHUNK_BYTES:
            yield _part(chunk, first, pending)
            first += len(pending)
            pending, size = [], 0
    if pending:
        yield _part(chunk, first, pending)


def _part(chunk: Chunk, first: int, fragments: list[bytes]) -> Chunk:
    side = cut(Chunk(chunk.first, chunk.count, b"", chunk.side), first, first + len(fragments)).side
    return Chunk(first, len(fragments), SEPARATOR.join(fragments), side)


def join_chunks(chunks: Sequence[Chunk]) -> Chunk:
    """Consecutive chunks as one."""
    lines = merge_lines([Lines(chunk.count, chunk.payload, chunk.side) for chunk in chunks])
    return Chunk(chunks[0].first, lines.count, lines.payload, lines.side)
