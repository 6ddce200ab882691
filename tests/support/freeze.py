"""Stops threads of a process that somebody else started, as a kernel call that never returns would: by ptrace(2)."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000  # of waitpid: also threads
_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


class Frozen:
    """Threads that are stopped."""

    def __init__(self, threads: list[int]) -> None:
        self.threads = threads

    def reap(self) -> None:
        """Take note of those that were killed: as long as nobody does, their process does not end."""
        for thread in [*self.threads]:
            with suppress(ChildProcessError):
                ended, status = os.waitpid(thread, os.WNOHANG | WALL)
                if ended and not os.WIFSTOPPED(status):
                    self.threads.remove(thread)


@contextmanager
def frozen(pid: int) -> Iterator[Frozen]:
    """Stop all threads of a process but its first, and those that block all signals, for the time of a block.

    Only the thread that enters may leave it. faulthandler's blocks them, and is what ends a process whose other threads hang.

    Raises:
        OSError: if the kernel does not let us.
    """
    stopped = Frozen([])
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            thread = int(task.name)
            if thread != pid and not _blocks_signals(task):
                _call(SEIZE, thread)
                stopped.threads.append(thread)
                _call(INTERRUPT, thread)
                os.waitpid(thread, WALL)
        yield stopped
    finally:
        for thread in stopped.threads:
            with suppress(ProcessLookupError):
                _call(DETACH, thread)


def _blocks_signals(task: Path) -> bool:
    (mask,) = [line.split()[1] for line in (task / "status").read_text().splitlines() if line.startswith("SigBlk:")]
    return bool(int(mask, 16))


def _call(request: int, thread: int) -> None:
    if _ptrace(request, thread, None, None) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
