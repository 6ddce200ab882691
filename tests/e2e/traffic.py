"""Requests without a pause, beside what a test does."""

from __future__ import annotations

import subprocess
from collections import Counter
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from tests.support.machine import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SLOWEST = 60.0  # seconds that the last request may take


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
