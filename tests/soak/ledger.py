"""What a soak counts, and what it prints of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Counts by what happened.

    Attributes:
        done: what went as it should, by kind.
        lost: what should never happen, by kind, with an example of each.
        samples: of the agent's process, in the order taken.
    """

    done: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def lose(self, kind: str, example: str) -> None:
        """Count what should never happen."""
        self.lost[kind] += 1
        self.examples.setdefault(kind, example)

    def line(self) -> str:
        """Sum up the state in one line."""
        pods = sum(number for kind, number in self.done.items() if kind.startswith("pod"))
        attacks = sum(number for kind, number in self.done.items() if not kind.startswith("pod"))
        last = f", agent {self.samples[-1]}" if self.samples else ""
        return f"{pods} pods, {attacks} attacks and faults, {sum(self.lost.values())} lost{last}"

    def rows(self) -> list[str]:
        """Write a line for each count, the losses last."""
        done = [f"{number:8}  {kind}" for kind, number in sorted(self.done.items())]
        lost = [f"{number:8}  LOST: {kind}; the first: {self.examples[kind]}" for kind, number in self.lost.items()]
        return [*done, *lost]


@dataclass(frozen=True)
class Sample:
    """The agent's process at one moment.

    Attributes:
        life: which start of the agent this is, from 0.
        age: seconds since that start.
        rss: resident memory, in bytes.
        descriptors: open file descriptors.
        log: the size of its log, in bytes, of all lives.
    """

    life: int
    age: float
    rss: int
    descriptors: int
    log: int

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.rss / 2**20:.1f} MiB, {self.descriptors} descriptors, log {self.log / 1024:.0f} KiB"
