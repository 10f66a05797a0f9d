"""What all stores do with chunks: how large they are, how they are split, joined and compressed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from zstandard import ZstdCompressor, ZstdDecompressor

from taskserver.encoding import SEPARATOR, bare, count_lines, cut_side, merge_lines, quoted
from taskserver.model import Chunk, Lines

CHUNK_BYTES = 64 * 1024  # aimed at: large enough to compress well, small enough to cut a page from
# Codecs; the numbers are stored. The second is read only: until 2026-11-21 sealed chunks were not bare.
PLAIN, ZSTD, ZSTD_BARE = 0, 1, 2
ZSTD_LEVEL = 6  # on build logs a tenth smaller than 3 at 250 MB/s; higher levels gain little


class _Zstd(threading.local):
    """Contexts are expensive to make, and each may be used by one thread at a time."""

    def __init__(self) -> None:
        self.compressor = ZstdCompressor(ZSTD_LEVEL)
        self.decompressor = ZstdDecompressor()


_zstd = _Zstd()


def pack(chunk: Chunk) -> tuple[int, bytes, bytes]:
    """Codec, payload and side of a chunk that is sealed: bare and compressed."""
    compress = _zstd.compressor.compress
    return ZSTD_BARE, compress(bare(chunk.payload)), compress(chunk.side)


def unpack(first: int, count: int, codec: int, payload: bytes, side: bytes) -> Chunk:
    """A stored chunk. Decompressing takes 30 to 100 µs and lets go of the interpreter."""
    if codec != PLAIN:
        decompress = _zstd.decompressor.decompress
        payload, side = decompress(payload), decompress(side)
    return Chunk(first, count, payload, side, codec == ZSTD_BARE)


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
    """Consecutive chunks as one, quoted."""
    lines = merge_lines([Lines(chunk.count, quoted(chunk), chunk.side) for chunk in chunks])
    return Chunk(chunks[0].first, lines.count, lines.payload, lines.side)
