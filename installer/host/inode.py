"""A file held open: what it holds, and whether another program writes to it, whatever its name comes to mean (F33).

A look at a file cannot tell whether somebody is about to write to it. A read lease can (fcntl(2), F_SETLEASE): the kernel
refuses it as long as anybody has the file open for writing, and while it is held, whoever opens the file to write waits and
breaks it, which its holder sees. A lease costs microseconds and ends with its holder. Some file systems have none, and only
root's files can be leased without CAP_LEASE: there, what the file holds is all that there is to go by.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from installer.host.files import Access, UnreadableError, open_small, read_small

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from installer.host.files import Directory

_F_SETSIG = 10  # fcntl(2); Python has no name for it
_BOUND_TO_CONTENT = ("security.ima", "security.evm")  # hashes: wrong for any other content


class Inode:
    """A small regular file, open for reading, with its content as it was then."""

    def __init__(self, folder: Directory, name: str, *, follow: bool = False) -> None:
        """Open and read it.

        Args:
            folder: where.
            name: of the file.
            follow: it may be a symbolic link to the file.

        Raises:
            UnreadableError: if it is no small regular file.
            OSError: if it cannot be opened or read.
        """
        self._folder = folder
        self._fd = folder.open(name) if follow else open_small(name, folder.fd)
        self._leased = False
        try:
            self.content = read_small(self._fd)
            self.access = self._access()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it, and let those write to it who wait for that."""
        os.close(self._fd)

    def is_at(self, name: str) -> bool:
        """Tell whether a name in the directory means this file."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(name, dir_fd=self._folder.fd, follow_symlinks=False))
        except OSError:
            return False

    def is_being_written(self) -> bool:
        """Tell whether another program has it open for writing, or waits until it may; hold off those who come."""
        if self._leased:
            return fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK
        try:
            fcntl.fcntl(self._fd, _F_SETSIG, signal.SIGURG)  # ignored by default; SIGIO would end the process
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return error.errno == errno.EAGAIN
        self._leased = True
        return False

    def is_unchanged(self) -> bool:
        """Tell whether content, owner and permissions are as they were when it was opened."""
        try:
            return self._access() == self.access and read_small(self._fd) == self.content
        except UnreadableError:  # it has grown too large
            return False

    def release(self) -> None:
        """Let those write to it who wait for that."""
        if self._leased:
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            self._leased = False

    def attributes(self) -> Mapping[str, bytes]:
        """Return its extended attributes, ACLs among them; none where there are none."""
        found: dict[str, bytes] = {}
        with suppress(OSError):
            for name in os.listxattr(self._fd):
                if name not in _BOUND_TO_CONTENT:
                    with suppress(OSError):  # one that we may not read, or that has gone
                        found[name] = os.getxattr(self._fd, name)
        return found

    def modified(self) -> int:
        """Return when it was written to last, in nanoseconds since 1970."""
        return os.fstat(self._fd).st_mtime_ns

    def renamed(self) -> float:
        """Return when its name was changed last, on the clock of time.time()."""
        return os.fstat(self._fd).st_ctime

    def _access(self) -> Access:
        return Access.of(os.fstat(self._fd))
