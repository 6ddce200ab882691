"""Timing whole processes: from the start of the executable to its end, as the container runtime waits for it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

PAUSE = 0.03  # seconds between two calls: the kernel is still busy with the last one's netns for a while

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Call:
    """An executable with its variables and a file for its stdin."""

    executable: Path
    environment: Mapping[str, str]
    stdin: Path

    def start(self) -> int:
        """Start it and return its process id; what it writes is thrown away."""
        opened = (os.POSIX_SPAWN_OPEN, 0, os.fspath(self.stdin), os.O_RDONLY, 0)
        thrown = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_WRONLY, 0) for fd in (1, 2)]
        command = [os.fspath(self.executable)]
        return os.posix_spawn(command[0], command, dict(self.environment), file_actions=[opened, *thrown])

    def __call__(self) -> float:
        """Run it once: milliseconds.

        Raises:
            RuntimeError: if it fails, as then there is nothing to time.
        """
        started = time.perf_counter()
        _succeed(self.start())
        return (time.perf_counter() - started) * 1000


def in_turns(rounds: Sequence[Sequence[Call]]) -> list[list[float]]:
    """Run the calls of each round in turn, so that a machine that slows down slows all alike.

    Each round begins one place further on, as what a call leaves in the processor's caches favours or hinders the next.

    Returns:
        Milliseconds, a list for each place in a round.
    """
    measured = []
    for number, calls in enumerate(rounds):
        times = [0.0] * len(calls)
        for turn in range(len(calls)):
            place = (number + turn) % len(calls)
            time.sleep(PAUSE)
            times[place] = calls[place]()
        measured.append(times)
    return [list(times) for times in zip(*measured, strict=True)]


def at_once(calls: Sequence[Call]) -> float:
    """Start all, wait for all: milliseconds from the first start to the last end."""
    started = time.perf_counter()
    for process in [call.start() for call in calls]:
        _succeed(process)
    return (time.perf_counter() - started) * 1000


def percentile(times: Sequence[float], percent: float) -> float:
    """The smallest time that so many percent do not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _succeed(process: int) -> None:
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError(f"a call ended with status {os.waitstatus_to_exitcode(status)}")
