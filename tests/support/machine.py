"""A machine of its own: network, mounts, processes, /run and /var/lib are private, the rest of the file system is shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from tests.support import golang
from tests.support.images import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

NSENTER = "/usr/bin/nsenter"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | golang.COMMAND
SLOWEST = 180.0  # seconds that a command may take

_HOLDER = Path(__file__).with_name("holder.py")


class Machine:
    """The namespaces and a cgroup for all that runs in them; however the test ends, the holder takes them away."""

    def __init__(self, cgroup: str) -> None:
        """Prepare.

        Args:
            cgroup: a name that nobody else uses, of one component.
        """
        self.cgroup = cgroup
        self.pid = 0  # of its first process
        self._holder: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def netns(self) -> Path:
        """Its network namespace."""
        return Path(f"/proc/{self.pid}/ns/net")

    def seen(self, path: str) -> Path:
        """Translate an absolute path on the machine to one that works here."""
        if path.startswith("/var/run/"):  # an absolute link, which would lead from the machine's files to the host's
            path = path.removeprefix("/var")
        return Path(f"/proc/{self.pid}/root{path}")

    def start(self, command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a process in all of the machine's namespaces; it ends with the machine, if not before."""
        process = subprocess.Popen(
            self._entering(command),
            env=ENVIRONMENT | golang.SERVER,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the test, which then ends all in order
        )
        self._started.append(process)
        return process

    def run_to_end(self, command: Sequence[str], log: Path, within: float) -> int:
        """Run a command that takes long, and return its exit status; its output is added to a file.

        Raises:
            subprocess.TimeoutExpired: if it takes longer than that many seconds.
        """
        with log.open("ab") as output:
            return self.start(command, output).wait(within)

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in all of the machine's namespaces.

        Raises:
            AssertionError: with its stderr, if it fails.
        """
        return _run(self._entering(command))

    def _entering(self, command: Sequence[str]) -> list[str]:
        return [NSENTER, f"--target={self.pid}", "--net", "--mount", "--pid", "--", *command]

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_HOLDER), self.cgroup, str(compiled("pause"))],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert self._holder.stdout
            line = self._holder.stdout.readline()
            assert line, f"the holder ended with status {self._holder.wait()}; its reason is on stderr"
            self.pid = int(line)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        assert self._holder
        self._holder.communicate()  # closes its stdin: that is its sign
        for process in self._started:
            process.wait()  # the kernel has ended it; what is left is the `nsenter` around it
        assert self._holder.returncode == 0, f"the holder ended with status {self._holder.returncode}"


def run_in(
    netns: Path, command: Sequence[str], *, stdin: str = "", check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of the host's in a network namespace.

    Args:
        netns: a path that leads to it.
        command: argv, with an absolute path.
        stdin: what the command reads.
        check: whether a failure is an error.

    Raises:
        AssertionError: with its stderr, if the command fails and `check` is set.
    """
    return _run([NSENTER, f"--net={netns}", "--", *command], stdin=stdin, check=check)


def checked(ended: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Pass on what succeeded.

    Raises:
        AssertionError: with its stderr, if it did not.
    """
    assert ended.returncode == 0, f"{ended.args}: status {ended.returncode}: {ended.stderr}"
    return ended


def _run(command: Sequence[str], *, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        command, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, timeout=SLOWEST, check=False
    )
    return checked(ended) if check else ended
