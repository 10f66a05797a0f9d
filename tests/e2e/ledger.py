"""What was sent and what was acknowledged, and what a server's output is worth against it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """One task, in its producer's words.

    ``sent`` holds every line that was ever sent, in order; no text stands in it
    twice. ``acknowledged`` of them the server has confirmed, or shown to a
    reader; the rest may stand or not. ``outcome`` is what the task was ended
    with, once that has been acknowledged.
    """

    id: str
    sent: list[str] = field(default_factory=list)
    acknowledged: int = 0
    outcome: dict[str, Any] | None = None
    checks: int = 0


@dataclass
class Faults:
    """Lines that are not as they must be, counted; ``first`` describes the first of them."""

    lost: int = 0
    repeated: int = 0
    out_of_order: int = 0
    foreign: int = 0
    first: str = ""

    def __bool__(self) -> bool:
        return bool(self.first)

    def add(self, other: Faults) -> None:
        """Count another one's faults too."""
        self.lost += other.lost
        self.repeated += other.repeated
        self.out_of_order += other.out_of_order
        self.foreign += other.foreign
        self.first = self.first or other.first


def compare(record: Record, output: Sequence[str], acknowledged: int) -> Faults:
    """The faults of an output of which ``acknowledged`` lines must stand, and none that was not sent may."""
    if len(output) >= acknowledged and list(output) == record.sent[: len(output)]:
        return Faults()
    numbers = {text: number for number, text in enumerate(record.sent)}
    known = [numbers[text] for text in output if text in numbers]
    differs = (number for number, text in enumerate(output) if record.sent[number : number + 1] != [text])
    position = next(differs, len(output))
    return Faults(
        lost=len(set(range(acknowledged)) - set(known)),
        repeated=len(known) - len(set(known)),
        out_of_order=sum(after < before for before, after in itertools.pairwise(known)),
        foreign=len(output) - len(known),
        first=f"task {record.id}: {len(output)} lines stand, {acknowledged} were acknowledged, "
        f"and line {position} is {list(output[position : position + 1])}",
    )
