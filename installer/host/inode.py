"""An open file: its content, and whether another program writes to it, even if its name later means another (F33).

Reading a file does not reveal whether somebody is about to write to it. A read lease does (fcntl(2), F_SETLEASE): the kernel
refuses it while anybody has the file open for writing, and while it is held, a process that opens the file to write waits and
breaks it, which its holder can see. A lease costs microseconds and ends with its holder. Some file systems have none, and only
root's files can be leased without CAP_LEASE: there, only the content can be compared.
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

    from installer.host.directory import Directory

_F_SETSIG = 10  # fcntl(2); Python has no name for it
_BOUND_TO_CONTENT = ("security.ima", "security.evm")  # hashes: wrong for any other content


class Inode:
    """A small regular file, open for reading, with its content at that time."""

    def __init__(self, folder: Directory, name: str, *, follow: bool = False) -> None:
        """Open and read it.

        With `follow`, `name` may be a symbolic link to the file.

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

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it, and admit waiting writers."""
        os.close(self._fd)

    def is_at(self, name: str) -> bool:
        """Whether a name in the directory means this file."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(name, dir_fd=self._folder.fd, follow_symlinks=False))
        except OSError:
            return False

    def is_being_written(self) -> bool:
        """Whether another program has it open for writing or waits to; hold off later writers."""
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
        """Whether content, owner and permissions are unchanged since it was opened."""
        try:
            return self._access() == self.access and read_small(self._fd) == self.content
        except UnreadableError:  # it has grown too large
            return False

    def release(self) -> None:
        """Admit waiting writers."""
        if self._leased:
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            self._leased = False

    def attributes(self) -> Mapping[str, bytes]:
        """Return its extended attributes, ACLs among them; none where there are none."""
        found: dict[str, bytes] = {}
        with suppress(OSError):
            for name in os.listxattr(self._fd):
                if name not in _BOUND_TO_CONTENT:
                    with suppress(OSError):  # one that we may not read, or that was removed
                        found[name] = os.getxattr(self._fd, name)
        return found

    def modified(self) -> int:
        """Return the time of the last write, in nanoseconds since 1970."""
        return os.fstat(self._fd).st_mtime_ns

    def renamed(self) -> float:
        """Return the time of the last inode change (ctime), on the clock of time.time()."""
        return os.fstat(self._fd).st_ctime

    def _access(self) -> Access:
        return Access.of(os.fstat(self._fd))
