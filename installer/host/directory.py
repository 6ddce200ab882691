"""An open directory of the node, whose files are written atomically and durably (F8).

New content becomes visible with one rename within the directory, which the container runtime notices (F14), and is on
the disk before that: a reader sees the old file or the new one, even after a power cut. A killed agent leaves at most a
temporary file, whose name no runtime reads, and which the next run deletes.
"""

import contextlib
import errno
import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Self

from installer.host import unanswered
from installer.host.files import (
    MOST_LINKS,
    OF_THE_NODE,
    PIECE,
    READ,
    TEMPORARY,
    Access,
    UnreadableError,
    open_small,
    read_small,
)

_ACL = "system.posix_acl_access"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_log = logging.getLogger(__name__)


class Directory:
    """An open directory: all operations apply to it, even if its path later means another one."""

    def __init__(self, path: Path, mount: Path | None = None) -> None:
        """Open it; `path` is its path on the node, for messages, `mount` that for this process, if different.

        Raises:
            OSError: if it does not exist.
        """
        self.path = path
        self._elsewhere = mount not in (None, path)
        self._work = unanswered.begin(path)
        try:
            self.fd = os.open(mount or path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            unanswered.end(self._work)
            error.filename = str(path)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        unanswered.end(self._work)

    def below(self, name: str) -> Self:
        """Open a subdirectory; symbolic links resolve as on the node.

        Raises:
            NotADirectoryError: if it is no directory, or a link to a path that this process does not see.
            OSError: if it cannot be opened.
        """
        found = self.follow(name)
        if found is None and self._elsewhere:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path / name))
        made = type(self)(self.path / (found or name), Path(f"/proc/self/fd/{self.fd}") / (found or name))
        made._elsewhere = self._elsewhere
        return made

    def names(self) -> list[str]:
        """List its names in libcni's order: byte by byte."""
        with self.naming(""):
            return sorted(os.listdir(self.fd), key=os.fsencode)  # noqa: PTH208 - of the open directory

    def stat(self, name: str) -> os.stat_result | None:
        """Return the lstat(2) of a file, without following a symbolic link; None if it does not exist."""
        try:
            with self.naming(name):
                return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_directory(self, name: str) -> bool:
        """Whether a name is a directory itself, not a symbolic link to one."""
        seen = self.stat(name)
        return seen is not None and stat.S_ISDIR(seen.st_mode)

    def follow(self, name: str) -> PurePath | None:
        """Resolve the symbolic links of a name while they stay in this directory, which they may name absolutely.

        Returns:
            The relative path without links, which need not exist. None if the links lead outside.

        Raises:
            UnreadableError: if they form a loop.
        """
        found, left, links = PurePath(), [name], 0
        while left:
            part = left.pop()
            if part == "..":
                if not found.parts:
                    return None
                found = found.parent
                continue
            try:
                target = PurePath(os.readlink(found / part, dir_fd=self.fd))
            except OSError:  # no link
                found /= part
                continue
            links += 1
            if links > MOST_LINKS:
                raise UnreadableError("too many levels of symbolic links")
            if target.is_absolute():
                if not target.is_relative_to(self.path):
                    return None
                target, found = target.relative_to(self.path), PurePath()
            left += reversed(target.parts)
        return found

    def open(self, name: str) -> int:
        """Open a small file for reading; symbolic links resolve as on the node.

        Raises:
            UnreadableError: if it is no small regular file; with EXDEV if it links to a path hidden from this process.
            OSError: if it cannot be opened.
        """
        found = self.follow(name)
        if found is None and self._elsewhere:
            raise UnreadableError(
                errno.EXDEV,
                f"a symbolic link that leads out of the directory, to {os.readlink(name, dir_fd=self.fd)}, which the agent's "
                "container does not see: point it at a file in this directory, or replace it with the file itself",
            )
        return open_small(os.fspath(found or name), self.fd, follow=found is None)

    def read(self, name: str) -> bytes:
        """Read a small file whole.

        Raises:
            UnreadableError: if it is no regular file (a FIFO would block), too large, or cannot be read (F13).
            FileNotFoundError: if it was deleted meanwhile.
            OSError: if what it holds is not known, as the node's disk or kernel fails.
        """
        try:
            fd = self.open(name)
            try:
                return read_small(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            if self.stat(name) is None:
                raise
            raise UnreadableError("a symbolic link to a missing file") from None
        except UnreadableError:
            raise
        except OSError as error:
            if error.errno in OF_THE_NODE:
                error.filename = str(self.path / name)
                raise
            raise UnreadableError(error.strerror or str(error)) from error

    def digest(self, name: str) -> str:
        """Compute the SHA-256 of a file, in hexadecimal digits."""
        with self.naming(name), os.fdopen(os.open(name, READ | os.O_NOFOLLOW, dir_fd=self.fd), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def pieces(self, name: str) -> Iterator[bytes]:
        """Read a large file piece by piece."""
        with self.naming(name), os.fdopen(os.open(name, READ | os.O_NOFOLLOW, dir_fd=self.fd), "rb", 0) as file:
            while piece := file.read(PIECE):
                yield piece

    def write(self, name: str, content: Iterable[bytes], access: Access) -> None:
        """Write one of our own files, replacing any present one whatever it holds.

        Raises:
            OSError: if it could not be written; then the directory is unchanged.
        """
        with self.naming(name):
            temporary = self.prepare(name, content, access)
            try:
                os.replace(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except BaseException:
                self._give_up(temporary)
                raise
            self.sync()

    def prepare(
        self, name: str, content: Iterable[bytes], access: Access, attributes: Mapping[str, bytes] | None = None
    ) -> str:
        """Write a complete temporary file to the disk, and return its name, which no runtime reads.

        Extended attributes are set as far as the file system supports them; None: the default ones.
        """
        temporary = f".{name}{TEMPORARY}"
        fd = self._create(temporary)
        try:
            try:
                for piece in content:
                    _write_all(fd, piece)
                _set_owner(fd, self.path / name, access)
                os.fchmod(fd, access.mode)  # after fchown, which clears special bits
                if attributes is not None:
                    _set_attributes(fd, self.path / name, attributes)
                os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            self._give_up(temporary)
            raise
        return temporary

    def sync(self) -> None:
        """Flush changes of its names to the disk."""
        os.fsync(self.fd)

    @contextlib.contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """Make errors in a block name the file's full path, which calls relative to a directory do not."""
        try:
            yield
        except OSError as error:
            if not Path(str(error.filename or "")).is_absolute():
                error.filename, error.filename2 = str(self.path / name), None
            raise

    def _give_up(self, temporary: str) -> None:
        with contextlib.suppress(OSError):  # the next sweep deletes it
            os.unlink(temporary, dir_fd=self.fd)

    def _create(self, temporary: str) -> int:
        try:
            return os.open(temporary, _CREATE, 0o600, dir_fd=self.fd)
        except FileExistsError:  # left by a killed agent: only one agent writes here
            os.unlink(temporary, dir_fd=self.fd)
            return os.open(temporary, _CREATE, 0o600, dir_fd=self.fd)

    def delete(self, name: str) -> bool:
        """Delete a file, durably; return whether it existed."""
        with self.naming(name):
            try:
                os.unlink(name, dir_fd=self.fd)
            except FileNotFoundError:
                return False
            self.sync()
            return True

    def sweep(self) -> list[str]:
        """Delete unfinished writes of killed agents; return their names."""
        return [name for name in self.names() if _is_unfinished(name) and self.delete(name)]


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _set_owner(fd: int, path: Path, access: Access) -> None:
    """Give the file to its owner; without the capability CHOWN, as in Istio's own chart, it becomes root's."""
    try:
        os.fchown(fd, access.uid, access.gid)
    except PermissionError as error:
        extra = {"file": str(path), "uid": access.uid, "gid": access.gid, "reason": error.strerror}
        _log.warning("the owner of the file is lost", extra=extra)


def _set_attributes(fd: int, path: Path, attributes: Mapping[str, bytes]) -> None:
    """Copy the extended attributes of the replaced file, and drop an ACL inherited from the directory."""
    for name, value in attributes.items():
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            _log.warning(
                "an extended attribute of the file is lost",
                extra={"file": str(path), "attribute": name, "reason": error.strerror},
            )
    if _ACL not in attributes:
        with contextlib.suppress(OSError):  # none is set, or the file system has none
            os.removexattr(fd, _ACL)
