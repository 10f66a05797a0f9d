"""How chunks lie in SQLite's rows."""

from __future__ import annotations

import zstandard

from taskserver.encoding import encode_lines, quoted
from taskserver.model import Chunk
from taskserver.stores.chunks import ZSTD, join_chunks
from taskserver.stores.sqlite.rows import chunk_from_row, chunk_key, sealed_row

TEXTS = ["plain", 'a "quoted", one', "", "\x1b[1mbold\x1b[0m", '",\n"', "é"]


def whole() -> Chunk:
    lines = encode_lines(TEXTS, 5)
    return Chunk(7, lines.count, lines.payload, lines.side)


def test_a_sealed_chunk_comes_back_bare() -> None:
    sealed = chunk_from_row(sealed_row(3, whole()))
    assert sealed.bare
    assert (sealed.first, sealed.count, quoted(sealed), sealed.side) == (7, 6, whole().payload, whole().side)


def test_a_chunk_that_was_sealed_before_there_were_bare_ones_can_be_read() -> None:
    pack = zstandard.ZstdCompressor().compress
    assert chunk_from_row((chunk_key(3, 7), 6, ZSTD, pack(whole().payload), pack(whole().side))) == whole()


def test_sealed_chunks_can_be_joined_with_others() -> None:
    """As they are when a sealing was broken off."""
    sealed = chunk_from_row(sealed_row(3, whole()))
    after = Chunk(sealed.end, 1, b'"x"', whole().side)
    assert join_chunks([sealed, after]) == Chunk(7, 7, whole().payload + b',\n"x"', whole().side)
