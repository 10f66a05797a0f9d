"""What all stores do with chunks: how large they are, how they are split, joined and compressed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from taskserver.encoding import SEPARATOR, count_lines, cut_side, merge_lines
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
    payload, side = chunk.payload, chunk.side
    first, start = chunk.first, 0
    while len(payload) - start >= 2 * CHUNK_BYTES:
        end = payload.find(SEPARATOR, start + CHUNK_BYTES)
        if end < 0:
            break
        part = payload[start:end]
        count = count_lines(part)
        part_side = cut_side(side, first - chunk.first, count)
        yield Chunk(first, count, part, part_side)
        first += count
        start = end + len(SEPARATOR)
    if start == 0:
        yield chunk
    else:
        yield Chunk(first, chunk.end - first, payload[start:], cut_side(side, first - chunk.first, chunk.end - first))


def join_chunks(chunks: Sequence[Chunk]) -> Chunk:
    """Consecutive chunks as one."""
    lines = merge_lines([Lines(chunk.count, chunk.payload, chunk.side) for chunk in chunks])
    return Chunk(chunks[0].first, lines.count, lines.payload, lines.side)
