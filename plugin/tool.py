"""Running a program in the current thread's netns, bounded in time and output: a pod decides what it reads there (F37, F45)."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from plugin import userns
from plugin.backend import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# iptables-legacy takes a lock, on the node's one file by default (F16): the netns, which is ours alone, will do.
ENVIRONMENT: Mapping[str, str] = {"XTABLES_LOCKFILE": "/proc/self/ns/net"}
SECONDS = 10.0
LARGEST = 16 << 20  # bytes of output: some 100,000 rules


class Ended(NamedTuple):
    """How a program ended.

    Attributes:
        status: its exit status, or negative signal number.
        output: what it wrote to stdout.
        stderr: what it wrote to stderr.
        is_late: whether it was killed because it took longer than `SECONDS`.
    """

    status: int
    output: str
    stderr: str
    is_late: bool = False

    @property
    def why(self) -> str:
        """Say why it failed: how it was ended, if it did not end by itself, and what it wrote about it."""
        said = " ".join(self.stderr.split())
        if self.status >= 0:
            return said or f"ended with status {self.status} and without output"
        return f"{self._ended_by()} ({said})" if said else self._ended_by()

    def _ended_by(self) -> str:
        if self.is_late:
            return f"it did not end within {SECONDS:.0f} s"
        if self.status == -signal.SIGXFSZ:
            return f"its output was larger than {LARGEST} bytes"
        return f"it was ended by {name_signal(-self.status)}"


class Tool:
    """A running program; the thread may run others at the same time."""

    def __init__(self, command: Sequence[str], text: str, owner: int | None = None) -> None:
        """Start it.

        Args:
            command: absolute path and arguments.
            text: its stdin.
            owner: the user namespace to run it in, where it may write no output; None: this process's.

        Raises:
            RefusedError: if it cannot be started.
        """
        self._text = text
        self._output, self._stderr = os.memfd_create("output"), os.memfd_create("stderr")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._stderr,
                text=True,
                cwd="/",
                env=ENVIRONMENT,
                preexec_fn=None if owner is None else partial(_enter, owner),  # noqa: PLW1509 - it only calls the kernel
            )
        except OSError as error:
            self._close()
            problem = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be run: {error.strerror}"
            raise RefusedError(f"{command[0]} {problem}; the agent's image has it") from error
        if owner is None:
            with suppress(ProcessLookupError):
                resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (LARGEST, LARGEST))

    def finish(self) -> Ended:
        """Wait for its end, and kill it if it takes longer than `SECONDS`."""
        try:
            is_late = False
            try:
                self._process.communicate(self._text, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                is_late = True
                self._process.kill()
            status = self._process.wait()
            return Ended(status, _content(self._output), _content(self._stderr), is_late)
        finally:
            self._close()

    def _close(self) -> None:
        os.close(self._output)
        os.close(self._stderr)


def name_signal(number: int) -> str:
    """Name a signal that has ended a program, with what to do about it."""
    try:
        name = f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
    if number != signal.SIGKILL:
        return name
    return f"{name}, as the kernel does for want of memory: if its log (dmesg) says so, raise the agent's memory limit"


def _content(file: int) -> str:
    return os.pread(file, LARGEST, 0).decode("utf-8", "replace")


def _enter(owner: int) -> None:
    """Enter the pod's user namespace in the child, before it runs the command; on failure exit with the reason on stderr."""
    try:
        userns.enter(owner)
    except OSError as error:
        os.write(2, f"{error.strerror}; owner matches are taken from there alone".encode())
        os._exit(1)
