"""A primary CNI that writes its conflist twice within milliseconds, as a process of its own (F33).

`python -m tests.support.primary PATH` reads lines `FIRST PAUSE SECOND NUMBER` and answers each with `written`. FIRST and
SECOND name a way to write, PAUSE is in seconds, NUMBER makes the two contents unlike all others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

REPOSITORY = Path(__file__).parents[2]


def content(number: int, turn: str) -> bytes:
    """What is written: never the same twice."""
    network = '{"cniVersion": "1.0.0", "name": "k8s", "written": "%s %d", "plugins": [{"type": "bridge"}]}\n'
    return (network % (turn, number)).encode()


def in_place(path: Path, data: bytes) -> None:
    """Truncate it and write."""
    path.write_bytes(data)


def in_place_slowly(path: Path, data: bytes) -> None:
    """Truncate it, and write it in two pieces."""
    with path.open("wb", buffering=0) as file:
        time.sleep(0.003)
        file.write(data[:50])
        time.sleep(0.003)
        file.write(data[50:])


def opened_before(path: Path, data: bytes) -> None:
    """Hold it open for a while, and then write over what is there."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    time.sleep(0.006)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
    os.close(descriptor)


def by_rename(path: Path, data: bytes) -> None:
    """Write it beside, and rename."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(data)
    beside.replace(path)


def deleted_and_made(path: Path, data: bytes) -> None:
    """Delete and recreate it."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


WAYS = {way.__name__: way for way in (in_place, by_rename, in_place_slowly, opened_before, deleted_and_made)}


class Primary:
    """The process, from the side of who starts it."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.primary", str(path)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def write_twice(self, first: str, pause: float, second: str, number: int) -> None:
        """Have it write twice, and wait until it has."""
        assert self._process.stdin
        assert self._process.stdout
        print(first, pause, second, number, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "written\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def main() -> None:
    """Serve one line after the other."""
    path = Path(sys.argv[1])
    for line in sys.stdin:
        first, pause, second, number = line.split()
        WAYS[first](path, content(int(number), "first"))
        time.sleep(float(pause))
        WAYS[second](path, content(int(number), "second"))
        print("written", flush=True)


if __name__ == "__main__":
    main()
