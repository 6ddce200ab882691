"""Requests without a pause, and a connection that is held, beside what a test does."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from tests.support.machine import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SLOWEST = 60.0  # seconds that the last request may take
# Connects, says so, and sends a request whose head ends when it is told to: until then a byte each second.
_HELD = """
import select, socket, sys
with socket.create_connection((sys.argv[1], 80), 10) as held:
    held.settimeout(90)
    held.sendall(b"GET / HTTP/1.1\\r\\nHost: held\\r\\nLong: ")
    print("open", flush=True)
    while not select.select([sys.stdin], [], [], 1)[0]:
        held.sendall(b".")
    held.sendall(b"\\r\\n\\r\\n")
    got = b""
    while part := held.recv(4096):
        got += part
print(got.decode().splitlines()[-1])
"""


@contextmanager
def traffic(asking: Sequence[str], answer: str) -> Iterator[None]:
    """Ask again and again within the block, twenty times a second, and see that each request has got this answer.

    Args:
        asking: a command that runs `get --repeat` (programs/get.c), with stdin.
        answer: what each answer is to be.
    """
    with (
        TemporaryFile() as said,
        subprocess.Popen(
            asking, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT
        ) as running,
    ):
        try:
            yield
            running.communicate(timeout=_SLOWEST)  # the end of its stdin ends it
        except BaseException:
            running.kill()
            raise
        said.seek(0)
        answers = Counter(said.read().decode().splitlines())
    assert ({*answers}, running.returncode) == ({answer}, 0), answers


@contextmanager
def held(enter: Sequence[str], address: str) -> Iterator[Callable[[], str]]:
    """Hold a connection, and use it all the while.

    Args:
        enter: what to put before a command so that it runs where the connection begins.
        address: where an application listens on port 80.

    Yields:
        What ends the request and returns the answer.
    """
    command = [*enter, sys.executable, "-I", "-c", _HELD, address]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            assert running.stdout
            assert running.stdout.readline() == "open\n"

            def ask() -> str:
                return running.communicate("ask\n", timeout=3 * _SLOWEST)[0].strip()

            yield ask
        finally:
            running.kill()
