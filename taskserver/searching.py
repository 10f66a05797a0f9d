"""Searching output: which lines hold a text. Pure functions over chunks; ``Tasks.search`` brings the chunks.

The unit is the line: one with three matches counts once. Escape codes are not
text, so a match may span a change of colour. What a carriage return overwrote
on a terminal is text all the same: it was printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taskserver.encoding import raw_text
from taskserver.escapes import strip_escapes
from taskserver.model import Chunk, Task


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found in lines ``[first, end)`` of a task, as it stood then.

    ``lines`` are the numbers of the lines that match, in order, and ``count``
    how many match: ``lines`` is empty where only that was asked.
    """

    task: Task
    first: int
    end: int
    count: int
    lines: Sequence[int]

    @property
    def complete(self) -> bool:
        """The task has ended and was searched to its last line."""
        return self.task.finished and self.end == self.task.last


class Needle:
    """A text to look for; unless ``case`` counts, letters match their upper and lower forms."""

    def __init__(self, text: str, *, case: bool = False) -> None:
        self._case = case
        self._text = text if case else text.casefold()

    def lines(self, chunks: Sequence[Chunk]) -> list[int]:
        """The numbers of the lines that hold it.

        A chunk is looked at as a whole and split into lines only if it has a
        match: a million lines without one take a tenth of a second.
        """
        found: list[int] = []
        for chunk in chunks:
            text = strip_escapes(raw_text(chunk).decode())
            if not self._case:
                text = text.casefold()
            if self._text in text:
                found += [n for n, line in enumerate(text.split("\n"), chunk.first) if self._text in line]
        return found
